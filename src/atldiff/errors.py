"""What went wrong, said so that the reader can put it right.

Everything that the caller did (a missing file, a picture without a face, a step count of zero) is an
:class:`InputError`, which is also a ``ValueError``; the command line turns it into one line and exit code 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class ATLDiffError(Exception):
    """Base class of every error that this package raises on purpose."""


class InputError(ATLDiffError, ValueError):
    """An argument or a file from the caller cannot be used; the text names what came and what was expected.

    Attributes:
        field: the argument at fault, where it is known which one it is.
    """

    def __init__(self, text: str, field: str | None = None) -> None:
        super().__init__(text)
        self.field = field


class FaceError(InputError):
    """The portrait has no usable face: none found, too small, or no face of the asked number."""


class ModelError(InputError):
    """A model folder is incomplete, corrupt, or does not fit the code that reads it."""


class OutputError(InputError):
    """The output cannot be written where the caller asked for it."""


@contextmanager
def at_fault(field: str) -> Iterator[None]:
    """What cannot be used while the block lasts is the argument ``field``, where the error names no other."""
    try:
        yield
    except InputError as error:
        error.field = error.field or field
        raise
