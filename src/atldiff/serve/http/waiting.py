"""A job for those who wait for it: its changes, its events, its video."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from functools import partial
from http import HTTPStatus

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from atldiff.serve.http.requests import ending_of, service_of
from atldiff.serve.http.schemas import ProblemBody, Video
from atldiff.serve.http.service import Service
from atldiff.serve.problems import Problem
from atldiff.serve.work.store import DONE, FINAL, VIDEO, Job, stopped_problem

_HEARTBEAT_S = 15.0
"""Seconds without an event after which one is sent that keeps the connection open."""

_DISCONNECT_LOOK_S = 1.0
"""Seconds between two looks at whether anybody is still listening."""


def unknown_job() -> Problem:
    """Why a request for a job that is not there fails."""
    return Problem(HTTPStatus.NOT_FOUND, "no such job; it may have expired")


def job_of(service: Service, job_id: str) -> Job:
    """A job by its number. Raises Problem: there is none."""
    job = service.jobs.get(job_id)
    if job is None:
        raise unknown_job()
    return job


def check_done(service: Service, job_id: str) -> None:
    """Raise Problem for a job that is not done."""
    state = job_of(service, job_id).state
    if state != DONE:
        raise Problem(HTTPStatus.CONFLICT, f"the job is {state}; expected a job that is done")


def video_file(service: Service, job_id: str, after: BackgroundTask | None = None) -> FileResponse:
    """The answer that sends a job's video; ``after`` is done when it was sent."""
    path = service.store.job_folder(job_id) / VIDEO
    return FileResponse(
        path, media_type="video/mp4", filename=VIDEO, content_disposition_type="inline", background=after
    )


async def wait_for_video(request: Request, service: Service, job_id: str) -> Response:
    """The video when it is finished; nobody else knows of the job, so it is deleted after that."""
    delete = BackgroundTask(service.jobs.delete, job_id)
    try:
        async for job in _changes(request, job_id, _DISCONNECT_LOOK_S):
            if job is None:
                if await request.is_disconnected():
                    raise Problem(HTTPStatus.GONE, "the client has gone")
            elif job.state == DONE:
                return video_file(service, job_id, delete)
            elif job.problem is not None:
                problem = ProblemBody(**job.problem)
                raise Problem(problem.status, problem.detail, problem.field)
    except _Ending as error:
        await delete()
        raise stopped_problem() from error
    except BaseException:
        await delete()
        raise
    raise Problem(HTTPStatus.GONE, "the job was deleted")


async def events_of(request: Request, job_id: str) -> AsyncIterator[str]:
    """A job's states as server-sent events, to its end."""
    with contextlib.suppress(_Ending):
        async for job in _changes(request, job_id, _HEARTBEAT_S):
            if job is None:
                yield ": waiting\n\n"
            else:
                yield f"event: {job.state}\ndata: {Video.of(job).model_dump_json()}\n\n"
                if job.state in FINAL:
                    return
        yield f"event: deleted\ndata: {json.dumps({'id': job_id})}\n\n"


class _Ending(Exception):
    """The service ends."""


async def _changes(request: Request, job_id: str, patience_s: float) -> AsyncIterator[Job | None]:
    """The job now and at each change, None where it has not changed for a while; ends when it is deleted.

    Raises:
        _Ending: the service ends.
    """
    changed, ending, jobs = asyncio.Event(), ending_of(request), service_of(request).jobs
    wake = partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)
    watch = asyncio.create_task(ending.wait())
    watch.add_done_callback(lambda _: changed.set())
    try:
        with jobs.listening(job_id, wake):
            while True:
                changed.clear()
                if ending.is_set():
                    raise _Ending
                job = await run_in_threadpool(jobs.get, job_id)
                if job is None:
                    return
                yield job
                while not changed.is_set():
                    try:
                        await asyncio.wait_for(changed.wait(), patience_s)
                    except TimeoutError:
                        yield None
    finally:
        watch.cancel()
