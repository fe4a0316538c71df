"""Frames of a video side by side: ``contact_sheet.py VIDEO SHEET.png [COLUMNS ROWS EVERY FIRST]``."""

import sys
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

video, sheet = Path(sys.argv[1]), Path(sys.argv[2])
columns, rows, every, first = map(int, sys.argv[3:7] or (8, 3, 6, 0))

with av.open(str(video)) as container:
    chosen = islice(container.decode(video=0), first, None, every)
    frames = [frame.to_ndarray(format="rgb24") for frame in islice(chosen, columns * rows)]
if len(frames) < columns * rows:
    sys.exit(f"{video} has too few frames for {columns} x {rows}, every {every} from {first}")
lines = [np.concatenate(frames[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
Image.fromarray(np.concatenate(lines)).save(sheet)
