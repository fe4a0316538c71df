"""Tar shards in WebDataset's layout, the same bytes for the same clips on every machine."""

import io
import json
import tarfile
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from atldiff.data.index import LOCATION
from atldiff.data.prepared import MEMBERS, SHARDS_NAME
from atldiff.storage.files import write_atomically

SHARD_BYTES = 256 * 2**20
"""A shard is closed by the clip that would make it larger."""


class Shard:
    """A tar file that grows in memory: members in the order given, without times, owners or rights of their own."""

    def __init__(self) -> None:
        self._stream = io.BytesIO()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._stream.tell()

    def add(self, name: str, content: bytes) -> int:
        """Add a file and return the offset of its content."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(content), 0o644
        self._stream.write(header.tobuf(tarfile.PAX_FORMAT))
        offset = self.size
        self._stream.write(content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))
        return offset

    def write(self, path: Path) -> None:
        """Write the tar file, atomically."""
        self._stream.write(b"\0" * (2 * tarfile.BLOCKSIZE))
        write_atomically(path, self._stream.getvalue())


def write_shards(
    folder: Path, clips: Iterable[tuple[dict[str, Any], dict[str, bytes]]], shard_bytes: int = SHARD_BYTES
) -> list[dict[str, Any]]:
    """Write the shards of a prepared folder and remove those of an earlier run that are no longer needed.

    A shard holds clips of one split in the order given; it is named ``SPLIT-000000.tar`` and so on.

    Args:
        clips: of each its row of the index and its members by the names of ``MEMBERS``, empty ones being left out;
            one split after the other.

    Returns:
        The rows with the shard and where in it the members lie.
    """
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    for split, group in groupby(clips, key=lambda clip: clip[0]["split"]):
        shard, number = Shard(), 0
        for row, members in group:
            if shard.size and shard.size + sum(map(len, members.values())) > shard_bytes:
                shard.write(folder / SHARDS_NAME / names[-1])
                shard, number = Shard(), number + 1
            if not shard.size:
                names.append(f"{split}-{number:06d}.tar")
            rows.append(row | {"shard": names[-1]} | _add_clip(shard, row, members))
        shard.write(folder / SHARDS_NAME / names[-1])
    for path in (folder / SHARDS_NAME).glob("*"):
        if path.name not in names:
            path.unlink()
    return rows


def _add_clip(shard: Shard, row: dict[str, Any], members: dict[str, bytes]) -> dict[str, int]:
    described = {name: value for name, value in row.items() if name not in LOCATION}
    shard.add(f"{row['key']}.json", json.dumps(described, ensure_ascii=False).encode())
    location = {}
    for member, extension in MEMBERS.items():
        content = members[member]
        offset = shard.add(f"{row['key']}.{extension}", content) if content else 0
        location |= {f"{member}_offset": offset, f"{member}_size": len(content)}
    return location
