"""Parts of the service by themselves: tokens, settings, the queue, the checker, the description of the API."""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from media_files import write_video

pytest.importorskip("fastapi")

from anyio import to_thread
from fastapi import FastAPI, Request

from atldiff.cli import serve as verb
from atldiff.errors import InputError, OutputError
from atldiff.serve.http.guard import Guard
from atldiff.serve.http.reference import reference_page
from atldiff.serve.http.requests import look
from atldiff.serve.http.routes import get_health
from atldiff.serve.http.service import Service
from atldiff.serve.live.sessions import LivePool, _Session
from atldiff.serve.metrics import Metrics
from atldiff.serve.problems import Problem, problem_of
from atldiff.serve.settings import ServeSettings, default_data_folder, read_tokens
from atldiff.serve.work.checker import Checker
from atldiff.serve.work.jobs import JobQueue
from atldiff.serve.work.processes import WorkerSetup
from atldiff.serve.work.store import FAILED, FINAL, PORTRAIT, SPEECH, Job, JobStore

TOKEN = "0123456789abcdef"


def status_of(settings: ServeSettings, path: str = "/metrics", kind: str = "http", **headers: str) -> int:
    """What a request gets that passes the guard to an application that answers 200, or accepts the socket."""
    sent = []

    async def app(scope, receive, send) -> None:
        answer = {"type": "http.response.start", "status": 200, "headers": []}
        await send({"type": "websocket.accept"} if kind == "websocket" else answer)

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": kind, "method": "GET", "path": path, "headers": [(b"host", b"localhost:80"), *pairs]}
    asyncio.run(Guard(app, settings, Metrics())(scope, receive, send))
    return sent[0].get("status", 101 if sent[0]["type"] == "websocket.accept" else 403)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"authorization": f"Bearer {TOKEN}0"}, 401),
        ({"authorization": "Bearer \xff\xfe"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 200),
        ({"authorization": f"bearer  {TOKEN[::-1]}"}, 200),
    ],
)
def test_tokens_let_in(tmp_path, header, status) -> None:
    settings = ServeSettings(tmp_path, tokens=(TOKEN, TOKEN[::-1]))
    assert status_of(settings, **header) == status
    assert status_of(settings, "/health", **header) == 200


def test_a_browser_names_the_token_beside_the_subprotocol(tmp_path) -> None:
    settings = ServeSettings(tmp_path, tokens=(TOKEN,))
    assert status_of(settings, "/v1/live", "websocket", sec_websocket_protocol=f"atldiff.live, bearer.{TOKEN}") == 101
    assert status_of(settings, "/v1/live", "websocket", sec_websocket_protocol="atldiff.live, bearer.x") == 403
    assert status_of(settings, "/v1/live", "websocket") == 403


def test_one_request_too_many_is_told_so(tmp_path) -> None:
    """Four requests of which none is answered, where two are taken."""
    answers: list[dict] = []

    async def app(scope, receive, send) -> None:
        await asyncio.Event().wait()

    async def receive() -> dict:
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message) -> None:
        answers.append(message)

    async def ask() -> None:
        guard = Guard(app, ServeSettings(tmp_path, max_connections=2), Metrics())
        fields = [(b"host", b"localhost"), (b"content-length", b"9")]
        scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": fields}
        requests = [asyncio.create_task(guard(dict(scope), receive, send)) for _ in range(4)]
        finished, waiting = await asyncio.wait(requests, timeout=0.5)
        assert (len(finished), len(waiting)) == (2, 2)
        for request in waiting:
            request.cancel()

    asyncio.run(ask())
    start, body = answers[:2]
    headers = dict(start["headers"])
    assert (start["status"], headers[b"retry-after"], headers[b"connection"]) == (503, b"1", b"close")
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert b"at 2 requests at once" in body["body"]


def test_the_reference_marks_code_as_such() -> None:
    answers = {"200": {"description": "See `id`."}}
    get = {"summary": "Get", "description": "With `wait=true` <it>.", "responses": answers}
    page = reference_page({"info": {"title": "T", "version": "1", "description": "D"}, "paths": {"/a": {"get": get}}})
    assert "With <code>wait=true</code> &lt;it&gt;." in page
    assert "See <code>id</code>." in page
    assert "`" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"queue": -1}, "queue is -1"),
        ({"keep_s": float("inf")}, "keep_s is inf"),
        ({"job_timeout_s": float("nan")}, "job_timeout_s is nan"),
        ({"tokens": ("short",)}, "token is too short"),
        ({"tokens": ("é" * 20,)}, "token is too short or not plain"),
    ],
)
def test_settings_are_checked(tmp_path, change, words) -> None:
    with pytest.raises(InputError, match=words):
        ServeSettings(tmp_path, **change)


def test_tokens_come_from_a_file_and_the_environment(tmp_path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\n\n  second-token-here  \n")
    assert read_tokens(path, "third, fourth,") == ("third", "fourth", TOKEN, "second-token-here")
    assert read_tokens(None, "") == ()
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_tokens(path, "")
    with pytest.raises(InputError, match="cannot be read"):
        read_tokens(tmp_path / "none", "")


def test_errors_of_workers_become_problems_without_paths() -> None:
    folder = Path("/srv/data/jobs/x")
    told = problem_of(InputError(f"{folder / PORTRAIT} is empty"), "portrait", {folder / PORTRAIT: "the portrait"})
    assert (told.status, told.field, told.detail) == (422, "portrait", "the portrait is empty")
    assert problem_of(OutputError("disk full")).status == 507
    assert problem_of(MemoryError()).detail == "the work needed more memory than there is"
    fault = problem_of(ZeroDivisionError("secret"))
    assert (fault.status, "secret" in fault.detail + fault.log) == (500, False)


def test_the_command_line_becomes_settings(tmp_path, monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(
        "atldiff.serve.http.server.run_server", lambda *given: seen.update(zip("shp", given, strict=True))
    )
    monkeypatch.setenv(verb.TOKENS_VARIABLE, TOKEN)
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    verb.add_arguments(parser)
    verb.run(parser.parse_args(["--data", str(tmp_path), "--max-upload", "1", "--allow-host", "Studio.example"]))
    settings = seen["s"]
    assert (settings.max_upload_bytes, settings.tokens, settings.device) == (2**20, (TOKEN,), "cpu")
    assert settings.allowed_hosts == ("localhost", "127.0.0.1", "[::1]", "127.0.0.1", "studio.example")
    assert (seen["h"], seen["p"]) == ("127.0.0.1", 8000)
    with pytest.raises(InputError, match="no model 'nowhere'"):
        verb.run(parser.parse_args(["--model", "nowhere"]))
    assert default_data_folder().parts[-2:] == ("atldiff", "serve")
    assert os.environ[verb.TOKENS_VARIABLE] == TOKEN


@contextlib.contextmanager
def queue(folder: Path, model: str, **changes: float) -> Iterator[tuple[JobQueue, JobStore]]:
    settings = ServeSettings(folder, model=model, device="cpu", queue=2, **changes)
    store, setup = JobStore(folder, keep_s=60), WorkerSetup(model, "cpu", 1, 60.0, 10**7, None)
    jobs = JobQueue(settings, store, setup, Metrics())
    jobs.start()
    try:
        yield jobs, store
    finally:
        jobs.stop()
        store.close()


def ended(jobs: JobQueue, job_id: str) -> Job:
    """The job when it is done or has failed."""
    changed = threading.Event()
    with jobs.listening(job_id, changed.set):
        while (job := jobs.get(job_id)) is not None and job.state not in FINAL:
            changed.clear()
            assert changed.wait(60)
    assert job is not None
    return job


def test_a_job_that_takes_too_long_is_stopped(tmp_path, tiny_model, portrait, speech) -> None:
    with queue(tmp_path, str(tiny_model), job_timeout_s=1.5) as (jobs, store):
        with jobs.place() as job_id:
            shutil.copy(portrait, store.job_folder(job_id) / PORTRAIT)
            shutil.copy(speech, store.job_folder(job_id) / SPEECH)
            jobs.submit(job_id, {"fps": 120.0, "steps": 64})
        job = ended(jobs, job_id)
        assert (job.state, job.problem and job.problem["status"]) == (FAILED, 504)
        with jobs.place() as waiting:
            jobs.submit(waiting, {})
        assert jobs.delete(waiting)
        assert jobs.get(waiting) is None


def test_where_no_worker_can_start_nothing_waits_for_ever(tmp_path) -> None:
    with queue(tmp_path, str(tmp_path / "nowhere")) as (jobs, _):
        with jobs.place() as job_id:
            jobs.submit(job_id, {})
        job = ended(jobs, job_id)
        assert (job.state, job.problem and job.problem["status"]) == (FAILED, 503)
        assert jobs.fault is not None
        assert "no model" in str(jobs.fault)
        with pytest.raises(Problem, match="no worker process can start"), jobs.place():
            pass


def faceless(path: Path) -> None:
    """A video of which the search for a face takes some seconds."""
    write_video(path.with_suffix(".mp4"), np.full((105, 640, 640, 3), 128, np.uint8), 10).rename(path)


def test_a_picture_waits_for_no_video_and_nobody_for_one_who_has_gone(tmp_path, portrait) -> None:
    """Two ask about a video of which the search takes some seconds, another about a picture."""
    video, picture = tmp_path / "video", tmp_path / "picture"
    video.mkdir()
    picture.mkdir()
    faceless(video / PORTRAIT)
    shutil.copy(portrait, picture / PORTRAIT)
    checker = Checker(WorkerSetup("", "cpu", 1, 60.0, 10**7, None), timeout_s=60.0)
    checker.start()
    stays, gone = threading.Event(), threading.Event()
    try:
        assert len(checker.faces(picture, stays)["faces"]) == 1
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(checker.faces, video, stays)
            time.sleep(0.3)
            second = threads.submit(checker.faces, video, gone)
            assert len(checker.faces(picture, stays)["faces"]) == 1
            gone.set()
            with pytest.raises(Problem, match="nobody waits"):
                second.result(timeout=2)
            assert not first.done()
            with pytest.raises(Problem, match="no face in 13 frames from the first 10 s of the portrait"):
                first.result(timeout=60)
            checker.stop()
            with pytest.raises(Problem, match="the service ended"):
                checker.faces(picture, stays)
    finally:
        checker.stop()


def test_the_death_of_a_process_between_checks_is_no_fault_of_the_next(tmp_path, portrait) -> None:
    shutil.copy(portrait, tmp_path / PORTRAIT)
    checker = Checker(WorkerSetup("", "cpu", 1, 60.0, 10**7, None), timeout_s=60.0)
    checker.start()
    try:
        for _ in range(2):
            assert len(checker.faces(tmp_path, threading.Event())["faces"]) == 1
            for process in multiprocessing.active_children():
                process.kill()
    finally:
        checker.stop()


def test_a_check_that_takes_too_long_is_given_up(tmp_path) -> None:
    faceless(tmp_path / PORTRAIT)
    checker = Checker(WorkerSetup("", "cpu", 1, 60.0, 10**7, None), timeout_s=0.5)
    try:
        with pytest.raises(Problem, match=r"could not be read within 0\.5 s"):
            checker.faces(tmp_path, threading.Event())
    finally:
        checker.stop()


def test_the_service_itself_loads_no_model_code() -> None:
    code = "import sys, atldiff.serve.http.server; sys.exit('torch' in sys.modules or 'mediapipe' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """As many files are open as this process may have: no pipe, no process."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) - 1, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def wait_until(is_true: Callable[[], object], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_that_the_system_has_no_room_for_are_started_later(tmp_path, tiny_model) -> None:
    settings = ServeSettings(tmp_path, model=str(tiny_model), device="cpu")
    setup = WorkerSetup(str(tiny_model), "cpu", 1, 60.0, 10**7, None)
    store, metrics = JobStore(tmp_path, keep_s=60), Metrics()
    jobs, pool = JobQueue(settings, store, setup, metrics), LivePool(settings, setup, metrics, store.live_folder)
    try:
        with no_more_files():
            jobs.start()
            wait_until(lambda: jobs.fault)
            assert "no worker process can be started" in str(jobs.fault)
            assert jobs.ailment.endswith("the service's log says why")
            for _ in range(2):
                with pytest.raises(Problem, match="no worker process can be started"):
                    pool.take()
        wait_until(lambda: jobs.can_work)
        assert jobs.ailment == ""
    finally:
        jobs.stop()
        pool.stop()
        store.close()


def test_a_slot_whose_session_ran_out_of_time_is_free_again(tmp_path, tiny_model) -> None:
    pool = LivePool(
        ServeSettings(tmp_path), WorkerSetup(str(tiny_model), "cpu", 1, 60.0, 10**7, None), Metrics(), tmp_path
    )

    async def run_out_of_time() -> None:
        async with asyncio.timeout(0.2):
            await _Session(None, pool)._take()  # pyright: ignore[reportArgumentType]

    try:
        with pytest.raises(TimeoutError):
            asyncio.run(run_out_of_time())
        with pytest.raises(Problem, match="all live sessions are taken"):
            pool.take()
        wait_until(lambda: pool._free)
        pool.give_back(pool.take(), is_usable=True)
    finally:
        pool.stop()


def test_health_and_uploads_wait_for_no_thread_of_others(tmp_path) -> None:
    """All threads that answer requests are taken."""
    service = Service(ServeSettings(tmp_path))
    app = FastAPI()
    app.state.service, app.state.ending = service, asyncio.Event()
    request = Request({"type": "http", "app": app, "headers": []}, lambda: asyncio.Event().wait())  # pyright: ignore

    async def ask() -> tuple[int, str]:
        limiter = to_thread.current_default_thread_limiter()
        for _ in range(int(limiter.total_tokens)):
            limiter.acquire_on_behalf_of_nowait(object())
        async with asyncio.timeout(5):
            health = await get_health(request)
            return health.status_code, await look(request, lambda abandoned: "looked")

    try:
        assert asyncio.run(ask()) == (503, "looked")
    finally:
        service.store.close()
