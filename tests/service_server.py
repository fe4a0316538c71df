"""A service in a process of its own, and the plainest client for it."""

import contextlib
import http.client
import io
import json
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import av

PLAIN = ("-m", "atldiff.cli")
FORKING = (str(Path(__file__).with_name("forked_workers.py")),)
"""Programs: ``atldiff`` as it is, and with workers that are there sooner."""

START_S = 120.0
MAX_UPLOAD_MIB, MAX_DURATION_S, MAX_MEGAPIXELS = 2, 6, 2
UPLOAD_TIMEOUT_S = 4
SLOW = {"fps": "120", "steps": "64"}
"""Options with which the long sentence takes far longer than any test."""

PORTRAIT_HEAD = b'Content-Disposition: form-data; name="portrait"\r\n\r\n'


@dataclass
class Reply:
    """An answer: status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """``atldiff serve``, or another verb, as a process; :meth:`start` may be called again after its end."""

    data: Path
    arguments: list[str]
    verb: str = "serve"
    program: tuple[str, ...] = FORKING
    log: list[str] = field(default_factory=list)
    port: int = 0

    def start(self) -> Self:
        command = [sys.executable, *self.program, self.verb, "--port", "0", "--data", str(self.data)]
        self.process = subprocess.Popen([*command, *self.arguments], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serving on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()
        deadline = time.monotonic() + START_S
        while self.get("/health").status != 200:
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def children(self) -> list[int]:
        """Process numbers of the workers, the oldest first: those for videos are started after that for checks."""
        own = children_of(self.process.pid)
        forking = (pid for pid in own if b"multiprocessing.forkserver" in cmdline(pid))
        forked = [worker for pid in forking for worker in children_of(pid)]
        return sorted([*forked, *(pid for pid in own if b"spawn_main" in cmdline(pid))], key=started)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Reply:
        return self.request("GET", path, None, headers)

    def post(self, path: str = "/v1/videos", **parts: bytes | str) -> Reply:
        body, kind = form(parts)
        return self.request("POST", path, body, {"Content-Type": kind})

    def wait(self, job_id: str, *states: str, timeout_s: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        while (job := self.get(f"/v1/videos/{job_id}").json())["state"] not in states:
            assert time.monotonic() < deadline, job
            time.sleep(0.05)
        return job


@contextlib.contextmanager
def running(data: Path, *arguments: str, verb: str = "serve", program: tuple[str, ...] = FORKING) -> Iterator[Server]:
    server = Server(data, list(arguments), verb, program)
    try:
        yield server.start()
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def guarded(folder: Path, model: Path, token: str, *arguments: str, verb: str = "serve") -> Iterator[Server]:
    """One with a model that asks for a token; its data and its tokens lie in ``folder``."""
    (folder / "tokens").write_text(token)
    given = ["--model", str(model), "--device", "cpu", "--token-file", str(folder / "tokens")]
    with running(folder / "data", *given, *arguments, verb=verb) as server:
        yield server


@contextlib.contextmanager
def limited(data: Path, model: Path, program: tuple[str, ...] = FORKING) -> Iterator[Server]:
    """One with small limits, one worker, and room for one who waits."""
    limits = ["--max-upload", str(MAX_UPLOAD_MIB), "--max-duration", str(MAX_DURATION_S)]
    limits += ["--max-pixels", str(MAX_MEGAPIXELS), "--upload-timeout", str(UPLOAD_TIMEOUT_S)]
    limits += ["--workers", "1", "--queue", "1"]
    with running(data, "--model", str(model), "--device", "cpu", *limits, program=program) as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line]


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def started(pid: int) -> int:
    """When a process was started, clock ticks after the machine (field 22 of proc_pid_stat(5)); 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return 0


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def form(parts: Mapping[str, bytes | str], boundary: str = "") -> tuple[bytes, str]:
    """A multipart body and its content type; bytes are sent as files, texts as fields."""
    boundary = boundary or secrets.token_hex(16)
    body = b""
    for name, value in parts.items():
        file = '; filename="../../etc/passwd"' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def frames_of(video: bytes) -> int:
    with av.open(io.BytesIO(video)) as container:
        assert container.streams.audio
        return sum(1 for _ in container.decode(video=0))


def queued(reply) -> str:
    assert reply.status == 202, reply.body
    assert reply.headers["location"] == f"/v1/videos/{reply.json()['id']}"
    return reply.json()["id"]


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


def assert_refused(server: Server, reply, field: str | None, status: int = 422) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    assert (problem["status"], problem.get("field")) == (status, field)
    assert len(problem["detail"]) > 10
    assert str(server.data) not in problem["detail"]
    assert list((server.data / "jobs").iterdir()) == []


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


def raw_form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end
