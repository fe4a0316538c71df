"""The notebook runs from top to bottom, and says what it should."""

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from atldiff.media.provenance import INTACT
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech.waveform import Speech

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: Path, tiny_model: Path) -> None:
    """Its cells in one namespace, with a short word and a small model in the place of what takes long."""
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "examples" / "speak.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")
    from_pretrained, open_speech = ATLDiffPipeline.from_pretrained, Speech.open
    monkeypatch.setattr(ATLDiffPipeline, "from_pretrained", lambda device: from_pretrained(tiny_model, device))
    monkeypatch.setattr(Speech, "open", lambda path, *track: open_speech(word, *track))
    space: dict = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for cell in cells[:-1]:
            exec(compile(cell, "speak.ipynb", "exec"), space)
    assert said.getvalue().startswith("30 frames of 512 × 512\n30 frames in ")
    picture = eval(cells[2].splitlines()[-1], space)
    assert isinstance(picture, Image.Image)
    imports, last = cells[-1].split("\n\n")
    exec(imports, space)
    assert eval(last, space) == INTACT
    assert os.listdir(tmp_path) == ["out.mp4"]  # noqa: PTH208
    space["pipe"].close()


def test_the_citation_says_what_the_package_says() -> None:
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    pyproject = (ROOT / "pyproject.toml").read_text()
    (version,) = [line.removeprefix("version: ") for line in lines if line.startswith("version: ")]
    assert f'version = "{version}"' in pyproject
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
