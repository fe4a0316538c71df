"""What a worker process does for a face that talks in real time.

See :class:`atldiff.serve.live.talking.RemoteFace`.
"""

import queue
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from atldiff.errors import InputError
from atldiff.live.moment import LOOK_AHEAD_S, Moment

TALK, SAY, FOLLOW, SPEAK = "talk", "say", "follow", "speak"
MARK, INTERRUPT, STOP = "mark", "interrupt", "stop"
"""Messages to the worker: (portrait, options), bytes of 16-bit PCM, the same of what is being spoken this moment,
(text, voice), the number of a mark, be silent at once, no more at all."""

STARTED, MOMENT, REFUSED = "started", "moment", "refused"
"""Messages from it: what the face is like, (number, bytes of RGB or None, bytes of PCM, speaks, marks, late), and
why a text cannot be said."""

_LOOK_S = 0.2
_WARM_UP = ("Hm.", "")


def hold_talk(pipeline: Any, pipe: Connection, portrait: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Let a face talk until it is stopped; gives its statistics."""
    from atldiff.live.talking import LONGEST_DELAY_S, TalkingFace

    look_ahead_s, reads = options.pop("look_ahead_s", LOOK_AHEAD_S), options.pop("reads", False)
    timing = {"look_ahead_s": look_ahead_s, "max_delay_s": LONGEST_DELAY_S, "idle_s": None}
    with pipeline.live(portrait, **timing, **options) as session:
        about = {name: getattr(session, name) for name in ("width", "height", "fps", "sample_rate")}
        pipe.send((STARTED, about))
        turn = threading.Lock()

        def send(name: str, content: Any) -> None:
            with turn:
                pipe.send((name, content))

        def give(moment: Moment) -> None:
            picture = None if moment.picture is None else moment.picture.tobytes()
            send(MOMENT, (moment.number, picture, moment.sound.tobytes(), moment.speaks, moment.marks, moment.late))

        face = TalkingFace(session, give, look_ahead_s)
        reader = _Reader(face, session.sample_rate, lambda words: send(REFUSED, words))
        if reads:
            reader.warm_up()
        try:
            _obey(face, reader, pipe)
        finally:
            reader.close()
            face.close()
        return {"moments": face.given, "dropped": face.dropped, "delay_s": face.delay_s}


def _obey(face: Any, reader: "_Reader", pipe: Connection) -> None:
    while not face.has_ended:
        if not pipe.poll(_LOOK_S):
            continue
        name, content = pipe.recv()
        if name == SAY:
            face.say(np.frombuffer(content, "<i2"))
        elif name == FOLLOW:
            face.follow(np.frombuffer(content, "<i2"))
        elif name == SPEAK:
            reader.read(*content)
        elif name == MARK:
            reader.mark(content)
        elif name == INTERRUPT:
            reader.interrupt()
            face.interrupt()
        else:
            return


class _Reader:
    """Reads texts to a face, sentence by sentence, in a thread of its own that is started for the first text."""

    def __init__(self, face: Any, sample_rate: int, refuse: Callable[[str], None]) -> None:
        self._face, self._sample_rate, self._refuse = face, sample_rate, refuse
        self._waiting: queue.Queue[tuple[str, str] | int | None] = queue.Queue()
        self._turn = threading.Lock()
        self._interruptions = 0
        self._thread: threading.Thread | None = None

    def warm_up(self) -> None:
        """Load the usual voice before there is a text, so that the first one is said as soon as those after it."""
        self._start()
        self._waiting.put(_WARM_UP)

    def read(self, text: str, voice: str) -> None:
        """Say a text after those before it."""
        self._start()
        self._waiting.put((text, voice))

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="atldiff-reader", daemon=True)
            self._thread.start()

    def mark(self, number: int) -> None:
        """Set a mark after all that was to be said so far."""
        if self._thread is None:
            self._face.mark(number)
        else:
            self._waiting.put(number)

    def interrupt(self) -> None:
        """Forget what is still to be read; nothing of it reaches the face after this."""
        with self._turn:
            self._interruptions += 1
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def close(self) -> None:
        self.interrupt()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (wanted := self._waiting.get()) is not None:
            if isinstance(wanted, int):
                self._face.mark(wanted)
                continue
            try:
                if wanted == _WARM_UP:
                    _speak_for_nobody()
                else:
                    self._read(*wanted)
            except InputError as error:
                if wanted != _WARM_UP:
                    self._refuse(str(error))

    def _read(self, text: str, voice: str) -> None:
        from atldiff.speech.text import speak
        from atldiff.speech.waveform import resampled

        before = self._interruptions
        for samples, rate in speak(text, voice):
            pieces = iter([samples[None]])
            if rate != self._sample_rate:
                pieces = resampled(pieces, rate, self._sample_rate)
            for piece in pieces:
                with self._turn:
                    if self._interruptions != before:
                        return
                    self._face.say(piece[0])


def _speak_for_nobody() -> None:
    from atldiff.speech.text import speak

    for _ in speak(_WARM_UP[0]):
        pass
