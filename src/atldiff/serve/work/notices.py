"""What the library says of inputs that can be used, but not well: for the one who sent them."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

_OPTION = {"--face N": "the option face"}
_STAGES = ("loading the model", "finding the face")


@contextlib.contextmanager
def collected(names: Mapping[Path, str]) -> Iterator[list[str]]:
    """The messages of the library while the block lasts, in its own words, each once.

    Args:
        names: what to call the service's own files.
    """
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            for path, name in names.items():
                text = text.replace(str(path), name)
            for option, name in _OPTION.items():
                text = text.replace(option, name)
            if text not in (*found, *_STAGES):
                found.append(text)

    logger, collector = logging.getLogger("atldiff"), Collector(logging.INFO)
    before = logger.level, logger.propagate, logging.root.manager.disable
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.disable(logging.NOTSET)
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        logging.disable(before[2])
