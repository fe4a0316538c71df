"""Live sessions over WebRTC: an aiortc client on this machine talks to a service in a process of its own."""

import asyncio
import contextlib
import http.client
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")

from service_server import Server, form, guarded, running
from webrtc_peer import FPS, HEADERS, PATIENCE_S, TOKEN, Line, client

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("webrtc")
    with guarded(folder, tiny_model, TOKEN, "--live", "2") as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line]


def sessions(server: Server) -> float:
    lines = server.get("/metrics", **HEADERS).body.decode().splitlines()
    return float(next(line for line in lines if line.startswith("atldiff_live_sessions ")).split()[1])


async def until_free(server: Server) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(sessions, server):
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def face(portrait: Path) -> bytes:
    return portrait.read_bytes()


def test_a_text_is_said_and_cut_short(server, face) -> None:
    pytest.importorskip("hibari")

    async def main() -> None:
        async with client(server) as one:
            await one.connect(face)
            assert one.told[0] == {"type": "ready", "width": 256, "height": 256, "fps": FPS}
            await one.wait(lambda: len(one.pictures) > 2)
            assert not any(one.loud())
            one.tell(type="say", text="Hello there.")
            await one.wait(lambda: {"type": "said"} in one.told)
            await one.wait(lambda: any(one.loud()))
            one.tell(type="say", text="And this is something that goes on and on. " * 50)
            before = len(one.sounds)
            await one.wait(lambda: any(one.loud()[before:]))
            one.tell(type="interrupt")
            await one.wait(lambda: len(one.sounds) > before + 100 and not any(one.loud()[-50:]))
            assert one.pictures[0][1].shape == (256, 256, 3)
            assert len({picture.tobytes() for _, picture in one.pictures}) > 3
            times = [time for time, _ in one.pictures]
            assert times == sorted(times)
        await until_free(server)

    asyncio.run(main())


def test_a_voice_is_followed(server, face, speech) -> None:
    async def main() -> None:
        async with client(server, sends=speech) as one:
            await one.connect(face)
            await one.wait(lambda: sum(one.loud()) > 50)
            await one.wait(lambda: len(one.pictures) > 5)
        await until_free(server)

    asyncio.run(main())


def test_what_cannot_be_is_told_in_words(server, face) -> None:
    async def main() -> None:
        async with client(server) as one:
            status, problem = await one.offer(b"no picture")
            assert (status, problem["field"]) == (422, "portrait")
        async with client(server) as one:
            assert (await one.offer(face, emotion="bored"))[0] == 422
        no_offer = {"portrait": face, "offer": b"v=0 nonsense"}
        body, kind = form(no_offer)
        reply = server.request("POST", "/v1/live/offer", body, HEADERS | {"Content-Type": kind})
        assert (reply.status, reply.json()["field"]) == (422, "offer")
        assert server.request("POST", "/v1/live/offer", body, {"Content-Type": kind}).status == 401
        async with client(server) as one:
            await one.connect(face)
            for wrong in (
                "{",
                "[]",
                '{"type": "shout"}',
                '{"type": "say"}',
                '{"type": "say", "text": "x", "voice": "y"}',
            ):
                told = len(one.told)
                one.channel.send(wrong)
                await one.wait(lambda told=told: len(one.told) > told)
                assert one.told[told]["type"] == "error"
                assert one.told[told]["problem"]["status"] == 422
        await until_free(server)

    asyncio.run(main())


def test_two_talk_at_once_and_a_third_is_refused(server, face, speech) -> None:
    async def main() -> None:
        async with client(server, sends=speech) as one, client(server) as two:
            await one.connect(face)
            await two.connect(face)
            async with client(server) as three:
                status, problem = await three.offer(face)
                assert (status, problem["detail"]) == (503, "all live sessions are taken")
            await one.wait(lambda: sum(one.loud()) > 20 and len(one.pictures) > 3)
            await two.wait(lambda: len(two.pictures) > 3)
            assert not any(two.loud())
            await one.close()
            before = len(two.pictures)
            await two.wait(lambda: len(two.pictures) > before + 2)
        await until_free(server)

    asyncio.run(main())


def test_a_line_that_loses_packets_and_a_client_that_stands_still(server, face, speech) -> None:
    async def main() -> None:
        async with client(server, sends=speech) as one:
            await one.connect(face)
            await one.wait(lambda: bool(one.pictures))
            line = Line(one, loss=0.15)
            pictures, loud = len(one.pictures), sum(one.loud())
            await one.wait(lambda: len(one.pictures) > pictures + 8 and sum(one.loud()) > loud + 50)
            assert line.lost > 20
            time.sleep(2)
            pictures, loud = len(one.pictures), sum(one.loud())
            await one.wait(lambda: len(one.pictures) > pictures + 8 and sum(one.loud()) > loud + 50)
            one.tell(type="say")
            await one.wait(lambda: any(each["type"] == "error" for each in one.told))
        await until_free(server)

    asyncio.run(main())


def test_a_worker_that_dies_is_told_and_another_takes_its_place(server, face) -> None:
    async def main() -> None:
        async with client(server) as one:
            await one.connect(face)
            os.kill(server.children[-1], signal.SIGKILL)
            await one.wait(lambda: any(each["type"] == "error" for each in one.told))
            assert "the face was lost" in one.told[-1]["problem"]["detail"]
        await until_free(server)
        async with client(server) as one:
            await one.connect(face)
            await one.wait(lambda: len(one.pictures) > 1)
        await until_free(server)

    asyncio.run(main())


def test_many_sessions_leave_nothing_behind(server, face) -> None:
    async def one_session() -> None:
        async with client(server) as one:
            await one.connect(face)
            await one.wait(lambda: bool(one.pictures))
        await until_free(server)

    asyncio.run(one_session())
    before, children = handles(server), server.children
    for _ in range(5):
        asyncio.run(one_session())
    assert server.children == children
    assert handles(server) <= before + 3


def handles(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def test_a_service_that_ends_ends_its_sessions(tiny_model, face, tmp_path) -> None:
    async def main(server: Server) -> None:
        async with client(server) as one:
            await one.connect(face)
            assert await asyncio.to_thread(server.stop) == 143

    with (
        contextlib.suppress(http.client.HTTPException),
        running(tmp_path, "--model", str(tiny_model), "--device", "cpu") as server,
    ):
        asyncio.run(main(server))
