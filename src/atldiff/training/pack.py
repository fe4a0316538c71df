"""A training run in a folder of its own: clips, code and a script, for a machine without network.

That machine needs Python, torch, NumPy and OpenCV. A pack is a few folders, ``part-0``, ``part-1`` and so on, none
larger than asked for. Each has clips: ``clips.json``, the rows of the index, and one tar in the layout of the
prepared shards, without the sound: a pack for the landmark generator has the sound's features and no pictures.
``part-0`` has the code beside them, and ``train.py``, which runs the command that the pack was made with
(:mod:`atldiff.cli.packed`).
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atldiff.data.prepared import JSON_INDEX_NAME, MEMBERS, SHARDS_NAME, PreparedClip, PreparedClips, read_rows
from atldiff.data.shards import Shard
from atldiff.errors import InputError, OutputError
from atldiff.speech.whisper import FEATURE_RATE, FEATURE_SIZE
from atldiff.storage.files import write_atomically, write_json
from atldiff.training.engine.checkpoint import PACK_NAME
from atldiff.training.engine.task import Task
from atldiff.training.packed_run import CODE_NAME, SCRIPT_NAME, folder_name
from atldiff.training.sound.speech_features import FOLDER_NAME as FEATURES_NAME
from atldiff.training.sound.speech_features import MARGIN, VARIANTS

FOLDER_BYTES = 60 * 2**20
"""Most bytes of a folder."""

MOST_FOLDERS = 4

PACKED_MEMBERS = {"diffusion": ("landmarks", "video"), "landmarks": ("landmarks",)}
"""What is packed of each clip for the parts of the model that can be trained from a pack."""

_PACKAGES = {
    "atldiff": "atldiff",
    "lightning_fabric": "lightning-fabric",
    "lightning_utilities": "lightning-utilities",
}
_PACKAGES |= {"packaging": "packaging", "tqdm": "tqdm"}
_CODE_SUFFIXES = {".py", ".info"}
_VALIDATION_SHARE = 0.15
_RESERVE = 64 * 2**10

_SCRIPT = '''"""Train what is packed here: python train.py --max-time 25m -o RUN; again to go on. See README.txt."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "code"))

if __name__ == "__main__":
    from atldiff.cli.packed import main

    sys.exit(main(HERE.parent))
'''

_README = """Training of the {part} part of ATL-Diff: {clips} of {of} clips ({share:.0%}), folders: {folders}.

1. Copy all folders part-N side by side to the machine. It needs Python 3.11 or newer, torch, numpy
   and OpenCV.
2. Train there, and give the same command again to go on:
       python part-0/train.py --max-time 25m -o RUN
   Every option of `atldiff train` but the data can be added, such as --devices 2.
3. Copy RUN/return back, as a folder RUN, and finish where ATL-Diff is installed:
       atldiff train {part} DATA -o RUN
   With RUN/checkpoints in it, that command goes on where the machine stopped, with all clips of DATA; without, it
   exports the best weights. It keeps to the options of the pack, which are: {options}
"""


@dataclass(frozen=True)
class Packed:
    """What a pack holds.

    Attributes:
        part: of the model.
        options: of ``atldiff train`` that it was made with.
        folders: how many.
        clips, of: clips in it, and clips that there were to take.
        speakers: in it.
    """

    part: str
    options: tuple[str, ...]
    folders: int
    clips: int
    of: int
    speakers: int


def write_pack(
    data: Path,
    pack: Path,
    part: str,
    options: Sequence[str],
    make_task: Callable[[Path], Task],
    most_per_speaker: int | None = None,
    folder_bytes: int = FOLDER_BYTES,
    most_folders: int = MOST_FOLDERS,
) -> Packed:
    """Write a pack to the folder ``pack``, which is new or empty.

    Where the clips do not fit, speakers share the room evenly, and validation takes no more than 15 % of it.

    Args:
        data: folder of prepared clips with splits ``train`` and ``val``.
        part: ``diffusion`` or ``landmarks``.
        options: of ``atldiff train`` that say what is trained and how.
        make_task: the training task on a folder of prepared clips; it makes the features of their sound.
        most_per_speaker: most clips of a speaker that the training uses.
        folder_bytes: most bytes of a folder.
        most_folders: most folders.

    Raises:
        InputError: the part cannot be packed, the clips cannot be used, or nothing fits.
        OutputError: ``pack`` is not empty or cannot be written.
    """
    if part not in PACKED_MEMBERS:
        raise InputError(f"the part {part} cannot be packed; expected one of {', '.join(PACKED_MEMBERS)}")
    if pack.exists() and (not pack.is_dir() or any(pack.iterdir())):
        raise OutputError(f"{pack} is there already; expected a new or an empty folder")
    prepared = PreparedClips.open(data)
    heard = part == "landmarks"
    splits = {
        "val": prepared.split("val", heard=heard),
        "train": prepared.split("train", most_per_speaker, heard=heard),
    }
    try:
        pack.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=pack.parent, prefix=f".{pack.name}.") as temporary:
            made = Path(temporary) / "pack"
            copy_code(made / folder_name(0) / CODE_NAME)
            room = folder_bytes * most_folders - _folder_size(made) - _RESERVE * most_folders
            chosen = _choose(splits, part, room)
            features = (
                _speech_features(chosen, prepared, Path(temporary) / "data", make_task)
                if part == "landmarks"
                else None
            )
            count = _fill_folders(made, chosen, part, features, folder_bytes, most_folders)
            packed = _describe(made, chosen[:count], sum(map(len, splits.values())), part, options)
            if pack.exists():
                pack.rmdir()
            made.replace(pack)
    except OSError as error:
        raise OutputError(f"cannot write the pack {pack}: {error.strerror or error}") from error
    return packed


def copy_code(folder: Path) -> None:
    """Copy this package, without weights, and the pure Python packages that training needs, with their licences."""
    for module, name in _PACKAGES.items():
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise InputError(
                f'a pack holds a copy of {name}, which is not installed; install it with: pip install ".[train]"'
            )
        source = Path(spec.origin).parent
        for path in source.rglob("*"):
            if path.suffix in _CODE_SUFFIXES and path.is_file():
                target = folder / module / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        _copy_metadata(name, folder)


def _copy_metadata(name: str, folder: Path) -> None:
    try:
        files = distribution(name).files or []
    except PackageNotFoundError:
        return
    for file in files:
        if file.parts[0].endswith(".dist-info") and Path(str(file.locate())).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), folder / file)


def _choose(splits: dict[str, list[PreparedClip]], part: str, room: int) -> list[PreparedClip]:
    """The clips that should fit into so many bytes, validation first; any beginning of each split is balanced."""
    chosen: list[PreparedClip] = []
    for split, share in (("val", _VALIDATION_SHARE), ("train", 1.0)):
        left = int(share * room)
        for clip in _balanced(splits[split]):
            size = _expected_size(clip, part)
            if size > left:
                break
            chosen.append(clip)
            left, room = left - size, room - size
    return chosen


def _balanced(clips: Sequence[PreparedClip]) -> Iterator[PreparedClip]:
    """One clip of every speaker, then another of every speaker, and so on."""
    by_speaker: dict[tuple[str, str], list[PreparedClip]] = {}
    for index in np.random.default_rng(0).permutation(len(clips)):
        clip = clips[index]
        by_speaker.setdefault((clip.info.corpus, clip.info.speaker), []).append(clip)
    for turn in zip_longest(*(by_speaker[speaker] for speaker in sorted(by_speaker))):
        yield from (clip for clip in turn if clip is not None)


def _expected_size(clip: PreparedClip, part: str) -> int:
    size = 2048 + sum(clip.info.members[name][1] for name in PACKED_MEMBERS[part])
    if part == "landmarks":
        variants = VARIANTS if clip.info.split == "train" else 1
        features = 1.1 * FEATURE_RATE * clip.info.frames / clip.info.fps + 2 * MARGIN
        size += int(variants * (2 * FEATURE_SIZE * features + 1024))
    return size


def _speech_features(
    chosen: Sequence[PreparedClip], prepared: PreparedClips, folder: Path, make_task: Callable[[Path], Task]
) -> Path:
    """Features of the chosen clips: those that ``prepared`` keeps, and what the task itself makes of the rest."""
    keys = {clip.info.key for clip in chosen}
    rows = [row for row in read_rows(prepared.folder) if row["key"] in keys and not row["rejected"]]
    shards = (prepared.folder / SHARDS_NAME).resolve()
    write_json(folder / JSON_INDEX_NAME, [row | {"shard": str(shards / row["shard"])} for row in rows])
    for kept in (prepared.folder / FEATURES_NAME).glob("*"):
        for key in keys:
            if (kept / f"{key}.npz").is_file():
                target = folder / FEATURES_NAME / kept.name / f"{key}.npz"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(kept / f"{key}.npz", target)
    make_task(folder).open(torch.device("cpu"))
    return folder / FEATURES_NAME


def _fill_folders(
    made: Path, chosen: Sequence[PreparedClip], part: str, features: Path | None, folder_bytes: int, most_folders: int
) -> int:
    """Fill one folder after the other and return how many clips found room."""
    number, rows, shard = 0, [], Shard()
    left = folder_bytes - _folder_size(made) - _RESERVE
    for count, clip in enumerate(chosen):
        members = _members(clip, part, features)
        size = sum(len(content) + 1024 for content in members.values()) + 1024
        if size > left:
            if not rows:
                break
            _close_folder(made / folder_name(number), rows, shard)
            if number + 1 == most_folders:
                return count
            number, rows, shard = number + 1, [], Shard()
            left = folder_bytes - _RESERVE
        rows.append(_row(clip, members, shard, f"{folder_name(number)}.tar"))
        left -= size
    if not rows:
        raise InputError(f"no clip fits into a folder of {folder_bytes} bytes; expected larger ones")
    _close_folder(made / folder_name(number), rows, shard)
    return len(chosen)


def _members(clip: PreparedClip, part: str, features: Path | None) -> dict[str, bytes]:
    """Contents by what a member is called in the tar after the clip's key."""
    members = {MEMBERS[name]: clip.member(name) for name in PACKED_MEMBERS[part]}
    if features is not None:
        for kind in sorted(features.iterdir()):
            path = kind / f"{clip.info.key}.npz"
            if path.is_file():
                members[f"{FEATURES_NAME}-{kind.name}.npz"] = path.read_bytes()
    return members


def _row(clip: PreparedClip, members: dict[str, bytes], shard: Shard, name: str) -> dict[str, Any]:
    places = {
        label: [shard.add(f"{clip.info.key}.{label}", content), len(content)] for label, content in members.items()
    }
    row = {column: value for column, value in asdict(clip.info).items() if column != "members"}
    row |= {"shard": name, "rejected": "", FEATURES_NAME: {}}
    for member, label in MEMBERS.items():
        row[f"{member}_offset"], row[f"{member}_size"] = places.pop(label, [0, 0])
    row[FEATURES_NAME] = {label.removeprefix(f"{FEATURES_NAME}-"): place for label, place in places.items()}
    return row


def _close_folder(folder: Path, rows: list[dict[str, Any]], shard: Shard) -> None:
    shard.write(folder / SHARDS_NAME / rows[0]["shard"])
    write_atomically(folder / JSON_INDEX_NAME, json.dumps(rows).encode())


def _describe(made: Path, clips: Sequence[PreparedClip], of: int, part: str, options: Sequence[str]) -> Packed:
    speakers = {(clip.info.corpus, clip.info.speaker) for clip in clips}
    folders = len(list(made.iterdir()))
    packed = Packed(part, tuple(options), folders, len(clips), of, len(speakers))
    first = made / folder_name(0)
    write_json(first / PACK_NAME, asdict(packed))
    write_atomically(first / SCRIPT_NAME, _SCRIPT.encode())
    values = {"share": len(clips) / of, "options": " ".join(options)}
    write_atomically(first / "README.txt", _README.format(**asdict(packed) | values).encode())
    return packed


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
