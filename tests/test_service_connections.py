"""Connections to the service: slow, cut, idle, too many, too large; HEAD; who has gone."""

import contextlib
import re
import secrets
import socket
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from media_files import write_video
from service_server import (
    PORTRAIT_HEAD,
    SLOW,
    UPLOAD_TIMEOUT_S,
    exchange,
    figure,
    form,
    head,
    queued,
    raw_form,
    wait_until,
)

pytest.importorskip("fastapi")
pytest.importorskip("websockets")


torch.set_num_threads(1)


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


def test_a_taken_port_and_a_taken_folder_are_told(server, tmp_path) -> None:
    command = [sys.executable, "-m", "atldiff.cli", "serve", "--live", "0", "--port"]
    for port, data, words in ((server.port, tmp_path, "cannot listen on"), (0, server.data, "another service")):
        said = subprocess.run([*command, str(port), "--data", str(data)], capture_output=True, text=True)
        assert said.returncode == 2, said.stderr
        assert words in said.stderr
