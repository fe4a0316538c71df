"""Measure a face that talks: ``python benchmarks/assistant.py [--seconds 60] [--height 512] [--look-ahead 0.12]``.

A face in a process of its own, as the integrations and the service use it. Measured, in this order: how long a
prepared portrait takes to open, and a session to be made of it; from a text to the first moment with a picture in
which it is said, for the first text and for the next ones; the bundled speech in pieces of 20 ms at its own pace,
from the end of each piece to the moment that it is heard in leaving; how many frames pictures are late; processor
time; after an interruption how far the mouth is open. Prints JSON, with the machine's load, and a table.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import common
from atldiff.face.detection import FaceDetector
from atldiff.face.portrait import prepare_portrait
from atldiff.face.prepared import PreparedPortrait
from atldiff.face.topology import mouth_opening
from atldiff.integrations.faces import start_face
from atldiff.live.moment import Moment
from atldiff.pipeline import ATLDiffPipeline
from atldiff.serve.live.talking import RemoteFace
from atldiff.speech import SAMPLE_RATE

PIECE_S = 0.02
SETTLING_S = 12.0
MOUTH_TIMES_MS = (0, 100, 200, 400)


class Watch:
    """Takes the moments of a face as they come, with the times at which they came."""

    def __init__(self, face: RemoteFace) -> None:
        self.moments: list[tuple[float, Moment]] = []
        self.marks: dict[int, float] = {}
        self.changed = asyncio.Event()
        self.task = asyncio.create_task(self._take(face))

    async def _take(self, face: RemoteFace) -> None:
        async for moment in face:
            now = time.monotonic()
            self.moments.append((now, moment))
            self.marks |= dict.fromkeys(moment.marks, now)
            self.changed.set()

    async def until_mark(self, number: int) -> None:
        while number not in self.marks:
            self.changed.clear()
            await self.changed.wait()


async def main() -> None:
    arguments = parse_arguments()
    with FaceDetector() as detector:
        portrait = prepare_portrait(common.portrait(arguments.height), lambda: detector)
        about = common.machine(torch.device("cpu"))
        opening = opened_ms(portrait)
        options = {"threads": arguments.threads, "look_ahead_s": arguments.look_ahead, "reads": True}
        face = await start_face(portrait, SAMPLE_RATE, **options)
        watch = Watch(face)
        await asyncio.sleep(SETTLING_S)
        text_s = [await from_text(face, watch, number) for number in range(-4, 0)]
        before, began, first = cpu_s(face), time.monotonic(), len(watch.moments)
        delays = await spoken(face, watch, arguments.seconds)
        used = (cpu_s(face) - before) / (time.monotonic() - began)
        moments = [moment for _, moment in watch.moments[first:]]
        opened = await interrupted(face, watch, detector)
        await face.close()
    late = np.array([moment.late for moment in moments if moment.picture is not None])
    figures = [
        *opening.items(),
        ("first text to first moment, ms", 1000 * text_s[0]),
        ("text to first moment, ms", 1000 * float(np.median(text_s[1:]))),
        ("delay, median, ms", 1000 * float(np.median(delays))),
        ("delay, 95 %, ms", 1000 * float(np.percentile(delays, 95))),
        ("pictures more than a frame late, %", 100 * float((np.abs(late) > 1).mean())),
        ("moments without a picture of their own, %", 100 * (1 - len(late) / len(moments))),
        ("processors in use", used),
        *((f"mouth {time_ms} ms after an interruption", value) for time_ms, value in opened.items()),
    ]
    common.show(
        about
        | {"seconds": arguments.seconds, "height": arguments.height, "look_ahead_s": arguments.look_ahead}
        | {name: round(value, 4) for name, value in figures}
        | face.stats,
        ("figure", "value"),
        figures,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a face that talks.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--look-ahead", type=float, default=0.12)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def opened_ms(portrait: PreparedPortrait) -> dict[str, float]:
    """Milliseconds to open the file of a prepared portrait, and to make a session of it; medians of five."""
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(ATLDiffPipeline.from_pretrained()) as pipeline:
        path = portrait.save(Path(folder) / "face.atl")
        times = []
        for _ in range(6):
            began = time.perf_counter()
            opened = PreparedPortrait.open(path)
            read, began_cpu = time.perf_counter(), time.process_time()
            session = pipeline.live(opened)
            times.append((read - began, time.perf_counter() - read, time.process_time() - began_cpu))
            session.close()
    names = ("prepared portrait opened, ms", "session made of it, ms", "the same, processor time, ms")
    return dict(zip(names, 1000 * np.median(times[1:], axis=0), strict=True))


async def from_text(face: RemoteFace, watch: Watch, number: int) -> float:
    """Seconds from a text to the first moment in which it is said, with a picture."""
    began, seen = time.monotonic(), len(watch.moments)
    face.speak("Good morning. How are you today?")
    face.mark(number)
    await watch.until_mark(number)
    await asyncio.sleep(0.5)
    return next(when for when, moment in watch.moments[seen:] if moment.speaks and moment.picture is not None) - began


async def spoken(face: RemoteFace, watch: Watch, seconds: float) -> np.ndarray:
    """Say the bundled speech as it is spoken; seconds from the end of each piece to its moment."""
    sound = (common.speech(seconds) * 32767).astype(np.int16)
    size = round(PIECE_S * SAMPLE_RATE)
    began, sent = time.monotonic(), []
    for number, begin in enumerate(range(0, len(sound), size)):
        piece = sound[begin : begin + size]
        await asyncio.sleep(max(0.0, began + (begin + len(piece)) / SAMPLE_RATE - time.monotonic()))
        face.follow(piece)
        face.mark(number)
        sent.append(time.monotonic())
    await watch.until_mark(len(sent) - 1)
    return np.array([watch.marks[number] - when for number, when in enumerate(sent)])


async def interrupted(face: RemoteFace, watch: Watch, detector: FaceDetector) -> dict[int, float]:
    """How far the mouth is open at times after an interruption in ms, in distances of the eyes."""
    face.say((common.speech(10.0) * 32767).astype(np.int16))
    await asyncio.sleep(3.0)
    face.interrupt()
    when = time.monotonic()
    await asyncio.sleep(0.6)
    opened = {}
    for time_ms in MOUTH_TIMES_MS:
        shown = [moment.picture for at, moment in watch.moments if at <= when + time_ms / 1000]
        picture = next(picture for picture in reversed(shown) if picture is not None)
        opened[time_ms] = float(mouth_opening(detector.detect(np.ascontiguousarray(picture))[0][None])[0])
    return opened


def cpu_s(face: RemoteFace) -> float:
    """Processor time of the face's process and of this one, in seconds."""
    fields = Path(f"/proc/{face._worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + time.process_time()


if __name__ == "__main__":
    asyncio.run(main())
