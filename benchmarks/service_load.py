"""Many clients at once: ``python benchmarks/service_load.py [--clients 50] [--rounds 2] [--workers 2] [--queue 8]``.

A service is started, and every client asks for a video of its own: half of them wait for it, the others watch a job.
One that is told that the queue is full asks up to ``--patience`` times. Prints JSON and a table: how every request
ended, how long it took, and the memory of the service's processes before and after each round.
"""

import argparse
import collections
import contextlib
import http.client
import json
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

_TIMEOUT_S = 900


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        sound = common.write_speech(Path(folder) / "speech.wav", arguments.seconds).read_bytes()
        with service(Path(folder) / "data", arguments) as (process, port):
            face = (common.ASSETS / "portrait.jpg").read_bytes()
            run_round(port, face, sound, 1, 1, arguments)
            memory, endings, began = [resident(process.pid)], [], time.monotonic()
            for _ in range(arguments.rounds):
                endings += run_round(port, face, sound, arguments.clients, arguments.patience, arguments)
                memory.append(resident(process.pid))
            seconds = time.monotonic() - began
            left = figures(port)
    report(arguments, endings, memory, seconds, left)


def run_round(
    port: int, face: bytes, sound: bytes, clients: int, patience: int, arguments: argparse.Namespace
) -> list[tuple[str, float]]:
    """(how it ended, seconds) of every client's request."""
    endings: list[tuple[str, float]] = []

    def client(number: int) -> None:
        began = time.monotonic()
        try:
            ending = ask(port, face, sound, number % 2 == 0, patience, arguments.crop_only)
        except Exception as error:
            ending = f"lost: {type(error).__name__}"
        endings.append((ending, time.monotonic() - began))

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return endings + [("hung", float(_TIMEOUT_S))] * (clients - len(endings))


def ask(port: int, face: bytes, sound: bytes, waits: bool, patience: int, crop_only: bool) -> str:
    path = "/v1/videos?wait=true" if waits else "/v1/videos"
    body, kind = form({"portrait": face, "speech": sound, "crop_only": str(crop_only).encode()})
    while True:
        patience -= 1
        status, headers, content = request(port, "POST", path, body, {"Content-Type": kind})
        if status != 429 or patience < 1:
            break
        time.sleep(float(headers["retry-after"]))
    if status == 202:
        return follow(port, json.loads(content)["id"])
    if status == 200:
        return "video" if is_video(content) else "lost: no video"
    return "429" if status == 429 else f"error {status}: {json.loads(content)['detail']}"


def follow(port: int, job_id: str) -> str:
    while True:
        _, _, content = request(port, "GET", f"/v1/videos/{job_id}")
        job = json.loads(content)
        if job["state"] == "failed":
            return f"error: {job['problem']['detail']}"
        if job["state"] == "done":
            _, _, video = request(port, "GET", f"/v1/videos/{job_id}/content")
            request(port, "DELETE", f"/v1/videos/{job_id}")
            return "video" if is_video(video) else "lost: no video"
        time.sleep(0.5)


def is_video(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and b"moov" in content and b"mdat" in content


def request(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def form(parts: dict[str, bytes]) -> tuple[bytes, str]:
    mark = secrets.token_hex(16)
    head = f'--{mark}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    body = b"".join((head % name).encode() + content + b"\r\n" for name, content in parts.items())
    return body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@contextlib.contextmanager
def service(data: Path, arguments: argparse.Namespace) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "atldiff.cli", "serve", "--port", "0", "--data", str(data), "--live", "0"]
    command += ["--workers", str(arguments.workers), "--queue", str(arguments.queue), "--device", arguments.device]
    command += ["--model", arguments.model] if arguments.model else []
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = None
        while found is None:
            line = process.stderr.readline()
            if not line:
                sys.exit("the service ended")
            found = re.search(r"http://[^ ]*:(\d+)", line)
        threading.Thread(target=collections.deque, args=(process.stderr, 0), daemon=True).start()
        port = int(found[1])
        while request(port, "GET", "/health")[0] != 200:
            time.sleep(0.2)
        yield process, port
    finally:
        process.terminate()
        process.wait()


def resident(pid: int) -> dict[str, int]:
    """MiB of memory of the service's own process, and of its workers together."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return {"service": _resident_mib(pid), "workers": sum(map(_resident_mib, children))}


def _resident_mib(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def figures(port: int) -> dict[str, float]:
    """What the service itself says is left, and how often a worker died."""
    _, _, text = request(port, "GET", "/metrics")
    names = ("atldiff_jobs_queued", "atldiff_jobs_running", "atldiff_worker_restarts_total")
    found = {name: re.search(rf"^{name} (.*)$", text.decode(), re.MULTILINE) for name in names}
    return {name: float(match[1]) for name, match in found.items() if match}


def report(
    arguments: argparse.Namespace,
    endings: list[tuple[str, float]],
    memory: list[dict[str, int]],
    seconds: float,
    left: dict[str, float],
) -> None:
    import torch

    counts = collections.Counter(ending for ending, _ in endings)
    result: dict[str, Any] = common.machine(torch.device("cpu" if arguments.device == "auto" else arguments.device))
    result |= {name: getattr(arguments, name) for name in ("clients", "rounds", "workers", "queue", "patience")}
    result |= {"seconds_of_speech": arguments.seconds, "took_s": round(seconds, 1), "endings": dict(counts)}
    result |= {"memory_mib": memory, "at_the_end": left}
    rows: list[tuple[object, ...]] = []
    for ending, count in counts.most_common():
        times = sorted(taken for how, taken in endings if how == ending)
        rows.append((ending, count, float(times[0]), float(times[len(times) // 2]), float(times[-1])))
    common.show(result, ("ending", "requests", "fastest, s", "median, s", "slowest, s"), rows)
    if any(ending.startswith("lost") or ending == "hung" for ending in counts):
        sys.exit("requests were lost")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clients", type=int, default=50)
    add("--rounds", type=int, default=2)
    add("--workers", type=int, default=2)
    add("--queue", type=int, default=8)
    add("--patience", type=int, default=1, help="how often a client asks before it takes 429 for an answer")
    add("--seconds", type=float, default=2.0, help="of speech")
    add("--crop-only", action="store_true")
    add("--model", help="folder of a model (default: the one in the package)")
    add("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
