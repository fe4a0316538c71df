"""Checkpoints that a killed run goes on from exactly: atomic files, everything that the next step depends on."""

import contextlib
import copy
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from atldiff.data.prepared import PreparedClips
from atldiff.errors import InputError, ModelError, OutputError
from atldiff.processes.locks import hold_lock
from atldiff.storage.files import write_atomically
from atldiff.storage.parts import load_checkpoint

FOLDER_NAME = "checkpoints"
BEST_NAME = "best.pt"
LOCK_NAME = "lock"
PACK_NAME = "pack.json"
"""What a pack is made of; beside results that came home, what the pack was that they come from."""

_MAY_DIFFER = ("steps", "accumulate", "report_every", "keep")
_USED_SPLITS = ("train", "val")
_TELLING = ("key", "corpus", "speaker", "emotion", "split", "frames", "fps", "size")
_STEP = re.compile(r"step-(\d+)\.pt", re.ASCII)
_LEFTOVERS = (f"{FOLDER_NAME}/.step-*.pt.*", f".{BEST_NAME}.*", ".log.csv.*", "samples/.*.png.*")
_LEFTOVERS += ("*/.model.safetensors.*", "*/.config.json.*")

Module = TypeVar("Module", bound=nn.Module)


class ExponentialAverage(Generic[Module]):
    """Exponential moving average of a module's parameters, with a warm-up so that early steps do not linger."""

    def __init__(self, module: Module, decay: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards ``module`` after optimiser step number ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for averaged, current in zip(self.module.parameters(), module.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)


class Checkpoints:
    """The last few states of a run, ``checkpoints/step-000500.pt``, and its best weights, ``best.pt``."""

    def __init__(self, run: Path, keep: int) -> None:
        self._run, self._keep = run, keep

    def paths(self) -> list[Path]:
        """The files of the states, oldest first: by their numbers, which may have more digits than others."""
        found = ((_STEP.fullmatch(path.name), path) for path in (self._run / FOLDER_NAME).glob("step-*.pt"))
        return [path for _, path in sorted((int(name[1]), path) for name, path in found if name is not None)]

    def latest(self) -> dict[str, Any] | None:
        """The newest state, on the CPU; None in a new run."""
        paths = self.paths()
        return _load(paths[-1]) if paths else None

    @property
    def best_path(self) -> Path:
        """Where the best weights so far lie."""
        return self._run / BEST_NAME

    def best(self) -> dict[str, Any]:
        """What :meth:`save_best` wrote.

        Raises:
            InputError: it is not there, or cannot be read.
        """
        if not self.best_path.is_file():
            raise InputError(
                f"{self._run} has no {BEST_NAME}, the best weights; copy it there, or go on training with more steps "
                "(--set steps=N), which writes another"
            )
        return _load(self.best_path)

    def save(self, state: dict[str, Any]) -> None:
        """Write a state, which has its ``step``, and remove those that are not kept.

        It is on the disk, and not only in the system's memory, before an older one goes.

        Raises:
            OutputError: it cannot be written; the older ones are left as they are.
        """
        self._write(self._run / FOLDER_NAME / f"step-{state['step']:06d}.pt", state)
        for path in self.paths()[: -self._keep]:
            path.unlink()

    def save_best(self, content: dict[str, Any]) -> None:
        """Write the best weights in the place of older ones; fails as :meth:`save` does."""
        self._write(self.best_path, content)

    def describe_last(self) -> str:
        """What is there to go on from, for messages."""
        paths = self.paths()
        return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(content, buffer)
        try:
            write_atomically(path, buffer.getvalue(), durably=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}; {self.describe_last()}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        content = load_checkpoint(path)
    except ModelError as error:
        raise InputError(f"{error}; remove it to go on without it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a state: remove it to go on without it")
    return content


@contextlib.contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Keep other processes from the folder of a run, made where missing, and clear it of what killed ones left.

    The lock ends with the process, however that ends. A file system without locks goes without.

    Raises:
        InputError: another process has the lock.
        OutputError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            run.mkdir(parents=True, exist_ok=True)
            expected = "wait for its end, or train to another folder"
            stack.enter_context(hold_lock(run / LOCK_NAME, f"{run} is in use by another process", expected))
            for path in (path for pattern in _LEFTOVERS for path in run.glob(pattern)):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {run}: {error.strerror or error}") from error
        yield


def check_same_part(stored: str, wanted: str, run: Path) -> None:
    """Refuse to go on with another part of the model than the run was begun with.

    Raises:
        InputError: it is another.
    """
    if stored != wanted:
        raise InputError(f"{run} is a run of the part {stored}, not {wanted}; expected its own or a new folder")


def describe_clips(folder: Path) -> dict[str, Any]:
    """What tells the clips of a prepared folder that training uses from others.

    Returns:
        ``folder``, the number of ``train`` and of ``val`` clips, and a ``digest`` of what the index says of them, but
        for the place where they lie.

    Raises:
        InputError: the folder is not one of prepared clips.
    """
    infos = [clip.info for clip in PreparedClips.open(folder).clips if clip.info.split in _USED_SPLITS]
    rows = [
        [*(getattr(info, name) for name in _TELLING), *(size for _, size in info.members.values())]
        for info in sorted(infos, key=lambda info: info.key)
    ]
    counts = {split: sum(info.split == split for info in infos) for split in _USED_SPLITS}
    return {"folder": str(folder.resolve()), **counts, "digest": sha256(json.dumps(rows).encode()).hexdigest()}


def check_same_clips(stored: dict[str, Any] | None, wanted: dict[str, Any], run: Path) -> None:
    """Refuse to go on with other clips than the run was begun with, unless it came home from a pack of some of them.

    Args:
        stored, wanted: as :func:`describe_clips` has them; None if the checkpoint does not say.

    Raises:
        InputError: says how the clips differ.
    """
    if stored is None or stored["digest"] == wanted["digest"]:
        return
    packed = (read_pack_record(run) or {}).get("clips_used") or {}
    if stored["digest"] != packed.get("digest"):
        begun, given = (
            f"{clips['train']} train and {clips['val']} val clips in {clips['folder']} (digest {clips['digest'][:8]})"
            for clips in (stored, wanted)
        )
        raise InputError(f"{run} was begun with {begun}, not {given}; go on with those, or train to another folder")


def read_pack_record(run: Path) -> dict[str, Any] | None:
    """What says of results in ``run`` which pack they come from; None where there is no such record.

    Raises:
        InputError: it cannot be read.
    """
    path = run / PACK_NAME
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); copy it again") from error


def check_same_settings(stored: dict[str, Any], wanted: dict[str, Any], run: Path) -> None:
    """Refuse to go on with settings that make other steps than those the run was begun with.

    Args:
        stored, wanted: settings by name; ``steps``, ``accumulate``, ``report_every`` and ``keep`` may differ.

    Raises:
        InputError: names the settings that differ.
    """
    differing = [name for name in wanted if name not in _MAY_DIFFER and stored.get(name) != wanted[name]]
    if differing:
        begun, given = ({name: values.get(name) for name in differing} for values in (stored, wanted))
        raise InputError(f"{run} was begun with {begun}, not {given}; use those settings or another folder")


def all_settings(settings: Any, config: Any) -> dict[str, Any]:
    """Training settings and model configuration (dataclasses) by name, the model's as ``model.name``."""
    model = {f"model.{name}": value for name, value in dataclasses.asdict(config).items()}
    return dataclasses.asdict(settings) | model
