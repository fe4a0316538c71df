"""A face in real time: what it is given to say, whenever it comes, is shown at the frame rate with its sound."""

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from atldiff.errors import InputError
from atldiff.live.lateness import LEAST_FRAMES_PER_S
from atldiff.live.moment import Moment
from atldiff.live.session import LiveSession
from atldiff.media.files import frame_rate
from atldiff.speech.waveform import as_float

LONGEST_DELAY_S = 0.6
"""From the moment at which sound is heard to that at which it is shown, on a machine that is too busy for less."""

_WORK_S, _LEAST_WORK_S = 0.08, 0.02
"""Seconds that the delay begins with on top of the look-ahead, for the work on a picture, and least ones."""

_LATE_FRAMES = 1
"""Frames by which a picture may be late and is still shown."""

_LATE_SHARE = 0.1
"""Share of the pictures that may be finished late; the delay grows where more are."""

_STALL_S = 1.0
"""Whoever is behind by more seconds, as after the machine slept, does not catch up but goes on from now."""

_GATHERED_S = 0.04
"""Seconds of sound that are gathered, or waited for, before something new is begun to be said."""

_WATCHED_S, _CALM_S = 2.0, 5.0
"""Seconds of pictures that are looked at before the delay grows, and before it shrinks."""

_WARM_UP_S, _LEAST_WATCHED = 1.0, 3
"""Seconds from the start whose pictures do not count, and the fewest pictures that are judged by."""

_TIGHT_S = 0.01
"""Seconds that must be left over after the delay has shrunk."""

_FADE_S = 0.005
"""Seconds in which sound that is cut short dies away, so that it does not click."""

_PCM_SCALE = 32768
_STEPS_PER_FRAME = 4
"""Times that sound is taken in during a frame."""

_DELAY_STEP_FRAMES = 0.5
"""By how many frames the delay changes at a time."""

_MOST_FOLLOWED_S = 0.3
"""Seconds of followed sound that wait at most; the oldest of more are dropped."""

_QUIET = 0.01
"""Sound whose largest sample, of 1, is less is a pause: it may be dropped, and the delay changed in it."""


class TalkingFace:
    """Gives a moment at every 1 / fps for as long as it lives, whether something is said or not.

    It keeps its own time. What is said waits for its turn, however fast it comes; in between the face rests and lives
    on. A moment comes a constant delay after its sound was heard; the delay is changed where nobody speaks, by half
    a frame, to the least in which nine of ten pictures are finished in time. A picture that is not is shown a frame
    late, or else dropped, but two a second are shown however late they are: the sound never waits.

    Args:
        session: that nobody else feeds or takes from; with ``idle_s`` None. It is closed with the face.
        give: called with each moment, from a thread of the face's own; may not block for long.
        look_ahead_s: that the session was made with.

    Attributes:
        delay_s: the constant delay, now.
        dropped: pictures that were not shown, so far.
        given: moments, so far.
    """

    def __init__(self, session: LiveSession, give: Callable[[Moment], object], look_ahead_s: float) -> None:
        self.dropped = self.given = 0
        self.delay_s, self._least_delay_s = look_ahead_s + _WORK_S, look_ahead_s + _LEAST_WORK_S
        self._session, self._give = session, give
        self._rate, self._fps = session.sample_rate, frame_rate(session.fps)
        self._script = _Script(session.sample_rate)
        self._turn = threading.RLock()
        self._sounds: deque[_Sound] = deque()
        self._unheard: deque[np.ndarray] = deque()
        self._pictures: dict[int, np.ndarray] = {}
        self._slack: deque[float] = deque(maxlen=round(_CALM_S * session.fps))
        self._heard_steps = 0
        self._shown_at, self._hushed_from = -1, 0
        self._ended = threading.Event()
        self._fault: BaseException | None = None
        self._began = time.monotonic()
        self._let_drop()
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name="atldiff-talking", daemon=True)
            for work in (self._keep_time, self._collect)
        ]
        for thread in self._threads:
            thread.start()

    def say(self, samples: np.ndarray) -> None:
        """Say (n,) int16 or floats in [-1, 1] at the session's rate, after what it has been given before."""
        self._script.add(as_float(np.asarray(samples)))

    def follow(self, samples: np.ndarray) -> None:
        """Say what is being spoken this moment; no more than 0.3 s of it wait, and none while something else is to
        be said."""
        self._script.add(as_float(np.asarray(samples)), follows=True)

    def mark(self, number: int) -> None:
        """Set a mark after all that was given to be said; the moment in which it is reached tells of it."""
        self._script.mark(number)

    def interrupt(self) -> None:
        """Be silent at once: what was to be said is forgotten with its marks, and the mouth rests."""
        with self._turn:
            self._script.clear()
            if any(sound.speaks for sound in self._sounds):
                for place, sound in enumerate(self._sounds):
                    sound.silence(fade=round(_FADE_S * self._rate) if place == 0 else 0)
                self._hush()
            for sound in self._sounds:
                sound.marks.clear()

    def _hush(self) -> None:
        """From now on show what is made for silence, as soon as it is made."""
        self._hushed_from = self._session.hush()
        for number in [number for number in self._pictures if number < self._hushed_from]:
            del self._pictures[number]
            self.dropped += 1

    def close(self) -> None:
        """End at once. Raises whatever went wrong in the meantime."""
        self._ended.set()
        self._session.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        if self._fault is not None:
            raise self._fault

    @property
    def has_ended(self) -> bool:
        """Whether there will be no more moments; :meth:`close` says why."""
        return self._ended.is_set()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            if not self._ended.is_set():
                self._fault = self._fault or error
        finally:
            self._ended.set()

    def _collect(self) -> None:
        """Take the pictures from the session as they are finished."""
        for frame in self._session:
            with self._turn:
                if time.monotonic() - self._began > _WARM_UP_S:
                    self._slack.append(self._due(frame.number) - time.monotonic())
                if frame.number < self._hushed_from:
                    self.dropped += 1
                else:
                    self._pictures[frame.number] = frame.picture

    def _keep_time(self) -> None:
        while not self._ended.is_set():
            hear, show = self._hearing_time(self._heard_steps), self._due(self.given)
            now = time.monotonic()
            if now < min(hear, show):
                self._ended.wait(min(hear, show) - now)
                continue
            if now - min(hear, show) > _STALL_S:
                self._began += now - min(hear, show)
            elif hear <= show:
                self._hear()
            else:
                self._show()

    def _hearing_time(self, step: int) -> float:
        return self._began + float(step / self._fps) / _STEPS_PER_FRAME

    def _due(self, number: int) -> float:
        return self._began + float(number / self._fps) + self.delay_s

    def _hear(self) -> None:
        """Let the session hear the next part of a frame's time."""
        per_step = self._rate / self._fps / _STEPS_PER_FRAME
        count = round((self._heard_steps + 1) * per_step) - round(self._heard_steps * per_step)
        with self._turn:
            samples, speaks, marks = self._script.take(count)
            if self._heard_steps % _STEPS_PER_FRAME == 0:
                self._sounds.append(_Sound())
            self._sounds[-1].add(samples, speaks, marks)
            self._heard_steps += 1
        self._unheard.append(samples)
        try:
            while self._unheard:
                self._session.feed(self._unheard[0], timeout_s=0)
                self._unheard.popleft()
        except TimeoutError:
            return  # the session is behind; it hears the rest later
        except InputError:
            return  # it has ended; whoever takes its pictures is told why

    def _show(self) -> None:
        with self._turn:
            if self._adapt():
                return
            sound, (picture, late) = self._sounds.popleft(), self._newest_picture()
            moment = Moment(self.given, picture, sound.pcm(), sound.speaks, tuple(sound.marks), late)
            self.given += 1
        self._give(moment)

    def _newest_picture(self) -> tuple[np.ndarray | None, int]:
        """The picture for the next moment, the newest that is finished if it is not too late, and how late it is."""
        now = self.given
        is_hushed = now < self._hushed_from
        usable = [number for number in self._pictures if number <= now or is_hushed]
        if not usable:
            return None, 0
        number = max(usable)
        late = now - number
        picture = self._pictures.pop(number)
        for older in [older for older in self._pictures if older < number]:
            del self._pictures[older]
            self.dropped += 1
        if late > _LATE_FRAMES and now - self._shown_at < self._fps / LEAST_FRAMES_PER_S:
            self.dropped += 1
            return None, 0
        self._shown_at = now
        return picture, late

    def _adapt(self) -> bool:
        """Change the delay where that is needed and nobody speaks; whether the next moment has to wait."""
        if len(self._slack) < _LEAST_WATCHED or not all(sound.is_quiet for sound in self._sounds):
            return False
        step = _DELAY_STEP_FRAMES * float(1 / self._fps)
        recent = list(self._slack)[-round(_WATCHED_S * self._fps) :]
        if np.quantile(recent, _LATE_SHARE) < 0 and self.delay_s + step <= LONGEST_DELAY_S:
            self._change_delay(step)
            return True
        is_full = len(self._slack) == self._slack.maxlen
        is_calm = is_full and np.quantile(self._slack, _LATE_SHARE) > step + _TIGHT_S
        if is_calm and self.delay_s - step >= self._least_delay_s - 1e-6:
            self._change_delay(-step)
        return False

    def _let_drop(self) -> None:
        """Pictures that would come too late to be shown need not be made."""
        self._session.drop_after(self.delay_s + _LATE_FRAMES * float(1 / self._fps))

    def _change_delay(self, step: float) -> None:
        self.delay_s += step
        self._let_drop()
        self._slack = deque((slack + step for slack in self._slack), maxlen=self._slack.maxlen)


class _Sound:
    """What is heard in the time of one frame."""

    def __init__(self) -> None:
        self.marks: list[int] = []
        self.speaks = False
        self._parts: list[np.ndarray] = []

    def add(self, samples: np.ndarray, speaks: bool, marks: list[int]) -> None:
        self._parts.append(samples)
        self.speaks |= speaks
        self.marks += marks

    @property
    def is_quiet(self) -> bool:
        return not self.speaks or max(np.abs(part).max(initial=0.0) for part in self._parts) < _QUIET

    def silence(self, fade: int) -> None:
        """Be silent after ``fade`` samples, in which the sound dies away."""
        whole = np.concatenate(self._parts)
        fade = min(fade, len(whole))
        whole[:fade] *= np.linspace(1, 0, fade, dtype=np.float32)
        whole[fade:] = 0
        self._parts, self.speaks = [whole], False

    def pcm(self) -> np.ndarray:
        whole = np.round(np.concatenate(self._parts) * _PCM_SCALE)
        return np.clip(whole, -_PCM_SCALE, _PCM_SCALE - 1).astype(np.int16)


class _Script:
    """What is to be said, with marks in it.

    What begins after a pause waits until 40 ms of it are there, or have had the time to come: sound that comes just
    as fast as it is said would otherwise be torn.
    """

    def __init__(self, sample_rate: int) -> None:
        self._turn = threading.Lock()
        self._gathered = round(_GATHERED_S * sample_rate)
        self._most_followed = round(_MOST_FOLLOWED_S * sample_rate)
        self.clear()

    def clear(self) -> None:
        with self._turn:
            self._parts: deque[np.ndarray | int] = deque()
            self._waiting = self._said_waiting = 0
            self._since: float | None = None
            self._flows = False

    def add(self, samples: np.ndarray, follows: bool = False) -> None:
        with self._turn:
            if not len(samples) or (follows and self._said_waiting > 0):
                return
            if follows and self._waiting > 2 * self._gathered and np.abs(samples).max() < _QUIET:
                return  # in a pause of the speaker what is waiting is caught up with
            self._parts.append(samples)
            self._waiting += len(samples)
            self._since = self._since or time.monotonic()
            if not follows:
                self._said_waiting = self._waiting
            elif self._waiting > self._most_followed:
                self._drop(self._waiting - self._gathered)

    def mark(self, number: int) -> None:
        with self._turn:
            self._parts.append(number)

    def take(self, count: int) -> tuple[np.ndarray, bool, list[int]]:
        """The next ``count`` samples, whether any of them is said, and the marks that are reached."""
        samples, marks = np.zeros(count, dtype=np.float32), []
        with self._turn:
            if not self._is_ready():
                return samples, False, self._marks_ahead()
            filled = 0
            while self._parts and filled < count:
                part = self._parts.popleft()
                if isinstance(part, int):
                    marks.append(part)
                    continue
                used = part[: count - filled]
                samples[filled : filled + len(used)] = used
                filled += len(used)
                if len(used) < len(part):
                    self._parts.appendleft(part[len(used) :])
            self._waiting -= filled
            self._said_waiting -= filled
            marks += self._marks_ahead()
            self._flows = filled == count
            if not self._waiting:
                self._since = None
            return samples, filled > 0, marks

    def _is_ready(self) -> bool:
        if not self._waiting or self._since is None:
            self._flows = False
            return False
        return self._flows or self._waiting >= self._gathered or time.monotonic() - self._since >= _GATHERED_S

    def _marks_ahead(self) -> list[int]:
        marks = []
        while self._parts and isinstance(self._parts[0], int):
            marks.append(self._parts.popleft())
        return marks

    def _drop(self, count: int) -> None:
        """Forget the oldest samples; marks among them stay, before what is left."""
        marks: list[int] = []
        while count > 0:
            part = self._parts.popleft()
            if isinstance(part, int):
                marks.append(part)
                continue
            if len(part) > count:
                self._parts.appendleft(part[count:])
            self._waiting -= min(count, len(part))
            count -= len(part)
        self._parts.extendleft(reversed(marks))
