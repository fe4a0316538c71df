"""The documentation does what it says: its commands parse, its links lead somewhere, and "Train your own" is run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import av
import pytest
import torch

from atldiff.cli import main
from atldiff.cli.entry import _parser
from atldiff.errors import InputError
from atldiff.evaluation.report import JSON_NAME, MARKDOWN_NAME, PAGE_NAME
from atldiff.storage.files import read_json
from prepared_files import judged_by_little

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDE = ROOT / "docs" / "train-your-own.md"

SMOKE = {
    'pip install ".[eval]"': "true",
    "prepare clips my-clips prepared": "prepare clips my-clips prepared --workers 1",
    "train landmarks prepared": "train landmarks prepared --accelerator cpu --set steps=2 clips=2 frames=12 warmup=1 "
    "report_every=2 model.channels=16 model.dilations=1,2",
    "train diffusion prepared": "train diffusion prepared --accelerator cpu --set steps=2 clips=2 frames=2 crop=16 "
    "warmup=1 report_every=2 model.channels=8,16",
    "--max-time 2h": "--max-time 0.01s",
    "--max-time 25m": "--max-time 0.01s",
    "--devices 2": "--devices 1",
    "tensorboard --logdir runs": "tensorboard --inspect --logdir runs",
    "generate --model": "generate --device cpu --crop-only --model",
    "--per-speaker 12": "--limit 1 --device cpu",
}
"""What is put in the place of what stands in the guide, so that it takes seconds; everything else is run as it is."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^ {4}(\S.*(?:\n {8,}\[.*)*)", re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portrait: Path, word: Path) -> Path:
    """The folder that the guide's reader works in: the clips of its ``clips.csv``, a portrait and speech."""
    data = Path(os.environ["ATLDIFF_DATA"])
    (manifest,) = [content for language, content in FENCE.findall(GUIDE.read_text()) if language == "csv"]
    people = {"anna": "sp01", "ben": "sp14", "clara": "sp22"}
    for line in manifest.splitlines()[1:]:
        clip = tmp_path / "my-clips" / line.split(",")[0]
        clip.parent.mkdir(parents=True, exist_ok=True)
        own = sorted((data / "lrwar" / people[clip.parent.name]).glob("*.mp4"))
        shutil.copy(own[len(list(clip.parent.iterdir()))], clip)
    (tmp_path / "my-clips" / "clips.csv").write_text(manifest)
    shutil.copy(portrait, tmp_path / "portrait.jpg")
    shutil.copy(word, tmp_path / "speech.wav")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
def test_train_your_own_runs_as_written(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    commands = [
        line
        for language, content in FENCE.findall(GUIDE.read_text())
        if language == "sh"
        for line in content.replace("\\\n", " ").splitlines()
    ]
    assert [written for written in SMOKE if not any(written in command for command in commands)] == []
    with judged_by_little():
        said = {command: run(shortened(command), capfd) for command in commands}

    assert "usable" in said["atldiff prepare clips my-clips prepared"]
    assert "5 usable clips of 5" in said["cat prepared/README.md"]
    stopped = "atldiff train diffusion prepared -o runs/diffusion --max-time 2h"
    assert "at step 1 of 2; the same command goes on" in said[stopped]
    assert "step 2/2" in said["atldiff train diffusion prepared -o runs/diffusion"]
    assert "val_psnr" in said["tensorboard --logdir runs"]
    assert "step 2/2" in said["atldiff train diffusion prepared -o runs/rented"]
    for part, run_name in (("unet", "diffusion"), ("landmark_generator", "landmarks")):
        trained = (workplace / "runs" / run_name / part / "model.safetensors").read_bytes()
        assert (workplace / "my-model" / part / "model.safetensors").read_bytes() == trained
    with av.open(str(workplace / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 30
        assert video.streams.audio
    report = workplace / "report"
    assert {path.name for path in report.iterdir()} == {JSON_NAME, MARKDOWN_NAME, PAGE_NAME}
    assert read_json(report / JSON_NAME)["by_corpus"].keys() == {"my-clips"}


def shortened(command: str) -> str:
    for written, put in SMOKE.items():
        command = command.replace(written, put)
    return command


def run(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """Run a line of the guide, ``atldiff`` in this process, and return what it printed."""
    capfd.readouterr()
    words = shlex.split(command, comments=True)
    if words[0] == "atldiff":
        code = main(words[1:])
    else:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        code = subprocess.run(["bash", "-euc", command], env=os.environ | {"PATH": path}).returncode
    said = capfd.readouterr()
    assert code == 0, f"{command}\n{said.out}{said.err}"
    return said.out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page: Path) -> None:
    text = page.read_text()
    wrong = [f"{command}: {fault}" for command in block_commands(text) for fault in faults(command)]
    wrong += [f"{command}: {fault}" for command in inline_commands(text) for fault in faults(command, partial=True)]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_command_is_found() -> None:
    text = """
`atldiff train` and `atldiff tune`

    atldiff prepare clips A B [--nosuch N]
    true && atldiff evaluate A -o B # comment

```sh
atldiff generate --portrait A --speech B -o C [--blink on|off]
```
"""
    assert [len(faults(command)) for command in block_commands(text)] == [1, 1, 1]
    assert [faults(command, partial=True) for command in inline_commands(text)] == [[], ["unknown verb tune"]]
    assert faults("atldiff train … --pack -o RUN", partial=True) == []
    assert faults("atldiff train … --packed", partial=True) == ["unknown option --packed"]


def block_commands(text: str) -> list[str]:
    """The ``atldiff`` commands of fenced and indented blocks; a synopsis goes on in lines that begin with ``[``."""
    fenced = [line for language, content in FENCE.findall(text) if language == "sh" for line in content.splitlines()]
    indented = INDENTED.findall(FENCE.sub("", text))
    parts = [part.strip() for line in [*fenced, *indented] for part in line.split("&&")]
    return [re.split(r"\s#\s", part)[0] for part in parts if part.startswith("atldiff ")]


def inline_commands(text: str) -> list[str]:
    found = (" ".join(content.split()) for content in INLINE.findall(FENCE.sub("", text)))
    return [content for content in found if content.startswith("atldiff ")]


def faults(command: str, partial: bool = False) -> list[str]:
    """What is wrong with a command or an alternative of a synopsis; a partial one may lack arguments."""
    found = []
    for words in alternatives(command):
        parser = verb_parser(words[0])
        if parser is None:
            return [f"unknown verb {words[0]}"]
        options = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        unknown = [option for option in options if option not in parser._option_string_actions]
        found += [f"unknown option {option}" for option in unknown]
        if not unknown and "…" not in words:
            try:
                _parser().parse_args(words)
            except InputError as error:
                if not (partial and "are required" in str(error)):
                    found.append(str(error))
    return found


def alternatives(command: str) -> Iterator[list[str]]:
    """Words after ``atldiff``, a list for each choice of a synopsis like ``[--blink auto|off]``; 1 for N and X."""
    plain = re.sub(r"[\[\]]", " ", command.replace(" | ", "|"))
    choices = [word.split("|") for word in shlex.split(plain)[1:]]
    for index in range(max(map(len, choices))):
        chosen = (options[min(index, len(options) - 1)] for options in choices)
        yield [{"N": "1", "X": "1"}.get(word, word) for word in chosen]


def verb_parser(verb: str) -> ArgumentParser | None:
    for action in _parser()._actions:
        if isinstance(action.choices, dict) and verb in action.choices:
            return action.choices[verb]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = []
    for link in LINK.findall(INLINE.sub("", FENCE.sub("", page.read_text()))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if re.match(r"[a-z]+:", link) is None and not (target.exists() and (not anchor or anchor in anchors(target))):
            missing.append(link)
    assert not missing


def anchors(page: Path) -> set[str]:
    """What the headings of a page are linked by."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_extra_exists() -> None:
    extras = set(metadata("atldiff").get_all("Provides-Extra") or [])
    named = {
        name
        for page in PAGES
        for found in re.findall(r"\.\[([\w,]+)\]", page.read_text())
        for name in found.split(",")
    }
    assert named
    assert named <= extras
