"""The example bot over Pipecat's small WebRTC transport: a peer is greeted, and hears what it types."""

import asyncio
import contextlib
import importlib.util
import json
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pipecat")
pytest.importorskip("aiortc")
pytest.importorskip("fastapi")
pytest.importorskip("hibari")

import aiohttp
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

torch.set_num_threads(1)

EXAMPLE = Path(__file__).parents[1] / "examples" / "pipecat_bot.py"
PATIENCE_S = 60.0


def load_example() -> Any:
    spec = importlib.util.spec_from_file_location("pipecat_bot", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.asynccontextmanager
async def serving(app: Any):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        running = asyncio.create_task(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


class Peer:
    """What a browser would see and hear, with the times at which it came."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("bot")
        self.pictures: list[tuple[float, np.ndarray]] = []
        self.sounds: list[tuple[float, float]] = []
        self.tasks: list[asyncio.Task[None]] = []
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, direction="sendrecv")
        self.connection.on("track", lambda track: self.tasks.append(asyncio.create_task(self._take(track))))

    async def _take(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.pictures.append((time.monotonic(), frame.to_ndarray(format="rgb24")))
                else:
                    self.sounds.append((time.monotonic(), float(np.abs(frame.to_ndarray()).max())))

    async def connect(self, address: str) -> None:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        offer = {"sdp": self.connection.localDescription.sdp, "type": "offer"}
        async with aiohttp.ClientSession() as client, client.post(f"{address}/offer", json=offer) as reply:
            answer = await reply.json()
        await self.connection.setRemoteDescription(RTCSessionDescription(**answer))
        self.tasks.append(asyncio.create_task(self._ping()))

    async def _ping(self) -> None:
        while True:
            if self.channel.readyState == "open":
                self.channel.send("ping")
            await asyncio.sleep(1)

    def loud_after(self, when: float) -> bool:
        return any(loudness > 1000 for at, loudness in self.sounds if at > when)

    async def wait(self, is_true: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await self.connection.close()


def test_the_bot_greets_and_says_what_is_typed(tiny_model, portrait) -> None:
    example = load_example()
    service = {
        "settings": example.ATLDiffVideoService.Settings(model=str(tiny_model)),
        "device": "cpu",
        "threads": 1,
    }

    async def main() -> None:
        face = await asyncio.to_thread(example.prepared, portrait)
        async with serving(example.create_app(face, **service)) as address:
            async with aiohttp.ClientSession() as client, client.get(address) as reply:
                assert "<video" in await reply.text()
            peer = Peer()
            await peer.connect(address)
            await peer.wait(lambda: peer.loud_after(0) and len(peer.pictures) > 3)
            typed = time.monotonic()
            peer.channel.send(json.dumps({"type": "text", "text": "And this was typed by me."}))
            await peer.wait(lambda: peer.loud_after(typed + 1.0))
            assert peer.pictures[-1][1].shape == (512, 512, 3)
            assert np.abs(peer.pictures[-1][1].astype(int) - peer.pictures[0][1]).max() > 5
            await peer.close()
            await asyncio.sleep(0.5)

    asyncio.run(main())
