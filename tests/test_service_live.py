"""Live sessions of the service: frames as sound comes, garbage told in words, sessions counted and freed."""

import io
import json
import struct

import pytest
import torch
from PIL import Image

from media_files import sine
from service_server import (
    MAX_UPLOAD_MIB,
    Server,
    figure,
    wait_until,
)

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

torch.set_num_threads(1)


def open_live(server: Server) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/v1/live", open_timeout=30, close_timeout=30)


def settle(server: Server) -> None:
    wait_until(lambda: figure(server, "atldiff_live_sessions") == 0)


def test_a_live_session_gives_frames(server, face) -> None:
    heard = (sine(1, 8000)[0] * 32767).astype("<i2").tobytes()
    for _ in range(2):
        with open_live(server) as live:
            live.send(json.dumps({"sample_rate": 8000, "crop_only": True, "max_delay_s": 60, "look_ahead_s": 0.2}))
            live.send(face)
            ready = json.loads(live.recv(60))
            assert ready == {"type": "ready", "width": 256, "height": 256, "fps": 25.0, "sample_rate": 8000}
            for begin in range(0, len(heard), 3200):
                live.send(heard[begin : begin + 3200])
            live.send(json.dumps({"type": "finish"}))
            messages = []
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    messages.append(live.recv(60))
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1000
        *frames, end = messages
        heads = [struct.unpack_from("<Id", frame) for frame in frames]
        assert heads == [(number, number / 25) for number in range(len(frames))]
        assert len(frames) >= 25
        assert Image.open(io.BytesIO(frames[-1][12:])).size == (256, 256)
        stats = json.loads(end)["stats"]
        assert (stats["frames"], stats["dropped"], stats["sound_s"]) == (len(frames), 0, 1.0)


START = json.dumps({"crop_only": True})


BAD_LIVE: dict[str, tuple[list[str | bytes], str | None]] = {
    "no json": (["hello"], None),
    "no object": (["[1]"], None),
    "deep": (["[" * 100_000], None),
    "sound first": ([b"\0" * 100], None),
    "unknown option": (['{"tempo": 1}'], "tempo"),
    "option out of range": (['{"fps": 1000}'], "fps"),
    "auto emotion": (['{"emotion": "auto"}', b"FACE"], None),
    "kind of option": (['{"fps": "fast"}'], "fps"),
    "nested option": (['{"seed": {"a": 1}}'], "seed"),
    "format": (['{"format": "mp3"}'], "format"),
    "sample rate": (['{"sample_rate": 1.5}'], "sample_rate"),
    "no portrait": ([START, "text"], "portrait"),
    "garbage as portrait": ([START, b"\1" * 1000], "portrait"),
    "half a sample": ([START, b"FACE", b"\0\0\0"], "sound"),
    "too much sound": ([START, b"FACE", bytes(2**20 + 2)], "sound"),
    "text as sound": ([START, b"FACE", "hello"], None),
    "sound that is none": (['{"format": "f32le", "crop_only": true}', b"FACE", b"\xff" * 400], None),
}


@pytest.mark.parametrize("kind", BAD_LIVE)
def test_live_garbage_is_answered_in_words(server, face, kind) -> None:
    messages, field = BAD_LIVE[kind]
    with open_live(server) as live:
        for message in messages:
            live.send(face if message == b"FACE" else message)
        while (answer := json_or_none(live.recv(60))) is None or answer["type"] == "ready":
            pass
        assert answer["type"] == "error"
        assert answer["problem"].get("field") == field
        with pytest.raises(ConnectionClosed) as closed:
            live.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    settle(server)


def json_or_none(message: str | bytes) -> dict | None:
    return json.loads(message) if isinstance(message, str) else None


def test_live_sessions_are_counted_and_cut_ones_are_freed(server, face) -> None:
    with open_live(server) as first:
        first.send(START)
        first.send(face)
        assert json.loads(first.recv(60))["type"] == "ready"
        workers = server.children
        with open_live(server) as second, pytest.raises(ConnectionClosed) as closed:
            assert "taken" in json.loads(second.recv(60))["problem"]["detail"]
            second.recv(60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        first.send(bytes(32_000))
        first.socket.close()
    settle(server)
    assert server.children == workers
    with open_live(server) as huge, pytest.raises(ConnectionClosed):
        huge.send(START)
        huge.send(bytes(MAX_UPLOAD_MIB * 2**20 + 1))
        huge.recv(60)
    settle(server)
