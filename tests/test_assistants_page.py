"""What docs/assistants.md shows in Python is run as it stands; what needs a server is defined alone."""

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atldiff.face.prepared import prepared
from atldiff.pipeline import ATLDiffPipeline

for needed in ("hibari", "pipecat", "livekit.agents"):
    pytest.importorskip(needed)

torch.set_num_threads(1)

PAGE = Path(__file__).parents[1] / "docs" / "assistants.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def test_the_page_is_run_as_it_stands(tiny_model, portrait, tmp_path, monkeypatch, capsys) -> None:
    """The tiny model stands in for the bundled one, which takes longer."""
    shutil.copy(portrait, tmp_path / "me.jpg")
    monkeypatch.chdir(tmp_path)
    load = ATLDiffPipeline.from_pretrained
    monkeypatch.setattr(ATLDiffPipeline, "from_pretrained", lambda: load(tiny_model, device="cpu"))
    said: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), said)
    said["pipe"].close()
    assert len(BLOCKS) == 6
    for name in ("hello.mp4", "hum.mp4"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert prepared("me.atl") is not None
    assert asyncio.iscoroutinefunction(said["entrypoint"])

    async def show() -> None:
        start = said["start_face"]
        said["start_face"] = lambda *given, **more: start(*given, model=str(tiny_model), device="cpu", fps=5, **more)
        await said["show"](np.full(4800, 1000, np.int16))

    capsys.readouterr()
    asyncio.run(show())
    assert "True (1,)" in capsys.readouterr().out.splitlines()[-1]
