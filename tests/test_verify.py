"""What foreign files say is shown as theirs, and no file makes ``verify`` fail or lie."""

import copy
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from atldiff.cli import main
from atldiff.cli.words import printable, quoted
from atldiff.media import signing
from atldiff.media.jpeg import encode_jpeg
from atldiff.media.provenance import (
    DAMAGED,
    DIGITAL_SOURCE_TYPE,
    INTACT,
    MANIFEST,
    MEDIA_DATA,
    METADATA,
    _judge,
    _read_manifest,
    read_provenance,
    sign_mp4,
)
from atldiff.media.signing import own_identity
from atldiff.media.writer import VideoWriter

FORGED = 'x\x1b[2J\x1b[1;1H\nverdict: marked as synthetic, and unchanged since it was signed\n\u202e" trusted'


def film(path: Path, **options: str) -> Path:
    """A short silent film that bears no mark."""
    pictures = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))
    return path


def signed(source: Path, target: Path) -> Path:
    sign_mp4(source, target, own_identity())
    return target


@pytest.mark.parametrize("text", [FORGED, "plain", "ünï", "tab\t", "\x9b31m", "\ud800", "\r", "\u2028", "\u2066"])
def test_foreign_text_is_one_harmless_line(text) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert "\n" not in shown
    assert (shown == text) == (text in ("plain", "ünï"))
    assert quoted(text).count('"') - quoted(text).count('\\"') == 2
    assert len(quoted(text * 1000)) < 220


def test_a_signer_and_a_name_cannot_forge_the_verdict(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(signing.secrets, "token_hex", lambda *_: "x\x1b[2J\n")
    monkeypatch.setattr("atldiff.media.provenance.DIGITAL_SOURCE_TYPE", FORGED)
    path = signed(film(tmp_path / "film.mp4"), tmp_path / "a\nverdict: marked as synthetic, \x1b[2J.mp4")
    assert main(["verify", str(path)]) == 5
    said = capsys.readouterr().out
    assert said.splitlines()[0] == "verdict: no mark of synthetic content; it is signed, but says something else"
    assert "\x1b" not in said
    assert said.isascii()
    assert [line for line in said.splitlines()[1:] if not line.startswith("  ")] == []
    assert main(["verify", str(path), "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["source_type"] == FORGED
    assert main(["verify", str(tmp_path / "no\x1b[2Jne.mp4")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_films_with_two_boxes_of_media_data(tmp_path) -> None:
    path = film(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes() + (1000).to_bytes(4, "big") + b"mdat" + bytes(992))
    marked = signed(path, tmp_path / "marked.mp4")
    assert read_provenance(marked).state == INTACT
    whole = bytearray(marked.read_bytes())
    whole[-500] ^= 1
    marked.write_bytes(whole)
    found = read_provenance(marked)
    assert (found.state, found.damaged) == (DAMAGED, (MEDIA_DATA,))


def test_films_in_fragments(tmp_path, capsys) -> None:
    path = film(tmp_path / "film.mp4", movflags="frag_keyframe+empty_moov+default_base_moof")
    assert main(["verify", str(path)]) == 5
    assert main(["verify", str(signed(path, tmp_path / "marked.mp4"))]) == 3
    assert "fragments" in capsys.readouterr().out


def test_manifests_of_any_shape_are_judged(tmp_path) -> None:
    """Every value of a true manifest store, once replaced by each of others."""
    marked = signed(film(tmp_path / "film.mp4"), tmp_path / "marked.mp4")
    with marked.open("rb") as stream:
        store = _read_manifest(stream, "video/mp4", "")
    assert store is not None
    store["validation_results"]["activeManifest"]["failure"] = [{"code": "assertion.bmffHash.mismatch"}]
    others: list = [None, True, -1, 1e300, "", "x", [], [1], [[10**12]], {}, {"a": [{}]}]
    paths = places(store)
    chosen = random.Random(0).sample(paths, min(len(paths), 150))
    for place in chosen:
        for other in others:
            changed = copy.deepcopy(store)
            put(changed, place, other)
            found = _judge(changed, io.BytesIO(marked.read_bytes()), None)
            assert found.state in (DAMAGED, INTACT, "unmarked")
            assert all(isinstance(detail, str) for detail in found.details)


def places(value, before: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [place for key, item in items for place in places(item, (*before, key))]
    return [*([before] if before else []), *below]


def put(value, place: tuple, other) -> None:
    for key in place[:-1]:
        value = value[key]
    value[place[-1]] = other


def test_mutated_films_end_in_a_finding_or_in_words(tmp_path) -> None:
    whole = signed(film(tmp_path / "film.mp4"), tmp_path / "marked.mp4").read_bytes()
    dice, path, codes = random.Random(1), tmp_path / "mutated.mp4", set()
    for _ in range(60):
        mutated = bytearray(whole)
        for _ in range(dice.choice([1, 3, 20])):
            place = dice.randrange(len(mutated) if dice.random() < 0.3 else 4000)
            mutated[place : place + dice.choice([0, 1, 1, 50])] = dice.randbytes(dice.choice([1, 1, 4]))
        path.write_bytes(mutated)
        codes.add(main(["verify", "-q", str(path)]))
    assert codes <= {0, 2, 3, 4, 5}
    assert 3 in codes


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_the_exit_code_holds_on_any_console(tmp_path, encoding) -> None:
    marked = signed(film(tmp_path / "film.mp4"), tmp_path / "映画.mp4")
    command = [sys.executable, "-m", "atldiff.cli", "verify", str(marked)]
    said = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith(b"verdict: marked as synthetic")


@pytest.mark.parametrize(("suffix", "state"), [(".mov", INTACT), (".gif", INTACT), (".webm", METADATA)])
def test_every_kind_that_is_written_can_be_read_back(tmp_path, suffix, state) -> None:
    path, pictures = tmp_path / f"film{suffix}", np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), np.uint8)
    with VideoWriter(path, 64, 48, 25, None) as writer:
        for picture in pictures:
            writer.write(picture)
    found = read_provenance(path)
    assert (found.state, found.comment is not None) == (state, suffix != ".gif")
    changed = bytearray(path.read_bytes())
    changed[len(changed) * 3 // 4] ^= 1
    path.write_bytes(changed)
    assert read_provenance(path).state == (DAMAGED if state == INTACT else METADATA)


def test_a_single_picture_of_a_live_session_is_read(tmp_path) -> None:
    path, picture = tmp_path / "frame.jpg", np.zeros((40, 60, 3), np.uint8)
    path.write_bytes(encode_jpeg(picture))
    assert main(["verify", str(path)]) == 4
    assert read_provenance(path).comment == DIGITAL_SOURCE_TYPE
    Image.fromarray(picture).save(path)
    assert main(["verify", str(path)]) == 5


def test_a_gif_with_a_broken_manifest_is_damaged(tmp_path) -> None:
    path = tmp_path / "film.gif"
    with VideoWriter(path, 64, 48, 25, None) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    content = path.read_bytes()
    place = content.index(b"C2PA_GIF") + 40
    path.write_bytes(content[:place] + bytes(8) + content[place + 8 :])
    found = read_provenance(path)
    assert (found.state, found.damaged[:1]) == (DAMAGED, (MANIFEST,))
