"""A worker that shows a test picture in the place of a face: once a second it turns white for 120 ms, with a tone."""

import time
from multiprocessing.connection import Connection

import numpy as np

from atldiff.serve.live.talking_work import MOMENT, STARTED, STOP
from atldiff.serve.live.work import END
from atldiff.serve.work.processes import READY, WorkerSetup

FPS = 25
SIZE = 64
FLASH_FRAMES = 3


def serve_flashes(pipe: Connection, setup: WorkerSetup) -> None:
    """As :func:`atldiff.serve.live.work.serve_live`, for one session of 48 kHz after another."""
    pipe.send((READY, None))
    while True:
        _, (_, options) = pipe.recv()
        rate = options["sample_rate"]
        pipe.send((STARTED, {"width": SIZE, "height": SIZE, "fps": float(FPS), "sample_rate": rate}))
        tone = np.sin(2 * np.pi * 1000 * np.arange(rate // FPS) / rate)
        began, number = time.monotonic(), 0
        while not (pipe.poll(max(0.0, began + number / FPS - time.monotonic())) and pipe.recv()[0] == STOP):
            if time.monotonic() < began + number / FPS:
                continue
            is_white = number % FPS < FLASH_FRAMES
            picture = np.full((SIZE, SIZE, 3), 235 if is_white else 20, np.uint8)
            sound = (12_000 * is_white * tone).astype("<i2")
            pipe.send((MOMENT, (number, picture.tobytes(), sound.tobytes(), is_white, (), 0)))
            number += 1
        pipe.send((END, {"moments": number}))
