"""Models on disk: one folder a part, with ``config.json`` and ``model.safetensors``."""

import dataclasses
import math
import pickle
import re
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import nn

from atldiff.errors import ModelError
from atldiff.storage.files import read_json, write_atomically, write_json

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
"""The models that come with the package, a folder each."""

_LONGEST_LIST, _LONGEST_TEXT, _LARGEST_NUMBER = 64, 1000, 10**6
_PICKLES = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")
_FRACTIONS = ("F64", "F32", "F16", "BF16")

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nn.Module)


def save_part(folder: Path, module: nn.Module, config: Any, dtype: torch.dtype = torch.float16) -> None:
    """Write a module and its configuration dataclass; floating-point weights are stored as ``dtype``."""
    from safetensors.torch import save

    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in module.state_dict().items()
    }
    write_atomically(folder / WEIGHTS_NAME, save(state))
    write_json(folder / CONFIG_NAME, dataclasses.asdict(config))


def load_checkpoint(path: Path) -> Any:
    """What :func:`torch.save` wrote, on the CPU; nothing in it is run, and no more memory is taken than it has bytes.

    Raises:
        ModelError: it is no such file, holds more than tensors and plain values, or is not whole.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                    raise ModelError(f"{path} is compressed, or its parts overlap; expected a checkpoint")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"(?:GLOBAL|function) (\S+)", str(error))
        if foreign is None:
            raise ModelError(f"{path} is not a PyTorch checkpoint") from error
        raise ModelError(f"{path} is refused: besides weights and plain values it holds {foreign[1]}") from error
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # of an unpickler that came upon something odd
        reason = textwrap.shorten(str(error), 200) or type(error).__name__
        raise ModelError(f"{path} is not a whole PyTorch checkpoint: {reason}") from error


def check_model_folder(folder: Path) -> None:
    """Refuse what a folder of files alone does not hold.

    Raises:
        ModelError: it holds a link that leads out of it, or something that is neither a file nor a folder.
    """
    whole = folder.resolve()
    for path in folder.rglob("*"):
        target = path.resolve()
        if path.is_symlink() and not target.is_relative_to(whole):
            raise ModelError(f"{path} is a link that leads out of the model folder; expected the file itself")
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise ModelError(f"{path} is neither a file nor a folder; expected a model folder without such")


def load_config(folder: Path, config_class: Callable[..., Config]) -> Config:
    """Read ``config.json`` of a part into its frozen dataclass; lists become tuples.

    Raises:
        ModelError: there is no such file, or a value is unknown, of another kind, not finite or far too large.
    """
    return make_config(folder / CONFIG_NAME, read_json(folder / CONFIG_NAME), config_class)


def make_config(path: Path, values: Any, config_class: Callable[..., Config]) -> Config:
    """What was read from ``path`` as a dataclass; raises as :func:`load_config` does."""
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}; expected an object")
    kinds = get_type_hints(config_class)
    for name, value in values.items():
        if name not in kinds:
            raise ModelError(f"{path} does not fit this version: it has {name[:80]!r}, which is unknown")
        if not _is_of_kind(value, kinds[name]):
            kind = getattr(kinds[name], "__name__", kinds[name])
            raise ModelError(f"{path}: {name} is {textwrap.shorten(repr(value), 80)}; expected a sane {kind}")
    try:
        return config_class(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path} does not fit this version: {error}") from error


def _is_of_kind(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is one that a field of this annotation may have."""
    if get_origin(kind) is tuple:
        members = [member for member in get_args(kind) if member is not Ellipsis]
        is_list = isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST
        return is_list and all(any(_is_of_kind(item, member) for member in members) for item in value)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and abs(value) <= _LARGEST_NUMBER
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= _LARGEST_NUMBER
    return isinstance(value, str) and kind is str and len(value) <= _LONGEST_TEXT


def load_part(folder: Path, network: Callable[[Any], Module], config_class: Callable[..., Any]) -> Module:
    """A part of a model folder: its network, made for its configuration, with its weights.

    Whether the weights are those of such a network is known before memory is taken for either.

    Args:
        network: makes the module from its configuration.

    Raises:
        ModelError: a file is missing or corrupt, or the two do not belong together.
    """
    config = load_config(folder, config_class)
    try:
        with torch.device("meta"):
            expected = _signature(network(config).state_dict())
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, OverflowError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder / CONFIG_NAME} describes no network: {error}") from error
    _check_header(folder, expected)
    module = network(config)
    load_weights(folder, module)
    return module


def part_folder(name_or_dir: str, part: str) -> Path:
    """Where the trained part is that a setting names: one in the package, or a folder."""
    packaged = WEIGHTS_FOLDER / name_or_dir / part
    return packaged if packaged.is_dir() else Path(name_or_dir)


def load_weights(folder: Path, module: nn.Module) -> None:
    """Read ``model.safetensors`` of a part into ``module`` (in its own precision).

    Raises:
        ModelError: the file is missing or corrupt, or its tensors are not those of the module.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS_NAME
    _check_header(folder, _signature(module.state_dict()))
    try:
        stored = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is corrupt: {error}") from error
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{path}: tensor {name} holds values that are not finite")
    module.load_state_dict(stored)


def _signature(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], bool]]:
    """The shape of each tensor, and whether it holds fractions."""
    return {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in state.items()}


def _check_header(folder: Path, expected: Mapping[str, tuple[tuple[int, ...], bool]]) -> None:
    """Compare what a file of weights says that it holds, without reading the weights. Raises ModelError."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ModelError(f"the model folder lacks {folder.name}/{WEIGHTS_NAME}: expected {path}")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            stored = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        if zipfile.is_zipfile(path) or _begin(path) in _PICKLES:
            raise ModelError(f"{path} is a pickle, which could run code; expected safetensors") from error
        raise ModelError(f"{path} is corrupt: {error}") from error
    missing, unknown = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(f"{path} does not fit: missing {missing[:3] or 'none'}, unknown {unknown[:3] or 'none'}")
    for name, (shape, kind) in stored.items():
        if shape != expected[name][0]:
            raise ModelError(f"{path}: tensor {name} has shape {shape}, expected {expected[name][0]}")
        if (kind in _FRACTIONS) != expected[name][1]:
            wanted = "fractions" if expected[name][1] else "whole numbers"
            raise ModelError(f"{path}: tensor {name} is of type {kind}, expected {wanted}")


def _begin(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(2)
