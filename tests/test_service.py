"""The service: videos made, watched, fetched and deleted; what is refused; what a killed process leaves."""

import contextlib
import io
import json
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from media_files import sine, write_sound, write_video
from service_server import Server, form, running

pytest.importorskip("fastapi")
pytest.importorskip("websockets")

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from atldiff.face.portrait import prepare_portrait
from atldiff.serve.store import JobStore, stopped_problem
from atldiff.speech.voices import voices

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
MAX_UPLOAD_MIB, MAX_DURATION_S, MAX_MEGAPIXELS = 2, 6, 2
UPLOAD_TIMEOUT_S = 4
SLOW = {"fps": "120", "steps": "64"}
"""Options with which the long sentence takes far longer than any test."""


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    limits = ["--max-upload", str(MAX_UPLOAD_MIB), "--max-duration", str(MAX_DURATION_S)]
    limits += ["--max-pixels", str(MAX_MEGAPIXELS), "--upload-timeout", str(UPLOAD_TIMEOUT_S)]
    model = ["--model", str(tiny_model), "--device", "cpu"]
    data = tmp_path_factory.mktemp("service") / "data"
    with running(data, *model, *limits, "--workers", "1", "--queue", "1") as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line]


@pytest.fixture(scope="module")
def face(portrait: Path) -> bytes:
    return portrait.read_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """0.4 s."""
    return write_sound(tmp_path_factory.mktemp("sound") / "tone.wav", sine(0.4, 16_000), 16_000).read_bytes()


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """5 s."""
    return write_sound(tmp_path_factory.mktemp("sound") / "long.wav", sine(5, 16_000), 16_000).read_bytes()


def frames_of(video: bytes) -> int:
    with av.open(io.BytesIO(video)) as container:
        assert container.streams.audio
        return sum(1 for _ in container.decode(video=0))


def queued(reply) -> str:
    assert reply.status == 202, reply.body
    assert reply.headers["location"] == f"/v1/videos/{reply.json()['id']}"
    return reply.json()["id"]


def test_a_video_is_made_watched_fetched_and_deleted(server, face, sound) -> None:
    job_id = queued(server.post(portrait=face, speech=sound, fps="10", crop_only="true", seed="3", emotion=""))
    events = server.get(f"/v1/videos/{job_id}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    seen = re.findall(r"event: (\w+)\ndata: (.*)\n\n", events.body.decode())
    names = [name for name, _ in seen]
    assert names == sorted(names, key=["queued", "running", "done"].index)
    assert names[-1] == "done"
    last = json.loads(seen[-1][1])
    assert last == server.get(f"/v1/videos/{job_id}").json()
    assert (last["state"], last["progress"], last["problem"]) == ("done", None, None)
    assert last["options"] == {"fps": 10.0, "crop_only": True, "seed": 3}
    assert (last["result"]["frames"], last["result"]["emotion"]) == (4, "neutral")

    whole = server.get(f"/v1/videos/{job_id}/content")
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    assert len(whole.body) == last["result"]["bytes"]
    assert frames_of(whole.body) == 4
    part = server.get(f"/v1/videos/{job_id}/content", Range="bytes=10-19")
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert server.get(f"/v1/videos/{job_id}/content", Range="bytes=99999999-").status == 416
    kept = {path.name for path in (server.data / "jobs" / job_id).iterdir()}
    assert kept == {"video.mp4", "preview.jpg", "landmarks.json"}

    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 204
    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 404
    for path in ("", "/content", "/events"):
        assert server.get(f"/v1/videos/{job_id}{path}").status == 404
    assert not (server.data / "jobs" / job_id).exists()


def test_the_video_itself_is_the_answer_to_one_who_waits(server, face, sound, tmp_path) -> None:
    pictures = np.tile(np.asarray(Image.open(io.BytesIO(face)).convert("RGB")), (2, 1, 1, 1))
    clip = write_video(tmp_path / "clip.mp4", pictures, samples=sine(0.3, 48_000)).read_bytes()
    reply = server.post("/v1/videos?wait=true", portrait=clip, speech=clip, crop_only="1")
    assert (reply.status, reply.headers["content-type"]) == (200, "video/mp4")
    assert frames_of(reply.body) in (7, 8)


def test_a_text_is_said(server, face) -> None:
    video = server.post("/v1/videos?wait=true", portrait=face, text="Hello. I am a face.", crop_only="true")
    assert video.status == 200, video.body
    assert 40 < frames_of(video.body) < 100
    assert server.get("/v1/limits").json()["voices"] == voices()


@pytest.mark.parametrize(
    ("parts", "field", "words"),
    [
        ({"text": "你好"}, "text", "nothing that the voice can say"),
        ({"text": 40 * "This is far too long. "}, "text", f"longer than {MAX_DURATION_S} s"),
        ({"text": 70_000 * "x"}, "text", "too long"),
        ({"text": "Hello.", "voice": "nobody"}, "voice", "no voice 'nobody'"),
        ({"voice": "heart"}, "speech", "the speech is missing; expected a file, or a text"),
        ({"text": "Hello.", "speech": b"RIFF"}, "text", "got speech and text"),
        ({"voice": "heart", "speech": b"RIFF"}, "voice", "a voice says a text"),
    ],
)
def test_a_text_that_cannot_be_said_is_refused(server, face, parts, field, words) -> None:
    answer = server.post(portrait=face, **parts)
    assert answer.status == 422
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"]


def test_a_prepared_portrait_is_taken(server, face, portrait, detector, sound, tmp_path) -> None:
    known = prepare_portrait(portrait, lambda: detector).save(tmp_path / "face.atl").read_bytes()
    assert server.post("/v1/faces", portrait=known).json() == server.post("/v1/faces", portrait=face).json()
    assert server.post("/v1/videos?wait=true", portrait=known, speech=sound).status == 200
    assert "damaged" in server.post(portrait=known[:-9], speech=sound).json()["detail"]


def test_the_example_makes_a_video(server, portrait, sound, tmp_path) -> None:
    speech, out = tmp_path / "tone.wav", tmp_path / "out.mp4"
    speech.write_bytes(sound)
    command = [sys.executable, str(ROOT / "examples" / "client.py"), str(portrait), str(speech), str(out)]
    address = {"ATLDIFF_URL": f"http://127.0.0.1:{server.port}"}
    said = subprocess.run(command, env=os.environ | address, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert frames_of(out.read_bytes()) == 10
    speech.write_bytes(b"no sound")
    said = subprocess.run(command, env=os.environ | address, capture_output=True, text=True)
    assert said.returncode == 1
    assert "speech: the speech cannot be read" in said.stderr


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "usage: client.py PORTRAIT SPEECH OUTPUT"),
        (["none.jpg", "none.wav", "out.mp4"], "none.jpg"),
        (["here", "here", "out.mp4"], "no service answers at http://127.0.0.1:9"),
    ],
)
def test_the_example_says_in_words_what_is_wrong(tmp_path, names, words) -> None:
    (tmp_path / "here").write_bytes(b"x")
    command = [sys.executable, str(ROOT / "examples" / "client.py"), *names]
    address = {"ATLDIFF_URL": "http://127.0.0.1:9"}
    said = subprocess.run(command, env=os.environ | address, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode != 0
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_faces_are_found_from_left_to_right(server, face) -> None:
    one = Image.open(io.BytesIO(face)).convert("RGB").resize((400, 400))
    two = Image.new("RGB", (1000, 500))
    two.paste(one, (0, 0))
    two.paste(one.resize((500, 500)), (500, 0))
    stream = io.BytesIO()
    two.save(stream, "PNG")
    found = server.post("/v1/faces", portrait=stream.getvalue()).json()
    assert (found["width"], found["height"]) == (1000, 500)
    assert [box["number"] for box in found["faces"]] == [1, 2]
    left, right = found["faces"]
    assert left["x"] < 400 < 500 < right["x"]
    assert 1.1 < right["width"] / left["width"] < 1.4
    assert_refused(server, server.post("/v1/faces", portrait=blank()), "portrait")
    assert_refused(server, server.post("/v1/faces", portrait=face, speech=face), "speech")


def test_a_full_queue_says_when_to_come_again_and_deleting_stops_the_work(server, face, long_sound) -> None:
    first, second = (queued(server.post(portrait=face, speech=long_sound, **SLOW)) for _ in range(2))
    server.wait(first, "running")
    assert server.get(f"/v1/videos/{second}").json()["position"] == 1
    refused = server.post(portrait=face, speech=long_sound)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "queue is full" in refused.json()["detail"]
    conflict = server.get(f"/v1/videos/{first}/content")
    assert (conflict.status, "running" in conflict.json()["detail"]) == (409, True)

    workers = set(server.children)
    assert server.request("DELETE", f"/v1/videos/{second}").status == 204
    assert server.request("DELETE", f"/v1/videos/{first}").status == 204
    wait_until(lambda: not (server.data / "jobs" / first).exists())
    assert len(workers - set(server.children)) == 1


def test_one_who_waits_and_goes_has_the_work_stopped(server, face, long_sound) -> None:
    body, kind = form({"portrait": face, "speech": long_sound, **SLOW})
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("/v1/videos?wait=true", kind, len(body)) + body)
        wait_until(lambda: figure(server, "atldiff_jobs_running") == 1)
    wait_until(lambda: figure(server, "atldiff_jobs_running") == 0)
    wait_until(lambda: not list((server.data / "jobs").iterdir()))


def figure(server: Server, name: str) -> float:
    found = re.search(rf"^{name} (.*)$", server.get("/metrics").body.decode(), re.MULTILINE)
    assert found
    return float(found[1])


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def head(path: str, kind: str, length: int, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


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
    "portrait2": ["x"],
    "output": ["../../tmp/x.mp4"],
    "head_motion": ["x" * 2000],
}


def assert_refused(server: Server, reply, field: str | None, status: int = 422) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (problem["status"], problem.get("field")) == (status, field)
    assert len(problem["detail"]) > 10
    assert str(server.data) not in problem["detail"]
    assert list((server.data / "jobs").iterdir()) == []


@pytest.mark.parametrize("kind", BAD_PORTRAITS)
def test_portraits_that_are_none_are_refused(server, face, sound, kind) -> None:
    assert_refused(server, server.post(portrait=BAD_PORTRAITS[kind](face), speech=sound), "portrait")


@pytest.mark.parametrize("kind", BAD_SPEECH)
def test_speech_that_is_none_is_refused(server, face, kind, tmp_path) -> None:
    assert_refused(server, server.post(portrait=face, speech=BAD_SPEECH[kind](tmp_path)), "speech")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD_OPTIONS for value in BAD_OPTIONS[name]])
def test_options_out_of_range_are_refused(server, face, sound, name, value) -> None:
    assert_refused(server, server.post(portrait=face, speech=sound, **{name: value}), name)


def raw_form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


PORTRAIT_HEAD = b'Content-Disposition: form-data; name="portrait"\r\n\r\n'
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


def exchange(server: Server, *pieces: bytes, pause_s: float = 0.0, timeout_s: float = 30.0) -> bytes:
    """Send raw bytes, and read what comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout_s) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        received = b""
        while piece := connection.recv(65536):
            received += piece
            if received.endswith((b"}", b"\0")):
                break
        return received


def test_too_much_without_a_stated_length_is_refused_while_it_comes(server, face) -> None:
    start = head("/v1/videos", "multipart/form-data; boundary=B", 0).replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    begin = raw_form(PORTRAIT_HEAD, end=b"")
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    answer = exchange(server, start, b"%x\r\n%s\r\n" % (len(begin), begin), *[piece] * 40, b"0\r\n\r\n")
    assert b"413" in answer.splitlines()[0]
    assert b"expected at most 2 MiB in one request" in answer
    assert b'"field":"portrait"' in answer
    assert list((server.data / "jobs").iterdir()) == []


def test_a_slow_body_is_given_up(server) -> None:
    start = head("/v1/videos", "multipart/form-data; boundary=B", 10_000)
    began = time.monotonic()
    answer = exchange(server, start + raw_form(PORTRAIT_HEAD, end=b""))
    assert b"408" in answer.splitlines()[0]
    assert UPLOAD_TIMEOUT_S - 1 < time.monotonic() - began < UPLOAD_TIMEOUT_S + 10
    assert list((server.data / "jobs").iterdir()) == []


def test_cut_connections_and_garbage_leave_nothing(server) -> None:
    start = head("/v1/videos", "multipart/form-data; boundary=B", 10_000) + raw_form(PORTRAIT_HEAD, end=b"")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(start)
    huge = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 60_000 + b"\r\n\r\n"
    for garbage in (
        b"\0" * 5000 + b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        secrets.token_bytes(300) + b"\r\n\r\n",
        huge,
    ):
        assert exchange(server, garbage).startswith(b"HTTP/1.1 4")
    wait_until(lambda: not list((server.data / "jobs").iterdir()))
    assert server.get("/health").status == 200
    assert figure(server, "atldiff_jobs_queued") == 0


@pytest.mark.parametrize("length", [33_000, 40_000, 70_000])
@pytest.mark.parametrize("place", ["header", "address"])
def test_a_head_that_is_too_large_is_refused_even_where_it_comes_at_once(server, length, place) -> None:
    long = b"a" * length
    address, header = (b"/health", long) if place == "header" else (b"/health?" + long, b"")
    answer = exchange(server, b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX: %s\r\n\r\n" % (address, header))
    assert re.match(rb"HTTP/1.1 4(31|00) ", answer), answer[:200]


def test_idle_connections_make_room_for_others(server) -> None:
    with contextlib.ExitStack() as stack:
        connected = partial(socket.create_connection, ("127.0.0.1", server.port), timeout=30)
        idle = [stack.enter_context(connected()) for _ in range(300)]
        began = time.monotonic()
        assert server.get("/docs").status == 200
        assert time.monotonic() - began < 5
        assert idle[0].recv(10) == b""
        idle[-1].sendall(b"GET /docs HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert idle[-1].recv(12) == b"HTTP/1.1 200"


def test_where_all_connections_are_busy_another_is_told_so(server, face, long_sound) -> None:
    job_id = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    with contextlib.ExitStack() as stack:
        for _ in range(256):
            watching = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            watching.sendall(b"GET /v1/videos/%s/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % job_id.encode())
            assert watching.recv(12) == b"HTTP/1.1 200"
        refused = server.get("/docs")
        assert (refused.status, refused.headers["content-type"]) == (503, "application/problem+json")
        assert "at 256 requests at once" in refused.json()["detail"]
    wait_until(lambda: server.get("/docs").status == 200)
    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 204


def test_head_is_answered_like_get_without_a_body(server, face, long_sound) -> None:
    job_id = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    wait_until(lambda: server.get("/health").status == 200)
    for path in ("/health", "/docs", "/metrics", f"/v1/videos/{job_id}", f"/v1/videos/{job_id}/events"):
        reply = server.request("HEAD", path)
        assert (reply.status, reply.body) == (200, b""), path
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert int(server.request("HEAD", "/docs").headers["content-length"]) == len(server.get("/docs").body)
    assert server.request("HEAD", "/nothing").status == 404
    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 204
    for method, path, allowed in (
        ("OPTIONS", "/docs", "GET, HEAD"),
        ("PUT", "/health", "GET, HEAD"),
        ("PUT", "/v1/videos", "GET, HEAD, POST"),
        ("PUT", f"/v1/videos/{job_id}", "DELETE, GET, HEAD"),
    ):
        reply = server.request(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)


@pytest.fixture(scope="module")
def faceless(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of which the search for a face takes some seconds."""
    path = tmp_path_factory.mktemp("video") / "faceless.mp4"
    return write_video(path, np.full((105, 640, 640, 3), 128, np.uint8), 10).read_bytes()


def test_nobody_waits_for_the_search_of_a_video_that_its_sender_left(server, face, faceless) -> None:
    server.post("/v1/faces", portrait=faceless)
    body, kind = form({"portrait": faceless})
    with contextlib.ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60)) for _ in range(6)
        ]
        for connection in waiting:
            connection.sendall(head("/v1/faces", kind, len(body)) + body)
        wait_until(lambda: len(list((server.data / "jobs").iterdir())) == 6)
        began = time.monotonic()
        assert server.post("/v1/faces", portrait=face).status == 200
        picture_s = time.monotonic() - began
        assert len(list((server.data / "jobs").iterdir())) >= 4
    began = time.monotonic()
    wait_until(lambda: len(list((server.data / "jobs").iterdir())) <= 1, 3)
    wait_until(lambda: not list((server.data / "jobs").iterdir()))
    assert time.monotonic() - began < 8
    assert picture_s < 5


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
            assert ready == {"type": "ready", "width": 128, "height": 128, "fps": 25.0, "sample_rate": 8000}
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
        assert Image.open(io.BytesIO(frames[-1][12:])).size == (128, 128)
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
    workers = server.children
    with open_live(server) as first:
        first.send(START)
        first.send(face)
        assert json.loads(first.recv(60))["type"] == "ready"
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


def test_a_taken_port_and_a_taken_folder_are_told(server, tmp_path) -> None:
    command = [sys.executable, "-m", "atldiff.cli", "serve", "--live", "0", "--port"]
    for port, data, words in ((server.port, tmp_path, "cannot listen on"), (0, server.data, "another service")):
        said = subprocess.run([*command, str(port), "--data", str(data)], capture_output=True, text=True)
        assert said.returncode == 2, said.stderr
        assert words in said.stderr


def test_the_description_names_every_route(server) -> None:
    description = server.get("/openapi.json").json()
    assert set(description["paths"]) >= {"/v1/videos", "/v1/videos/{job_id}", "/health", "/metrics"}
    body = description["paths"]["/v1/videos"]["post"]["requestBody"]
    form_schema = body["content"]["multipart/form-data"]["schema"]
    assert form_schema["required"] == ["portrait"]
    assert form_schema["oneOf"] == [{"required": ["speech"]}, {"required": ["text"]}]
    assert set(form_schema["properties"]) > {"fps", "seed", "emotion", "face"}
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert b"/v1/videos/{job_id}/content" in page.body
    assert b"<script" not in page.body


@pytest.mark.skipif(not find_spec("schemathesis"), reason="needs schemathesis")
def test_the_service_keeps_to_its_description(server) -> None:
    address = f"http://127.0.0.1:{server.port}/openapi.json"
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--phases", "coverage", "--generation-database", "none", "--no-color"]
    options += ["--exclude-checks", "positive_data_acceptance", "--seed", "1", "--request-timeout", "60"]
    said = subprocess.run([program, "run", address, *options], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_a_killed_worker_takes_one_job(server, face, sound, long_sound) -> None:
    job_id = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    server.wait(job_id, "running")
    for pid in server.children:
        os.kill(pid, signal.SIGKILL)
    job = server.wait(job_id, "failed")
    assert job["problem"]["status"] == 500
    assert "signal 9" in job["problem"]["detail"]
    assert server.post("/v1/videos?wait=true", portrait=face, speech=sound, crop_only="1").status == 200
    assert figure(server, "atldiff_worker_restarts_total") >= 1
    test_a_live_session_gives_frames(server, face)


def test_a_killed_service_leaves_true_reports(server, face, sound, long_sound) -> None:
    done = queued(server.post(portrait=face, speech=sound, crop_only="1"))
    server.wait(done, "done")
    video = server.get(f"/v1/videos/{done}/content").body
    running_job, waiting = (queued(server.post(portrait=face, speech=long_sound, **SLOW)) for _ in range(2))
    server.wait(running_job, "running")
    workers = server.children
    server.stop(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    server.start()
    assert server.get(f"/v1/videos/{done}").json()["state"] == "done"
    assert server.get(f"/v1/videos/{done}/content").body == video
    for job_id in (running_job, waiting):
        job = server.get(f"/v1/videos/{job_id}").json()
        assert (job["state"], job["problem"]["status"]) == ("failed", 503)
        assert list((server.data / "jobs" / job_id).iterdir()) == []
    assert (server.data.stat().st_mode & 0o777) == 0o700

    left = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    server.wait(left, "running")
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        watching.sendall(b"GET /v1/videos/%s/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % left.encode())
        assert watching.recv(12) == b"HTTP/1.1 200"
        body, kind = form({"portrait": face, "speech": sound})
        waiting = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        waiting.sendall(head("/v1/videos?wait=true", kind, len(body)) + body)
        wait_until(lambda: figure(server, "atldiff_jobs_queued") == 1)
        began = time.monotonic()
        assert server.stop() == 143
        assert time.monotonic() - began < 4
        assert waiting.recv(12) == b"HTTP/1.1 503"
    assert any("ending" in line for line in server.log)
    with contextlib.closing(JobStore(server.data, keep_s=60)) as store:
        job = store.get(left)
        assert job is not None
        assert job.problem == {**stopped_problem().body(), "status": 503}
    said = "".join(server.log)
    assert "Traceback" not in said
    assert "faces" not in said
