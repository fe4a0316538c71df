"""Models on disk: one folder a part, with ``config.json`` and ``model.safetensors``."""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from atldiff.errors import ModelError

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

WEIGHTS_FOLDER = Path(__file__).parent / "weights"
"""The models that come with the package, a folder each."""

Config = TypeVar("Config")


def write_atomically(path: Path, content: bytes, durably: bool = False) -> None:
    """Write ``content`` beside ``path`` and move it into place, so that no reader ever sees a half of it.

    Args:
        durably: wait until it is on the disk, so that it outlives a power cut from the return on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            if durably:
                stream.flush()
                os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        if durably:
            _flush_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk; systems that cannot go without."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def save_part(folder: Path, module: nn.Module, config: Any, dtype: torch.dtype = torch.float16) -> None:
    """Write a module and its configuration dataclass; floating-point weights are stored as ``dtype``."""
    from safetensors.torch import save

    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_NAME, save(state))
    write_json(folder / CONFIG_NAME, dataclasses.asdict(config))


def write_json(path: Path, content: object) -> None:
    """Write ``content`` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file of a model folder.

    Raises:
        ModelError: there is no such file, or it is not JSON.
    """
    if not path.is_file():
        raise ModelError(f"the model folder lacks {path.name}: expected {path}")
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error


def load_config(folder: Path, config_class: Callable[..., Config]) -> Config:
    """Read ``config.json`` of a part into its frozen dataclass; lists become tuples."""
    values = read_json(folder / CONFIG_NAME)
    if not isinstance(values, dict):
        raise ModelError(f"{folder / CONFIG_NAME} holds a {type(values).__name__}; expected an object")
    try:
        return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG_NAME} does not fit this version: {error}") from error


def load_weights(folder: Path, module: nn.Module) -> None:
    """Read ``model.safetensors`` of a part into ``module`` (in its own precision).

    Raises:
        ModelError: the file is missing or corrupt, or its tensors are not those of the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ModelError(f"the model folder lacks {folder.name}/{WEIGHTS_NAME}: expected {path}")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is corrupt: {error}") from error
    expected = module.state_dict()
    missing, unknown = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(f"{path} does not fit: missing {missing[:3] or 'none'}, unknown {unknown[:3] or 'none'}")
    for name, tensor in stored.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            raise ModelError(f"{path}: tensor {name} has shape {shapes}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: tensor {name} holds values that are not finite")
    module.load_state_dict(stored)
