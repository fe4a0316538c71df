"""Where the parts of a model compute."""

import torch

from atldiff.errors import InputError


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name, see :meth:`~atldiff.pipeline.ATLDiffPipeline.from_pretrained`.

    Raises:
        InputError: unknown, or not there.
    """
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if counts[kind]))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"unknown device {device!r}; expected auto, cpu, cuda, cuda:1 … or mps") from error
    if chosen.type not in counts:
        raise InputError(f"unknown device {str(device)!r}; expected auto, cpu, cuda, cuda:1 … or mps")
    if (chosen.index or 0) >= counts[chosen.type]:
        raise InputError(f"device {str(device)!r} is not available on this machine; use auto or cpu")
    return chosen
