"""The index of a prepared folder: ``clips.parquet``, one row a clip, usable or not, in the order of the keys."""

import io
import json
from pathlib import Path
from typing import Any

from atldiff.data.prepared import INDEX_NAME, MEMBERS, read_index, require_pyarrow
from atldiff.errors import InputError
from atldiff.storage.files import write_atomically

LOCATION = ("shard", *(f"{member}_{what}" for member in MEMBERS for what in ("offset", "size")))
"""Columns that say where a clip's members lie; the row in a clip's ``json`` goes without them."""

_TEXTS = ("key", "corpus", "speaker", "emotion", "level", "split", "text", "source", "rejected", "unheard", "shard")
_FLOATS = ("fps", "duration_s", "audio_lag_s", "sync_r")
EMPTY_ROW: dict[str, Any] = {
    "key": "",
    "corpus": "",
    "speaker": "",
    "emotion": "",
    "level": "",
    "split": "",
    "text": "",
    "source": "",
    "rejected": "",
    "unheard": "",
    "frames": 0,
    "fps": 0.0,
    "size": 0,
    "duration_s": 0.0,
    "audio_lag_s": 0.0,
    "sync_r": None,
} | dict.fromkeys(LOCATION, 0)
EMPTY_ROW["shard"] = ""

_RECORD = b"atldiff"


def write_index(folder: Path, rows: list[dict[str, Any]], record: dict[str, Any]) -> None:
    """Write ``clips.parquet``; ``record`` is kept as JSON in its metadata under ``atldiff``."""
    require_pyarrow()
    import pyarrow
    from pyarrow.parquet import write_table

    def kind(column: str) -> Any:
        if column in _TEXTS:
            return pyarrow.string()
        return pyarrow.float64() if column in _FLOATS else pyarrow.int64()

    schema = pyarrow.schema([(column, kind(column)) for column in EMPTY_ROW])
    table = pyarrow.Table.from_pylist(rows, schema.with_metadata({_RECORD: json.dumps(record).encode()}))
    stream = io.BytesIO()
    write_table(table, stream)
    write_atomically(folder / INDEX_NAME, stream.getvalue())


def open_index(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows and the record that :func:`write_index` wrote.

    Raises:
        InputError: there is no index, or it was not written by :func:`write_index`.
    """
    table = read_index(folder)
    metadata = table.schema.metadata or {}
    if _RECORD not in metadata:
        raise InputError(f"{folder / INDEX_NAME} is not the index of a prepared folder; expected another folder")
    return table.to_pylist(), json.loads(metadata[_RECORD])
