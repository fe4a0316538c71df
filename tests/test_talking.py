"""Faces that talk in real time: what they say and when, interruptions, marks, slow machines, processes that die."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from atldiff.live.face import LiveFace
from atldiff.live.moment import LOOK_AHEAD_S, Moment
from atldiff.live.session import LiveSession
from atldiff.live.talking import TalkingFace, _Script
from atldiff.motion.living import FaceMotion, Hush
from atldiff.options import GenerationOptions
from atldiff.pipeline import ATLDiffPipeline
from atldiff.serve.live.talking import WAITING_S, FaceLost, RemoteFace
from atldiff.serve.live.work import serve_live
from atldiff.serve.problems import Problem
from atldiff.serve.work.processes import Worker, WorkerSetup
from atldiff.speech import SAMPLE_RATE
from atldiff.speech.waveform import as_float, read_waveform
from face_shapes import open_face
from test_live import make_face

torch.set_num_threads(1)

FPS = 5.0
"""Few enough for any machine."""

PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def sound(speech: Path) -> np.ndarray:
    """2 s of a voice, int16, without a zero."""
    samples = (read_waveform(speech)[SAMPLE_RATE // 2 :][: 2 * SAMPLE_RATE] * 32767).astype(np.int16)
    return np.where(samples == 0, np.int16(1), samples)


class Talk:
    """A face, and the moments that it has given."""

    def __init__(self, living: LiveFace) -> None:
        self.moments: list[Moment] = []
        self.session = LiveSession(living, 128, 128, max_delay_s=5.0, idle_s=None)
        self.face = TalkingFace(self.session, self.moments.append, LOOK_AHEAD_S)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.face.close()

    def wait(self, is_true: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE_S
        while not is_true():
            assert time.monotonic() < until
            assert not self.face.has_ended
            time.sleep(0.01)

    def wait_for_mark(self, number: int) -> None:
        self.wait(lambda: any(number in moment.marks for moment in self.moments))


@pytest.fixture
def talk(tiny_pipeline: ATLDiffPipeline) -> Iterator[Talk]:
    with Talk(make_face(tiny_pipeline, fps=FPS)) as opened:
        yield opened


def heard(moments: list[Moment]) -> np.ndarray:
    return np.concatenate([moment.sound for moment in moments])


def speaking(moments: list[Moment]) -> np.ndarray:
    """What was said, without the silence around it and within moments."""
    whole = heard(moments)
    places = np.nonzero(whole)[0]
    return whole[places[0] : places[-1] + 1] if len(places) else whole[:0]


def test_all_that_is_said_comes_once_and_in_order(talk, sound) -> None:
    for begin in range(0, len(sound), 3000):
        talk.face.say(sound[begin : begin + 3000])
    talk.face.mark(1)
    talk.face.say(sound[:4000])
    talk.face.mark(2)
    talk.wait_for_mark(2)
    moments = list(talk.moments)
    assert [moment.number for moment in moments] == list(range(len(moments)))
    assert {len(moment.sound) for moment in moments} == {round(SAMPLE_RATE / FPS)}
    assert np.array_equal(speaking(moments), np.concatenate([sound, sound[:4000]]))
    marked = [moment.number for moment in moments if moment.marks]
    assert [mark for moment in moments for mark in moment.marks] == [1, 2]
    ends = np.flatnonzero(heard(moments))[0] + np.array([len(sound), len(sound) + 4000])
    assert marked == [(end - 1) * FPS // SAMPLE_RATE for end in ends]


def test_pictures_show_the_sound_that_comes_with_them(talk, tiny_pipeline, sound) -> None:
    talk.face.say(sound)
    talk.face.mark(1)
    talk.wait_for_mark(1)
    moments = list(talk.moments)
    whole = as_float(heard(moments))
    frames = list(make_face(tiny_pipeline, fps=FPS).frames([whole, np.zeros(SAMPLE_RATE, np.float32)]))
    numbers = {frame.picture.tobytes(): frame.number for frame in frames}
    shown = [moment for moment in moments if moment.picture is not None]
    made = [numbers[moment.picture.tobytes()] for moment in shown]
    assert shown
    assert made == [moment.number - moment.late for moment in shown] == sorted(set(made))


def test_who_is_interrupted_is_silent_at_once(talk, sound) -> None:
    talk.face.say(np.tile(sound, 5))
    talk.face.mark(1)
    talk.wait(lambda: any(moment.speaks for moment in talk.moments))
    talk.face.interrupt()
    given = len(talk.moments)
    talk.face.say(sound[:8000])
    talk.face.mark(2)
    talk.wait_for_mark(2)
    after = talk.moments[given + 1 :]
    assert len(speaking(after)) <= 8000
    assert [mark for moment in talk.moments for mark in moment.marks] == [2]


def test_the_mouth_of_who_is_interrupted_rests(tiny_pipeline, sound) -> None:
    identity = open_face().astype(np.float32)
    options = GenerationOptions(look_ahead_s=LOOK_AHEAD_S, head_motion=0, blink="off")
    encoder, generator = tiny_pipeline.speech_encoder, tiny_pipeline.landmark_generator

    def landmarks(hush: range) -> np.ndarray:
        motion = FaceMotion(encoder, generator, identity, None, options)
        blocks = []
        for block in motion.landmarks([as_float(sound)], 40):
            blocks.append(block)
            if len(blocks) == 5:
                assert motion.hush.begin(hush.stop) <= hush.start
        return np.concatenate(blocks)

    silent = FaceMotion(encoder, generator, identity, None, options).landmarks(
        [np.zeros(2 * SAMPLE_RATE, np.float32)], 40
    )
    resting = np.concatenate(list(silent))
    hushed, free = landmarks(range(10, 20)), landmarks(range(10, 10))
    assert np.abs(free[10:20] - resting[10:20]).max() > 0.1
    assert np.abs(hushed[10:20] - resting[10:20]).max() < 1e-4
    assert np.array_equal(hushed[:10], free[:10])
    assert np.array_equal(hushed[20:], free[20:])


def test_a_hush_holds_for_what_is_not_yet_asked_for() -> None:
    hush = Hush()
    assert hush.share(np.arange(3)).tolist() == [1, 1, 1]
    assert hush.begin(5) == 3
    assert hush.share(np.arange(3, 7)).tolist() == [0, 0, 1, 1]


def test_sound_goes_on_where_pictures_cannot_keep_up(tiny_pipeline, sound) -> None:
    with Talk(make_face(tiny_pipeline, fps=FPS, delay_s=1.0)) as talk:
        least = talk.face.delay_s
        talk.face.say(sound)
        talk.face.mark(1)
        talk.wait_for_mark(1)
        talk.wait(lambda: len(talk.moments) > 25)
        assert np.array_equal(speaking(talk.moments), sound)
        assert sum(moment.picture is None for moment in talk.moments) > 5
        assert talk.face.delay_s > least


def test_a_fault_ends_the_face_and_is_told(tiny_pipeline) -> None:
    living = make_face(tiny_pipeline, fps=FPS)

    def broken(parts):
        raise OSError("no room")

    living._pictures = broken
    talk = Talk(living)
    until = time.monotonic() + PATIENCE_S
    while not talk.face.has_ended and time.monotonic() < until:
        time.sleep(0.01)
    with pytest.raises(OSError, match="no room"):
        talk.face.close()


def test_sound_that_comes_as_it_is_spoken_is_not_torn() -> None:
    script = _Script(1000)
    script.add(np.ones(20, np.float32))
    assert script.take(20)[1] is False
    script.add(np.ones(20, np.float32))
    script.mark(5)
    samples, speaks, marks = script.take(30)
    assert (samples.sum(), speaks, marks) == (30, True, [])
    samples, speaks, marks = script.take(30)
    assert (samples.tolist(), speaks, marks) == ([1] * 10 + [0] * 20, True, [5])
    script.mark(6)
    assert script.take(30)[1:] == (False, [6])
    script.add(np.ones(5, np.float32))
    assert script.take(5)[1] is False
    time.sleep(0.05)
    assert script.take(5)[0].sum() == 5


def test_who_follows_a_speaker_does_not_fall_behind() -> None:
    script = _Script(1000)
    script.add(np.arange(290, dtype=np.float32), follows=True)
    script.add(np.arange(290, 310, dtype=np.float32), follows=True)
    assert script.take(40)[0].tolist() == list(range(270, 310))


def test_a_pause_of_the_speaker_brings_the_face_nearer_to_him() -> None:
    script = _Script(1000)
    script.add(np.ones(150, np.float32), follows=True)
    for _ in range(5):
        assert script.take(20)[1]
        script.add(np.zeros(20, np.float32), follows=True)
    assert script._waiting == 90  # twice what is gathered, and the piece with which it is reached


def test_nobody_is_followed_while_there_is_something_to_be_said() -> None:
    script = _Script(1000)
    script.add(np.ones(500, np.float32))
    script.add(np.full(50, 2, np.float32), follows=True)
    assert script.take(500)[0].tolist() == [1] * 500
    script.add(np.full(50, 2, np.float32), follows=True)
    assert script.take(50)[0].tolist() == [2] * 50


@pytest.fixture(scope="module")
def worker(tiny_model: Path) -> Iterator[Worker]:
    worker = make_worker(tiny_model)
    yield worker
    worker.close()


def make_worker(model: Path) -> Worker:
    worker = Worker(serve_live, WorkerSetup(str(model), "cpu", 1, 60.0, 40_000_000, None))
    worker.wait_until_ready(PATIENCE_S)
    return worker


async def start(worker: Worker, portrait: Path, **more) -> RemoteFace:
    options = {"sample_rate": SAMPLE_RATE, "fps": FPS, "crop_only": True}
    return await RemoteFace.start(worker, portrait, PATIENCE_S, **options | more)


async def until_mark(face: RemoteFace, number: int) -> list[Moment]:
    moments = []
    async with asyncio.timeout(PATIENCE_S):
        async for moment in face:
            moments.append(moment)
            if number in moment.marks:
                break
    return moments


def test_a_face_in_a_process_talks_is_interrupted_and_makes_room_for_the_next(worker, portrait, sound) -> None:
    async def main() -> None:
        face = await start(worker, portrait)
        assert (face.width, face.height, face.fps, face.sample_rate) == (256, 256, FPS, SAMPLE_RATE)
        face.say(sound[:8000])
        face.mark(1)
        moments = await until_mark(face, 1)
        assert np.array_equal(speaking(moments), sound[:8000])
        assert any(moment.picture is not None and moment.picture.shape == (256, 256, 3) for moment in moments)
        face.say(np.tile(sound, 20))
        face.mark(2)
        face.interrupt()
        face.mark(3)
        moments = await until_mark(face, 3)
        assert 2 not in [mark for moment in moments for mark in moment.marks]
        await face.close()
        await face.close()
        assert face.is_idle
        assert face.stats["moments"] > 3
        another = await start(worker, portrait)
        another.mark(1)
        assert await until_mark(another, 1)
        await another.close()

    asyncio.run(main())


def test_who_takes_too_slowly_loses_pictures_and_then_the_oldest_but_no_mark(worker, portrait, sound) -> None:
    async def main() -> None:
        face = await start(worker, portrait)
        face.say(sound[:3200])
        face.mark(1)
        until = time.monotonic() + PATIENCE_S
        while face.lost < 3 and time.monotonic() < until:
            await asyncio.sleep(0.1)
        face.mark(2)
        moments = await until_mark(face, 2)
        waited = moments[: int(WAITING_S * FPS)]
        assert [mark for moment in moments for mark in moment.marks] == [1, 2]
        assert all(moment.picture is None for moment in waited[: len(waited) - 3])
        await face.close()

    asyncio.run(main())


def test_what_cannot_be_used_is_told(worker, word, portrait) -> None:
    async def main() -> None:
        with pytest.raises(Problem, match="the portrait"):
            await start(worker, word)
        with pytest.raises(Problem, match="look_ahead_s is 5"):
            await start(worker, portrait, look_ahead_s=5)
        face = await start(worker, portrait)
        face.mark(1)
        assert await until_mark(face, 1)
        await face.close()

    asyncio.run(main())


def test_a_text_is_read_to_the_face(worker, portrait) -> None:
    pytest.importorskip("hibari")

    async def main() -> None:
        face, refused = await start(worker, portrait), []
        face.on_refusal = refused.append
        face.speak("Hello there. I read.")
        face.mark(1)
        moments = await until_mark(face, 1)
        assert 1 < len(speaking(moments)) / SAMPLE_RATE < 5
        face.speak("Hello.", "nobody")
        face.mark(2)
        await until_mark(face, 2)
        assert ["no voice" in words for words in refused] == [True]
        face.speak("A text that is cut short. " * 100)
        face.mark(3)
        face.interrupt()
        face.mark(4)
        moments = await until_mark(face, 4)
        assert 3 not in [mark for moment in moments for mark in moment.marks]
        await face.close()

    asyncio.run(main())


def test_a_face_whose_process_dies_is_told_and_nothing_hangs(tiny_model, portrait, sound) -> None:
    async def main() -> None:
        worker = await asyncio.to_thread(make_worker, tiny_model)
        face = await start(worker, portrait, owns_worker=True)
        face.mark(1)
        await until_mark(face, 1)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(FaceLost, match="ended by signal 9"):
            await until_mark(face, 2)
        face.say(sound)
        face.interrupt()
        await face.close()
        assert not face.is_idle

    asyncio.run(main())
