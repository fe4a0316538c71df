"""A clip before it is prepared: what is known of it, and where its picture and its sound lie."""

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from atldiff.errors import InputError


@dataclass(frozen=True)
class MediaSource:
    """A file, or a member of an uncompressed tar file.

    Attributes:
        path: the file, or the tar file.
        member: the member's name in the tar file; empty for a plain file.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def inside(self, folder: Path) -> str:
        """Where it lies seen from ``folder``, with ``/`` on every system: ``M003/video.tar:front/angry/…``."""
        path = self.path.relative_to(folder).as_posix()
        return f"{path}:{self.member}" if self.member else path

    @contextmanager
    def open(self) -> Iterator[Path]:
        """A plain file while the block runs: the file itself, or a temporary copy of the tar file's member.

        An :class:`InputError` of the block that names the temporary copy names the member instead, so that the
        same input gives the same message on every run.

        Raises:
            InputError: the tar file cannot be read, or has no such member.
        """
        if not self.member:
            yield self.path
            return
        content = self._read_member()
        with tempfile.TemporaryDirectory(prefix="atldiff-") as folder:
            copy = Path(folder) / PurePosixPath(self.member).name
            copy.write_bytes(content)
            try:
                yield copy
            except InputError as error:
                raise type(error)(str(error).replace(str(copy), str(self))) from error

    def _read_member(self) -> bytes:
        members = tar_members(self.path)
        if self.member not in members:
            raise InputError(f"{self.path} has no member {self.member!r}; it has {len(members)} others")
        offset, size = members[self.member]
        try:
            with self.path.open("rb") as stream:
                stream.seek(offset)
                content = stream.read(size)
        except OSError as error:
            raise InputError(f"{self} cannot be read ({error.strerror}); expected a tar file's member") from error
        if len(content) != size:
            raise InputError(f"{self.path} is cut short: {self.member} needs {offset + size} bytes of it")
        return content


@dataclass(frozen=True)
class SourceClip:
    """A clip of a source tree.

    Attributes:
        key: ``corpus/speaker/name`` of letters, digits, ``_`` and ``-`` alone, unique in its listing.
        emotion: one of :data:`atldiff.options.EMOTIONS`; empty if not known.
        level: the intensity in the corpus's own words (MEAD ``level_1`` … ``level_3``; CREMA-D ``LO``, ``MD``,
            ``HI``, ``XX`` unspecified); empty if not known.
        split: ``train``, ``val`` or ``test``.
        sound: may be the same as ``picture``: the video's own sound.
        audio_lag_s: seconds that the sound trails the picture; None where nobody stated it.
        text: the words spoken; empty if not known.
        lone: nothing tells who speaks, so that the file counts as a speaker of its own.
    """

    key: str
    corpus: str
    speaker: str
    emotion: str
    level: str
    split: str
    picture: MediaSource
    sound: MediaSource
    audio_lag_s: float | None
    text: str = ""
    lone: bool = False


@lru_cache(maxsize=8)
def tar_members(path: Path) -> dict[str, tuple[int, int]]:
    """The files in an uncompressed tar file: where their content lies in it, (offset, size) in bytes, by name.

    Raises:
        InputError: it cannot be read, is compressed, damaged, or cut short.
    """
    expected = "an uncompressed, complete tar file"
    try:
        with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            members = {member.name: (member.offset_data, member.size) for member in archive if member.isreg()}
            stream.seek(archive.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise InputError(f"{path} is damaged after {len(members)} files; expected {expected}")
            return members
    except (tarfile.TarError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected {expected}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); expected {expected}") from error
