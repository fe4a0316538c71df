"""The run of a pack on a machine that has torch, NumPy and OpenCV, and its results on the way home.

The clips are unpacked first, each decoded once: a window of frames is then read and not decoded. The results are
files of at most 16 MiB in ``RUN/return``.
"""

import io
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from atldiff.data.encoding import decode_video, encode_plain_video
from atldiff.data.prepared import JSON_INDEX_NAME, MEMBERS, SHARDS_NAME
from atldiff.data.shards import SHARD_BYTES, Shard
from atldiff.errors import InputError
from atldiff.storage.files import write_atomically, write_json
from atldiff.training.engine.checkpoint import (
    BEST_NAME,
    PACK_NAME,
    Checkpoints,
    all_settings,
    check_same_settings,
    read_pack_record,
)
from atldiff.training.engine.report import LOG_NAME, SAMPLES_NAME, read_log
from atldiff.training.engine.task import Task

CODE_NAME = "code"
SCRIPT_NAME = "train.py"
RETURN_NAME = "return"

PIECE_SIZE = 16 * 2**20
"""Most bytes of a file that is returned."""

_FEATURES_NAME = "features"
_RECORD_NAME = "unpacked"
_PIECE = re.compile(r"(?P<name>.+)\.piece-(?P<number>\d+)-of-(?P<count>\d+)")
_CLIPS_AT_ONCE = 64
_TABLE_ROWS = 8


def folder_name(number: int) -> str:
    """One of the folders of a pack."""
    return f"part-{number}"


def unpack(pack: Path, data: Path) -> None:
    """Make a folder of prepared clips out of a pack, with pictures as arrays; what is there already is kept.

    Raises:
        InputError: a folder is missing or damaged, ``data`` is another folder, or OpenCV is not installed.
    """
    about = json.loads((pack / folder_name(0) / PACK_NAME).read_text())
    folders = [pack / folder_name(number) for number in range(about["folders"])]
    missing = [folder.name for folder in folders if not (folder / JSON_INDEX_NAME).is_file()]
    if missing:
        raise InputError(
            f"{', '.join(missing)} of the pack are missing in {pack}; expected all {len(folders)} side by side"
        )
    made_from = sha256(b"".join((folder / JSON_INDEX_NAME).read_bytes() for folder in folders)).hexdigest()
    record = data / _RECORD_NAME
    if record.is_file() and record.read_text() == made_from:
        return
    if data.exists():
        if not record.is_file():
            raise InputError(f"{data} is there already and was not unpacked from a pack; name another with --data")
        shutil.rmtree(data)
    write_atomically(record, b"not complete")
    rows: list[dict[str, Any]] = []
    shard, name = Shard(), ""
    for row, members in _unpacked_clips(folders, data):
        if shard.size > SHARD_BYTES:
            shard.write(data / SHARDS_NAME / name)
            shard = Shard()
        if not shard.size:
            name = f"clips-{len(rows):06d}.tar"
        places = {}
        for member, content in members.items():
            places[f"{member}_offset"] = shard.add(f"{row['key']}.{member}", content)
            places[f"{member}_size"] = len(content)
        rows.append(row | places | {"shard": name})
    shard.write(data / SHARDS_NAME / name)
    write_atomically(data / JSON_INDEX_NAME, json.dumps(rows).encode())
    write_atomically(record, made_from.encode())


def _unpacked_clips(folders: Sequence[Path], data: Path) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """Rows and members of all clips, several being decoded at a time; features go to their place in ``data``."""
    clips = [(folder, row) for folder in folders for row in json.loads((folder / JSON_INDEX_NAME).read_text())]
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(clips), _CLIPS_AT_ONCE):
            yield from pool.map(lambda clip: _unpacked(clip[0], clip[1], data), clips[begin : begin + _CLIPS_AT_ONCE])
            print(f"unpacked {min(begin + _CLIPS_AT_ONCE, len(clips))} of {len(clips)} clips", flush=True)


def _unpacked(folder: Path, row: dict[str, Any], data: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with (folder / SHARDS_NAME / row["shard"]).open("rb") as stream:

        def read(offset: int, size: int) -> bytes:
            stream.seek(offset)
            content = stream.read(size)
            if len(content) != size:
                raise InputError(f"{stream.name} is cut short; copy {folder.name} again")
            return content

        members = {name: read(row[f"{name}_offset"], row[f"{name}_size"]) for name in MEMBERS if row[f"{name}_size"]}
        for kind, place in row[_FEATURES_NAME].items():
            kind = kind.removesuffix(".npz")
            write_atomically(data / _FEATURES_NAME / kind / f"{row['key']}.npz", read(*place))
    if "video" in members:
        members["video"] = encode_plain_video(decode_video(members["video"], 0, row["frames"]))
    return row, members


def gather_results(run: Path, about: dict[str, Any], piece_size: int = PIECE_SIZE) -> None:
    """Write ``run/return``: best weights in half precision, the last checkpoint as it is, the log, the last picture.

    Beside them, in ``pack.json``, ``about`` and the clips that were used, for training to go on with more of them.

    Files of more than ``piece_size`` bytes come in pieces.
    """
    target = run / RETURN_NAME
    shutil.rmtree(target, ignore_errors=True)
    checkpoints = Checkpoints(run, 1)
    best = checkpoints.best()
    best["average"] = {
        name: value.half() if value.is_floating_point() else value for name, value in best["average"].items()
    }
    buffer = io.BytesIO()
    torch.save(best, buffer)
    _write_pieces(target / BEST_NAME, buffer.getvalue(), piece_size)
    for path in [*checkpoints.paths()[-1:], *sorted((run / SAMPLES_NAME).glob("*.png"))[-1:], run / LOG_NAME]:
        _write_pieces(target / path.relative_to(run), path.read_bytes(), piece_size)
    write_json(target / PACK_NAME, about | {"clips_used": (checkpoints.latest() or {}).get("clips_used")})


def _write_pieces(path: Path, content: bytes, size: int) -> None:
    count = -(-len(content) // size)
    for number in range(count):
        name = f"{path.name}.piece-{number:03d}-of-{count:03d}" if count > 1 else path.name
        write_atomically(path.with_name(name), content[number * size : (number + 1) * size])


def join_pieces(run: Path) -> None:
    """Put together what was returned in pieces.

    Raises:
        InputError: a piece is missing.
    """
    found = sorted(path for path in run.rglob("*.piece-*") if _PIECE.fullmatch(path.name))
    for whole, group in itertools.groupby(found, key=lambda path: path.with_name(_named(path)["name"])):
        pieces = list(group)
        count = int(_named(pieces[0])["count"])
        if len(pieces) != count:
            raise InputError(f"{whole} came in {count} pieces and {len(pieces)} of them are there; copy them all")
        write_atomically(whole, b"".join(piece.read_bytes() for piece in pieces))
        for piece in pieces:
            piece.unlink()


def _named(piece: Path) -> re.Match[str]:
    named = _PIECE.fullmatch(piece.name)
    assert named is not None
    return named


def take_in(run: Path, part: str, make_task: Callable[[], Task]) -> Path | None:
    """Take up the results of a pack that were copied to ``run``.

    Returns:
        The folder of the best weights if there is nothing in ``run`` that training could go on from, else None.

    Raises:
        InputError: they are of another part of the model, or not complete.
    """
    if _returned(run, part) is None:
        return None
    join_pieces(run)
    checkpoints = Checkpoints(run, 1)
    if checkpoints.paths() or not (run / BEST_NAME).is_file():
        return None
    task, best = make_task(), checkpoints.best()
    check_same_settings(best["settings"], all_settings(task.settings, task.config), run)
    task.model.load_state_dict(best["average"])
    task.export(task.model, run)
    return run / task.part


def options_of_pack(run: Path, part: str) -> list[str]:
    """Options of ``atldiff train`` of the pack that results in ``run`` come from; none where they come from none.

    Raises:
        InputError: they are of another part of the model, or the record of the pack cannot be read.
    """
    return (_returned(run, part) or {}).get("options", [])


def _returned(run: Path, part: str) -> dict[str, Any] | None:
    about = read_pack_record(run)
    if about is not None and about["part"] != part:
        raise InputError(f"{run} has the results of a pack of the part {about['part']}, not {part}")
    return about


def results_table(run: Path) -> str:
    """Some rows of the log, evenly spread, the last among them."""
    rows = read_log(run)
    header = list(rows[0])
    chosen = sorted({(index + 1) * len(rows) // _TABLE_ROWS - 1 for index in range(_TABLE_ROWS)} - {-1})
    cells = [
        header,
        *([f"{float(value):.5g}" if value else "" for value in rows[index].values()] for index in chosen),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(value.rjust(width) for value, width in zip(row, widths, strict=True)) for row in cells)
