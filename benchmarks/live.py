"""Measure the delay of live frames: ``python benchmarks/live.py [--seconds 20] [--height 720] [--look-ahead 0.2]``.

The bundled speech is fed at its own pace. A frame's delay is the time from the end of its sound, as spoken, to the
frame in the caller's hands: look-ahead and a piece of sound's length are part of it. Prints JSON and a table.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import torch

import common
from atldiff.live.session import LiveSession
from atldiff.pipeline import ATLDiffPipeline
from atldiff.speech import SAMPLE_RATE


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    pipeline = ATLDiffPipeline.from_pretrained(device=arguments.device)
    about = common.machine(pipeline.device)
    sound = common.speech(arguments.seconds)

    def start() -> LiveSession:
        return pipeline.live(
            common.portrait(arguments.height),
            max_delay_s=arguments.max_delay,
            look_ahead_s=arguments.look_ahead,
            steps=arguments.steps,
            idle_s=None,
        )

    with start() as session:
        measure(session, sound[:SAMPLE_RATE], arguments.chunk_ms)
    with start() as session:
        delays = measure(session, sound, arguments.chunk_ms)
        stats = session.stats
    pipeline.close()
    figures = {
        "first": delays[0],
        "median": float(np.median(delays)),
        "95 %": float(np.percentile(delays, 95)),
        "longest": float(delays.max()),
    }
    result = about | {
        "seconds_of_speech": arguments.seconds,
        "height": arguments.height,
        "look_ahead_s": arguments.look_ahead,
        "chunk_ms": arguments.chunk_ms,
        "steps": arguments.steps or pipeline.config.steps,
        "frames": stats.frames,
        "dropped": stats.dropped,
        "delay_s": {name: round(float(value), 4) for name, value in figures.items()},
    }
    common.show(result, ("frame", "delay, ms"), [(name, 1000 * float(value)) for name, value in figures.items()])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the delay of live frames.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--look-ahead", type=float, default=0.2)
    parser.add_argument("--chunk-ms", type=float, default=20.0, help="length of the pieces that the sound comes in")
    parser.add_argument("--max-delay", type=float, default=1.0, help="seconds after which a frame is dropped")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def measure(session: LiveSession, sound: np.ndarray, chunk_ms: float) -> np.ndarray:
    """Delays in seconds of the frames that came."""
    began = time.monotonic()
    frames = session.animate(spoken(sound, round(chunk_ms / 1000 * SAMPLE_RATE), began))
    return np.array([time.monotonic() - began - frame.time_s for frame in frames])


def spoken(sound: np.ndarray, size: int, began: float) -> Iterator[np.ndarray]:
    """Pieces of the sound, each when it has been spoken to its end."""
    for begin in range(0, len(sound), size):
        piece = sound[begin : begin + size]
        time.sleep(max(0.0, began + (begin + len(piece)) / SAMPLE_RATE - time.monotonic()))
        yield piece


if __name__ == "__main__":
    main()
