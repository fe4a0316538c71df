"""Small pictures of the worst clips, kept while an evaluation runs."""

from io import BytesIO

import numpy as np
from PIL import Image

from atldiff.evaluation.scores import ContactSheet

THUMBNAIL_SIZE = 80
"""Side of a frame in a strip, in pixels."""

MOST_SHEETS = 40
"""So many clips are kept with pictures: the worst."""

_COLUMNS = 8
_QUALITY = 85


def shown_frames(true_openings: np.ndarray) -> list[int]:
    """The frames of a clip to look at: the first one, others evenly spaced, and the one with the widest open mouth.

    Args:
        true_openings: (F - 1,) mouth openings of frame 1 and those after it.
    """
    evenly = np.linspace(0, len(true_openings), _COLUMNS - 1).round().astype(int)
    return sorted({*evenly.tolist(), int(np.argmax(true_openings)) + 1})


def strip(frames: np.ndarray, shown: list[int]) -> bytes:
    """Some of (F, H, W, 3) uint8 frames side by side as a JPEG file; a frame beyond the end is the last one."""
    sheet = Image.new("RGB", (len(shown) * THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    for column, index in enumerate(shown):
        picture = Image.fromarray(frames[min(index, len(frames) - 1)])
        small = picture.resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
        sheet.paste(small, (column * THUMBNAIL_SIZE, 0))
    stream = BytesIO()
    sheet.save(stream, "JPEG", quality=_QUALITY)
    return stream.getvalue()


def keep_worst(sheets: list[ContactSheet], sheet: ContactSheet) -> None:
    """Put ``sheet`` in its place among ``sheets``, the least correlation first, and drop what is too many."""
    sheets.append(sheet)
    sheets.sort(key=lambda sheet: (sheet.r_at_zero, sheet.key))
    del sheets[MOST_SHEETS:]
