"""What the service refuses: files, options, bodies, addresses and origins that are none."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from media_files import sine, write_sound, write_video
from service_server import (
    MAX_DURATION_S,
    MAX_UPLOAD_MIB,
    PORTRAIT_HEAD,
    assert_refused,
    form,
    raw_form,
)

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

torch.set_num_threads(1)


def png(width: int, height: int, data: bytes = b"", *more: tuple[bytes, bytes]) -> bytes:
    """A grey PNG of any stated size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def wav(seconds: float, rate: int = 8000) -> bytes:
    data = bytes(round(seconds * rate))
    kind = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate, 1, 8)
    header = struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE") + kind + struct.pack("<4sI", b"data", len(data))
    return header + data


def silence_bomb(folder: Path) -> bytes:
    """A few kilobytes of FLAC that are ten minutes of silence."""
    content = write_sound(folder / "silence.flac", np.zeros((1, 8000 * 600), dtype=np.float32), 8000).read_bytes()
    assert len(content) < 2**17
    return content


def blank(width: int = 200, height: int = 200, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 150)).save(stream, kind)
    return stream.getvalue()


BAD_PORTRAITS: dict[str, Callable[[bytes], bytes]] = {
    "zero bytes": lambda _: b"",
    "text": lambda _: b"hello, I am a picture",
    "random": lambda _: np.random.default_rng(0).bytes(5000),
    "truncated": lambda face: face[: len(face) // 3],
    "head alone": lambda face: face[:20],
    "no face": lambda _: blank(),
    "one pixel": lambda _: blank(1, 1),
    "pixel bomb": lambda _: png(60_000, 60_000, zlib.compress(bytes(1000))),
    "beyond the limit": lambda _: blank(2000, 1100),
    "a line of pixels": lambda _: png(2**31 - 1, 1, zlib.compress(bytes(1000))),
    "no pixels": lambda _: png(0, 0, zlib.compress(b"")),
    "text bomb": lambda _: png(50, 50, zlib.compress(bytes(2550)), (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**27)))),
    "svg": lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "playlist": lambda _: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "concat script": lambda _: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "html": lambda _: b"<!doctype html><script>alert(1)</script>",
    "archive": lambda _: b"PK\x03\x04" + bytes(500),
    "sound": lambda _: wav(0.5),
    "gif head": lambda _: b"GIF89a" + b"\xff" * 50,
    "tiff loop": lambda _: b"II*\0\x08\0\0\0\x01\0\0\1\3\0\1\0\0\0\1\0\0\0\x08\0\0\0",
}


BAD_SPEECH: dict[str, Callable[[Path], bytes]] = {
    "zero bytes": lambda _: b"",
    "text": lambda _: b"hello, I am a sound",
    "random": lambda _: np.random.default_rng(1).bytes(5000),
    "too long": lambda _: wav(MAX_DURATION_S + 1),
    "silence bomb": silence_bomb,
    "too short": lambda _: wav(0.01),
    "head alone": lambda _: wav(1)[:44],
    "no sample rate": lambda _: wav(0.5)[:24] + bytes(8) + wav(0.5)[32:],
    "picture": lambda _: blank(),
    "silent film": lambda folder: write_video(folder / "v.mp4", np.zeros((5, 64, 64, 3), np.uint8)).read_bytes(),
    "playlist": lambda _: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n#EXT-X-ENDLIST\n",
    "cut mp4": lambda folder: write_sound(folder / "s.m4a", sine(1, 16_000), 16_000).read_bytes()[:300],
    "sdp": lambda _: b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 5004 RTP/AVP 0\r\n",
}


BAD_OPTIONS = {
    "fps": ["0", "1000", "fast", "nan", "inf", "1e999", "25;rm -rf /"],
    "steps": ["0", "65", "1.5", "1_0", "٣"],
    "seed": ["-1", "9" * 500, "0x10"],
    "emotion": ["bored", "../../etc/passwd", "\0"],
    "intensity": ["2", "-0.1"],
    "mouth": ["1.6"],
    "blink": ["perhaps"],
    "face": ["0", "2", "-1", "1.0", "99999999999"],
    "crop_only": ["perhaps"],
    "max_size": ["63", "5000", "big"],
    "aspect": ["wide", "9:0", "1:9"],
    "background": ["nothing"],
    "audio_track": ["0", "2"],
    "webhook": ["https://example.org/"],
    "portrait2": ["x"],
    "output": ["../../tmp/x.mp4"],
    "head_motion": ["x" * 2000],
}


@pytest.mark.parametrize("kind", BAD_PORTRAITS)
def test_portraits_that_are_none_are_refused(server, face, sound, kind) -> None:
    assert_refused(server, server.post(portrait=BAD_PORTRAITS[kind](face), speech=sound), "portrait")


@pytest.mark.parametrize("kind", BAD_SPEECH)
def test_speech_that_is_none_is_refused(server, face, kind, tmp_path) -> None:
    assert_refused(server, server.post(portrait=face, speech=BAD_SPEECH[kind](tmp_path)), "speech")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD_OPTIONS for value in BAD_OPTIONS[name]])
def test_options_out_of_range_are_refused(server, face, sound, name, value) -> None:
    assert_refused(server, server.post(portrait=face, speech=sound, **{name: value}), name)


BAD_BODIES: dict[str, tuple[bytes, str, int, str | None]] = {
    "no body": (b"", "multipart/form-data; boundary=B", 400, None),
    "no content type": (b"x", "", 415, None),
    "json": (b"{}", "application/json", 415, None),
    "no boundary": (b"--B--", "multipart/form-data", 400, None),
    "long boundary": (b"--B--", "multipart/form-data; boundary=" + "B" * 300, 400, None),
    "another boundary": (raw_form(PORTRAIT_HEAD + b"x"), "multipart/form-data; boundary=C", 400, None),
    "no end": (raw_form(PORTRAIT_HEAD + b"x", end=b""), "multipart/form-data; boundary=B", 400, None),
    "no parts": (b"--B--\r\n", "multipart/form-data; boundary=B", 422, "portrait"),
    "no speech": (raw_form(PORTRAIT_HEAD + b"x"), "multipart/form-data; boundary=B", 422, "speech"),
    "twice": (raw_form(*[PORTRAIT_HEAD + b"x"] * 2), "multipart/form-data; boundary=B", 422, "portrait"),
    "no name": (raw_form(b"Content-Disposition: form-data\r\n\r\nx"), "multipart/form-data; boundary=B", 422, ""),
    "no headers": (raw_form(b"\r\nx"), "multipart/form-data; boundary=B", 422, ""),
    "path as name": (
        raw_form(b'Content-Disposition: form-data; name="../../portrait"\r\n\r\nx'),
        "multipart/form-data; boundary=B",
        422,
        "../../portrait",
    ),
    "huge part header": (
        raw_form(b"X-Long: " + b"a" * 100_000 + b"\r\n\r\nx"),
        "multipart/form-data; boundary=B",
        400,
        None,
    ),
    "many part headers": (raw_form(b"X: 1\r\n" * 5000 + b"\r\nx"), "multipart/form-data; boundary=B", 400, None),
    "many parts": (
        raw_form(*[b'Content-Disposition: form-data; name="x%d"\r\n\r\n1' % n for n in range(5000)]),
        "multipart/form-data; boundary=B",
        422,
        "x0",
    ),
    "not utf-8": (
        raw_form(
            PORTRAIT_HEAD + b"x",
            PORTRAIT_HEAD.replace(b"portrait", b"speech") + b"x",
            PORTRAIT_HEAD.replace(b"portrait", b"emotion") + b"\xff\xfe",
        ),
        "multipart/form-data; boundary=B",
        422,
        "emotion",
    ),
    "too large": (bytes(MAX_UPLOAD_MIB * 2**20 + 1), "multipart/form-data; boundary=B", 413, None),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
def test_bodies_that_are_no_form_are_refused(server, kind) -> None:
    body, content_type, status, field = BAD_BODIES[kind]
    headers = {"Content-Type": content_type} if content_type else {}
    assert_refused(server, server.request("POST", "/v1/videos", body, headers), field, status)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/videos/" + "x" * 22, 404),
        ("GET", "/v1/videos/short", 422),
        ("GET", "/v1/videos/..%2f..%2fjobs.sqlite", 404),
        ("GET", "/v1/videos/%2e%2e/content", 422),
        ("GET", "/v1/videos/" + "%00" * 22, 422),
        ("DELETE", "/v1/videos/" + "é".encode().hex() * 6, 422),
        ("GET", "/../../etc/passwd", 404),
        ("PATCH", "/v1/videos", 405),
        ("GET", "/v1/videos?limit=0", 422),
        ("PUT", "/v1/videos/" + "x" * 22, 405),
        ("OPTIONS", "/v1/videos", 405),
        ("POST", "/v1/videos?wait=perhaps", 422),
        ("GET", "/v1/live", 404),
    ],
)
def test_addresses_that_are_none(server, method, path, status) -> None:
    reply = server.request(method, path)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in reply.headers


def test_other_origins_and_other_names_are_refused(server, face, sound) -> None:
    body, kind = form({"portrait": face, "speech": sound})
    crossed = server.request("POST", "/v1/videos", body, {"Content-Type": kind, "Origin": "https://evil.example"})
    assert_refused(server, crossed, None, 403)
    assert server.get("/health", Origin=f"http://127.0.0.1:{server.port}").status == 200
    assert server.get("/health", Host="evil.example").status == 421
    with pytest.raises(InvalidStatus):
        connect(f"ws://127.0.0.1:{server.port}/v1/live", origin="https://evil.example")  # pyright: ignore
