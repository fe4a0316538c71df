"""What a run tells while it goes on: a progress bar or lines, ``log.csv``, sample pictures, TensorBoard."""

import contextlib
import csv
import io
import struct
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atldiff.storage.files import write_atomically
from atldiff.training.engine.settings import format_duration

LOG_NAME = "log.csv"
SAMPLES_NAME = "samples"
TENSORBOARD_NAME = "tensorboard"


@dataclass(frozen=True)
class Validation:
    """How good the weights are.

    Attributes:
        score: the higher the better; decides which weights are the best.
        figures: what is logged, by name.
        pictures: (H, W, 3) uint8 to look at, or None.
    """

    score: float
    figures: dict[str, float]
    pictures: np.ndarray | None = field(default=None, repr=False)


class StepTimes:
    """Mean time of a step, and how much of it went by waiting for data."""

    def __init__(self) -> None:
        self.clear()

    def add(self, step_s: float, wait_s: float) -> None:
        """Count a step: its seconds, and those of them that it waited for data."""
        self._steps += 1
        self._seconds += step_s
        self._waited += wait_s

    def clear(self) -> None:
        """Begin anew."""
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    @property
    def step_s(self) -> float:
        """Seconds a step, the waiting included."""
        return self._seconds / max(1, self._steps)

    @property
    def wait_s(self) -> float:
        """Mean seconds that a step waited for data."""
        return self._waited / max(1, self._steps)

    def __str__(self) -> str:
        return f"{self.step_s:.3f} s a step, {self.wait_s:.3f} s of it waiting for data"


class RunLog:
    """The reports of a run. Rows of ``log.csv`` after step ``begin``, which a killed run left, are taken out.

    Args:
        run: folder of the run.
        begin, steps: steps done before, and of the whole run.
        quiet: show nothing.
    """

    def __init__(self, run: Path, begin: int, steps: int, quiet: bool) -> None:
        self._run, self._steps, self._quiet = run, steps, quiet
        self._bar: Any = None
        self._rows = [row for row in read_log(run) if int(row["step"]) <= begin]
        self._write_rows()
        self._writer = self._open_tensorboard(begin)
        if not quiet and sys.stderr.isatty():
            self._bar = _progress_bar(begin, steps)

    def advance(self) -> None:
        """One step more."""
        if self._bar is not None:
            self._bar.update()

    def report(self, step: int, figures: dict[str, float], times: StepTimes, validation: Validation) -> None:
        """Log ``figures`` (the loss and its like) and what the validation found after ``step`` steps.

        Raises:
            OSError: the run's folder cannot be written.
        """
        seconds = {"step_seconds": times.step_s, "wait_seconds": times.wait_s}
        values = {"step": step} | figures | validation.figures | seconds
        self._rows.append({name: str(value) for name, value in values.items()})
        self._write_rows()
        if validation.pictures is not None:
            write_atomically(self._run / SAMPLES_NAME / f"{step:06d}.png", encode_png(validation.pictures))
        if self._writer is not None:
            for name, value in (figures | validation.figures | seconds).items():
                self._writer.add_scalar(name.replace(" ", "/"), value, step)
            if validation.pictures is not None:
                self._writer.add_image("samples", validation.pictures, step, dataformats="HWC")
            self._writer.flush()
        shown = {"loss": figures["loss"]} | validation.figures
        words = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
        left = f"{format_duration((self._steps - step) * times.step_s)} left"
        self.say(f"step {step}/{self._steps}  {words}  {times}, {left}")

    def say(self, text: str) -> None:
        """Show a line on standard output."""
        if self._bar is not None:
            self._bar.clear()
        if not self._quiet:
            print(text, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Close the log and the progress bar."""
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def _write_rows(self) -> None:
        if not self._rows:
            (self._run / LOG_NAME).unlink(missing_ok=True)
            return
        stream = io.StringIO()
        columns = dict.fromkeys(name for row in self._rows for name in row)
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._run / LOG_NAME, stream.getvalue().encode())

    def _open_tensorboard(self, begin: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say(f"tensorboard is not installed; {LOG_NAME} and {SAMPLES_NAME}/ have the figures and pictures")
            return None
        return SummaryWriter(str(self._run / TENSORBOARD_NAME), purge_step=begin + 1)


def read_log(run: Path) -> list[dict[str, str]]:
    """The whole rows of a run's ``log.csv``, values by column; none where there is no such file.

    Raises:
        OSError: it cannot be read.
    """
    path = run / LOG_NAME
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as stream:
        rows = list(csv.DictReader(stream))
    return [row for row in rows if None not in row and None not in row.values() and row.get("step", "").isdecimal()]


def _progress_bar(begin: int, steps: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=steps, initial=begin, unit="step", leave=False, dynamic_ncols=True)


def encode_png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 → a PNG file, by the standard library alone."""
    height, width, _ = pixels.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows.tobytes()))
        + chunk(b"IEND", b"")
    )
