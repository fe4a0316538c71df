"""Live sessions over WebRTC: an aiortc client on this machine talks to a service in a process of its own."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamError

from service_server import Server, cmdline, form, running

torch.set_num_threads(1)

TOKEN = "the-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
FPS = 5
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("webrtc")
    (folder / "tokens").write_text(TOKEN)
    model = ["--model", str(tiny_model), "--device", "cpu", "--token-file", str(folder / "tokens")]
    with running(folder / "data", *model, "--live", "1") as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line]


class Client:
    """A peer, what it has received, and what it was told."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.pictures: list[tuple[float, np.ndarray]] = []
        self.sounds: list[tuple[float, np.ndarray]] = []
        self.told: list[dict[str, Any]] = []
        self.changed = asyncio.Event()
        self.channel = self.peer.createDataChannel("atldiff")
        self.channel.on("message", self._hear)
        self.peer.on("track", lambda track: self.tasks.append(asyncio.create_task(self._receive(track))))
        self.tasks: list[asyncio.Task[None]] = []

    async def offer(self, portrait: bytes, **options: str) -> Any:
        """Send an offer; gives the answer's status and JSON."""
        await self.peer.setLocalDescription(await self.peer.createOffer())
        parts = {"portrait": portrait, "offer": self.peer.localDescription.sdp.encode(), "fps": str(FPS)}
        body, kind = form(parts | {"crop_only": "true"} | options)
        headers = HEADERS | {"Content-Type": kind}
        reply = await asyncio.to_thread(self.server.request, "POST", "/v1/live/offer", body, headers)
        return reply.status, reply.json()

    async def connect(self, portrait: bytes, **options: str) -> None:
        status, answer = await self.offer(portrait, **options)
        assert status == 201, answer
        await self.peer.setRemoteDescription(RTCSessionDescription(**answer))
        await self.wait(lambda: any(each["type"] == "ready" for each in self.told))

    def tell(self, **content: Any) -> None:
        self.channel.send(json.dumps(content))

    async def wait(self, is_true: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        await self.peer.close()
        for task in self.tasks:
            task.cancel()

    def loud(self) -> list[bool]:
        return [bool(np.abs(samples).max() > 500) for _, samples in self.sounds]

    def _hear(self, message: str) -> None:
        self.told.append(json.loads(message))
        self.changed.set()

    async def _receive(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self.pictures.append((frame.time, frame.to_ndarray(format="rgb24")))
                else:
                    self.sounds.append((frame.time, frame.to_ndarray()))
                self.changed.set()


@contextlib.asynccontextmanager
async def client(server: Server, *, sends: Path | None = None) -> AsyncIterator[Client]:
    one = Client(server)
    one.peer.addTransceiver("video", direction="recvonly")
    if sends is None:
        one.peer.addTransceiver("audio", direction="recvonly")
    else:
        one.peer.addTrack(MediaPlayer(str(sends), loop=True).audio)
    try:
        yield one
    finally:
        await one.close()


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
            assert one.told[0] == {"type": "ready", "width": 128, "height": 128, "fps": FPS}
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
            assert one.pictures[0][1].shape == (128, 128, 3)
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
            async with client(server) as two:
                assert (await two.offer(face))[0] == 503
        await until_free(server)

    asyncio.run(main())


def test_a_worker_that_dies_is_told_and_another_takes_its_place(server, face) -> None:
    async def main() -> None:
        async with client(server) as one:
            await one.connect(face)
            before = set(server.children)
            victim = max(before, key=lambda pid: b"spawn_main" in cmdline(pid) and pid)
            os.kill(victim, signal.SIGKILL)
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
