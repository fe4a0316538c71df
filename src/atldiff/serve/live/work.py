"""What a worker process for live sessions does: one session after another."""

import contextlib
import dataclasses
import math
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from atldiff.errors import InputError
from atldiff.media.jpeg import encode_jpeg
from atldiff.options import SAMPLE_FORMATS
from atldiff.processes.threads import use_threads
from atldiff.serve.live.talking_work import TALK, hold_talk
from atldiff.serve.problems import problem_of
from atldiff.serve.work.processes import READY, WorkerSetup

if TYPE_CHECKING:
    from atldiff.live.session import LiveSession

START, SOUND, FINISH, STOP = "start", "sound", "finish", "stop"
"""Messages to the worker: (portrait, options), bytes of PCM, no more sound, no more at all."""

STARTED, FRAME, END, FAULT = "started", "frame", "end", "fault"
"""Messages from it: what the session is like, (number, time in s, JPEG), its statistics, a Problem.

The last two end a session; the worker then takes the next.
"""

_LOOK_S = 0.2


def serve_live(pipe: Connection, setup: WorkerSetup) -> None:
    """Load the model, then hold live sessions."""
    use_threads(setup.threads)
    from atldiff.pipeline import ATLDiffPipeline

    with contextlib.closing(ATLDiffPipeline.from_pretrained(setup.model, setup.device)) as pipeline:
        pipe.send((READY, None))
        while True:
            name, content = pipe.recv()
            if name not in _SESSIONS:  # left over from a session that failed
                continue
            try:
                pipe.send((END, _SESSIONS[name](pipeline, pipe, *content)))
            except Exception as error:
                field = error.field if isinstance(error, InputError) else None
                pipe.send((FAULT, problem_of(error, field, names={content[0]: "the portrait"})))


def _hold(pipeline: Any, pipe: Connection, portrait: Any, sample_format: str, options: dict[str, Any]) -> Any:
    """Hold one session, from its start to its end."""
    with pipeline.live(portrait, **options) as session:
        about = {name: getattr(session, name) for name in ("width", "height", "fps", "sample_rate")}
        pipe.send((STARTED, about))
        faults: list[BaseException] = []
        sender = threading.Thread(target=_send_frames, args=(session, pipe, faults), daemon=True)
        sender.start()
        try:
            _feed(session, pipe, SAMPLE_FORMATS[sample_format], faults)
            session.finish()
        except BaseException:
            session.close()
            raise
        finally:
            sender.join()
            if faults:
                raise faults[0]
        stats = dataclasses.asdict(session.stats)
    return {name: value if math.isfinite(value) else None for name, value in stats.items()}


def _feed(session: "LiveSession", pipe: Connection, sample_type: str, faults: list[BaseException]) -> None:
    """Feed what comes until the end of the sound, or a fault in the making of frames."""
    while not faults:
        if not pipe.poll(_LOOK_S):
            continue
        name, content = pipe.recv()
        if name == STOP:
            session.close()
        if name != SOUND:
            return
        session.feed(np.frombuffer(content, sample_type))


def _send_frames(session: "LiveSession", pipe: Connection, faults: list[BaseException]) -> None:
    try:
        for frame in session:
            pipe.send((FRAME, (frame.number, frame.time_s, encode_jpeg(frame.picture))))
    except BaseException as error:
        faults.append(error)
        session.close()


_SESSIONS = {START: _hold, TALK: hold_talk}
"""What holds a session of each kind."""
