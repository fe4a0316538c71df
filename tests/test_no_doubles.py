"""Apple's GPUs have no float64: on the device there is none, found here on a CPU that is told from the host by marks.

Not run on such a GPU: what this cannot see is whether every other operation exists there.
"""

import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech.waveform import SAMPLE_RATE, Speech

_DEVICE = torch.device("cpu", 0)
"""What marked tensors give for their device; the host's give the plain ``cpu``."""

_TO_THE_HOST = (torch.Tensor.cpu, torch.Tensor.numpy)
_ASKS_FOR_THE_DEVICE = torch.Tensor.device.__get__  # pyright: ignore[reportFunctionMemberAccess]


class Marks(TorchFunctionMode):
    """Marks every tensor that would lie on the device, and notes where one of them is float64."""

    def __init__(self) -> None:
        super().__init__()
        self.doubles: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        result = func(*args, **kwargs)
        if func == _ASKS_FOR_THE_DEVICE:
            return _DEVICE if getattr(args[0], "on_device", False) else result
        if func in _TO_THE_HOST:
            return result.clone() if isinstance(result, torch.Tensor) else result
        moved = any(isinstance(each, torch.device) and each.index == 0 for each in given)
        marked = moved or any(getattr(each, "on_device", False) for each in given if isinstance(each, torch.Tensor))
        for each in tree_leaves(result) if marked else []:
            if isinstance(each, torch.Tensor):
                each.on_device = True  # pyright: ignore[reportAttributeAccessIssue]
                if each.dtype == torch.float64:
                    frames = [frame for frame in traceback.extract_stack() if "/atldiff/" in frame.filename]
                    self.doubles.add(f"{frames[-1].filename}:{frames[-1].lineno} {frames[-1].line}")
        return result


@pytest.fixture
def marked_pipeline(tiny_model) -> Iterator[ATLDiffPipeline]:
    with ATLDiffPipeline.from_pretrained(tiny_model, device=_DEVICE) as pipeline:
        for part in vars(pipeline).values():
            if isinstance(part, torch.nn.Module):
                for tensor in (*part.parameters(), *part.buffers()):
                    tensor.on_device = True  # pyright: ignore[reportAttributeAccessIssue]
        yield pipeline


@pytest.mark.parametrize("options", [{"emotion": "auto"}, {"crop_only": True, "look_ahead_s": 0.2}])
def test_nothing_on_the_device_is_float64(marked_pipeline, portrait, word, options, monkeypatch) -> None:
    monkeypatch.setattr("atldiff.image.warp.has_doubles", lambda device: False)
    samples = np.concatenate(list(Speech.open(word).blocks()))[: SAMPLE_RATE // 2]
    with Marks() as marks:
        frames = list(marked_pipeline.stream(portrait, (SAMPLE_RATE, samples), **options))
    assert len(frames) == 12
    assert marks.doubles == set()


def test_the_marks_follow_what_is_made_of_them() -> None:
    with Marks() as marks:
        there = torch.zeros(3).to(_DEVICE)
        (there[1:] + 1).mean().item()
        there.cpu().double()
        assert not marks.doubles
        assert getattr(there + 1, "on_device", False)
        assert not getattr(torch.zeros(3).double(), "on_device", False)
