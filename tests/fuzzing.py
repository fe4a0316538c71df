"""Reads mutated files in a process of its own: python fuzzing.py FOLDER COUNT SEED; a line for each that misbehaves.

What is wrong is an error that is not an InputError, a reading that takes longer than ``SLOW_S``, and memory beyond
``MOST_BYTES``. The name of the file at work stands in ``FOLDER/at``, for those that kill the process.
"""

import logging
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np

from atldiff.data.tracking import Footage
from atldiff.errors import InputError
from atldiff.face.portrait import load_portrait
from atldiff.speech.waveform import Speech

SLOW_S = 20.0
MOST_BYTES = 3 << 30
SOUNDS = (".wav", ".mp3", ".ogg", ".flac", ".m4a", ".aiff")
FILMS = (".mp4", ".mkv", ".webm", ".avi", ".mov")


class Blind:
    """A detector that sees no face."""

    def detect(self, image: np.ndarray) -> list[np.ndarray]:
        return []


def mutated(content: bytes, dice: random.Random) -> bytes:
    """The same bytes with a few changed, most often near the beginning, some left out, doubled or cut off."""
    changed = bytearray(content)
    reach = dice.choice([64, 512, len(changed), len(changed)])
    for _ in range(dice.choice([1, 2, 5, 20, 100])):
        changed[dice.randrange(min(reach, len(changed)))] = dice.choice([0, 255, 127, 128, dice.randrange(256)])
    kind = dice.randrange(6)
    first, second = sorted(dice.randrange(len(changed)) for _ in range(2))
    if kind == 0:
        del changed[first:]
    elif kind == 1:
        del changed[first:second]
    elif kind == 2:
        changed[first:first] = changed[first:second]
    elif kind == 3:
        changed[first:second] = bytes(second - first)
    return bytes(changed)


def read(path: Path) -> None:
    """As a portrait, as speech and as a clip, as far as its kind allows."""
    if path.suffix in SOUNDS + FILMS:
        for _ in Speech.open(path).blocks():
            pass
    else:
        load_portrait(path, Blind())


def read_film(path: Path) -> None:
    load_portrait(path, Blind())


def read_clip(path: Path) -> None:
    for _ in Footage.open(path):
        pass


def main(folder: Path, count: int, seed: int) -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    for source in sorted(folder.glob("seed.*")):
        content = source.read_bytes()
        for number in range(count):
            dice = random.Random(f"{seed} {source.suffix} {number}")
            path = folder / f"mutant{source.suffix}"
            path.write_bytes(mutated(content, dice))
            (folder / "at").write_text(f"{source.suffix} {number}")
            readers = [read, *([read_film, read_clip] if source.suffix in FILMS else [])]
            for reader in readers:
                began = time.process_time()
                try:
                    reader(path)
                except InputError:
                    pass
                except BaseException as error:
                    print(f"{source.suffix} {number} {reader.__name__}: {type(error).__name__}: {error}", flush=True)
                if time.process_time() - began > SLOW_S:
                    print(
                        f"{source.suffix} {number} {reader.__name__}: {time.process_time() - began:.1f} s", flush=True
                    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
