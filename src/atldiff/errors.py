"""What went wrong, told so that the reader can mend it.

Everything that the caller did (a missing file, a picture without a face, a step count of zero) is an
:class:`InputError`, which is also a ``ValueError``; the command line turns it into one line and exit code 2.
"""


class ATLDiffError(Exception):
    """Base class of every error that this package raises on purpose."""


class InputError(ATLDiffError, ValueError):
    """An argument or a file from the caller cannot be used; the text names what came and what was expected."""


class FaceError(InputError):
    """The portrait has no usable face: none found, too small, or no face of the asked number."""


class ModelError(InputError):
    """A model folder is incomplete, corrupt, or does not fit the code that reads it."""


class OutputError(InputError):
    """The output cannot be written where the caller asked for it."""
