"""A WebRTC peer of the tests: what it sends, receives and is told, and what its line loses."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import RtcpPacket, RtcpSrPacket

from service_server import Server, form

FPS = 5
PATIENCE_S = 60.0
TOKEN = "the-token-of-the-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}

_NTP_PER_S = 2**32


class Client:
    """A peer, what it has received, and what it was told."""

    def __init__(self, server: Server | None = None) -> None:
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
        assert self.server is not None
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


class Line:
    """What comes over a peer's line, as its clocks have it: the sender's reports place both tracks on one clock, as
    they do for a browser.

    Args:
        one: connected.
        loss: share of all packets, in both directions, that are lost from now on.
    """

    def __init__(self, one: Client, loss: float = 0.0) -> None:
        self._receivers = {receiver.track.kind: receiver for receiver in one.peer.getReceivers()}
        self._reports: dict[int, tuple[int, int]] = {}
        self.lost = 0
        dice, transport = random.Random(0), next(iter(self._receivers.values())).transport
        handle, ice = transport._handle_rtcp_data, transport.transport
        receive, send = ice._recv, ice._send

        async def note(data: bytes) -> None:
            for packet in RtcpPacket.parse(data):
                if isinstance(packet, RtcpSrPacket):
                    report = packet.sender_info
                    self._reports[packet.ssrc] = (report.ntp_timestamp, report.rtp_timestamp)
            await handle(data)

        def is_lost() -> bool:
            self.lost += (lost := dice.random() < loss)
            return lost

        async def receive_some() -> bytes:
            while True:
                data = await receive()
                if not is_lost():
                    return data

        async def send_some(data: bytes) -> None:
            if not is_lost():
                await send(data)

        transport._handle_rtcp_data, ice._recv, ice._send = note, receive_some, send_some

    @property
    def is_known(self) -> bool:
        """Whether reports of both tracks have come."""
        sources = [receiver.getSynchronizationSources() for receiver in self._receivers.values()]
        return all(found and found[0].source in self._reports for found in sources)

    def seconds(self, kind: str, time_s: float) -> float:
        """The sender's clock at a track's own time, which begins with the first packet that came."""
        receiver = self._receivers[kind]
        ntp, rtp = self._reports[receiver.getSynchronizationSources()[0].source]
        rate = 90_000 if kind == "video" else 48_000
        origin = receiver._RTCRtpReceiver__timestamp_mapper._origin
        ahead = (origin - rtp + 2**31) % 2**32 - 2**31
        return ntp / _NTP_PER_S + ahead / rate + time_s
