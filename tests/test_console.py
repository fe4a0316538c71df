"""Consoles and streams as they come: not UTF-8, closed, full, without a reader."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from atldiff.cli import main
from atldiff.media.provenance import INTACT, read_provenance
from media_files import unsigned_content
from test_verify import film, signed

COMMAND = f"{sys.executable} -m atldiff.cli"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", command], capture_output=True, env=os.environ | environment)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_help_can_be_read_on_any_console(encoding) -> None:
    said = subprocess.run(
        [*COMMAND.split(), "generate", "--help"], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert (said.returncode, said.stderr) == (0, b"")
    assert said.stdout.decode(encoding).startswith("usage: atldiff generate")


@pytest.fixture
def command(portrait: Path, word: Path, tiny_model: Path, tmp_path: Path) -> str:
    inputs = f"--portrait {portrait} --speech {word} --model {tiny_model} --device cpu --crop-only --fps 5"
    return f"{COMMAND} generate {inputs} -o {tmp_path / 'out.mp4'}"


@POSIX
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault_and_nothing_is_written_into_the_video(command, closed, tmp_path) -> None:
    said = shell(f"{command} {closed}")
    assert said.returncode == 0, said.stderr
    assert read_provenance(tmp_path / "out.mp4").state == INTACT
    assert unsigned_content(tmp_path / "out.mp4")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_standard_output_that_is_full_is_told(unbuffered, tmp_path) -> None:
    marked = signed(film(tmp_path / "film.mp4"), tmp_path / "marked.mp4")
    said = shell(f"{COMMAND} verify {marked} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert said.returncode == 2
    assert said.stderr == b"atldiff: error: cannot write to standard output or a file: No space left on device\n"


@pytest.mark.parametrize("port", ["80000", "-1", "http", "٣", "9" * 500])
def test_a_port_that_is_none_is_told(port, capsys) -> None:
    assert main(["serve", "--port", port]) == 2
    assert "is no port; expected a whole number from 0 to 65535" in capsys.readouterr().err
