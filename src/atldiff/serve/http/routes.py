"""The routes of the API."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, WebSocket
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from atldiff._version import __version__
from atldiff.serve.fields import LIVE_OPTIONS, MODES, OPTIONS, read_options
from atldiff.serve.http.schemas import (
    Answer,
    Faces,
    Health,
    Landmarks,
    Limits,
    ProblemBody,
    Video,
    Videos,
    problems,
    upload_form,
)
from atldiff.serve.http.threads import in_threads
from atldiff.serve.http.uploads import read_upload
from atldiff.serve.http.webhooks import WEBHOOK
from atldiff.serve.live.sessions import hold_session
from atldiff.serve.problems import Problem
from atldiff.serve.service import Service
from atldiff.serve.work.spoken_text import keep_text
from atldiff.serve.work.store import (
    DONE,
    FINAL,
    ID_PATTERN,
    LANDMARKS,
    OFFER,
    PORTRAIT,
    PREVIEW,
    SPEECH,
    TEXT,
    VIDEO,
    VOICE,
    Job,
    stopped_problem,
)
from atldiff.speech.voices import voices

_HEARTBEAT_S = 15.0
_DISCONNECT_LOOK_S = 1.0
_MP4 = {"video/mp4": {"schema": {"type": "string", "format": "binary"}}}
_JPEG = {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}

_OF_A_FILE: dict[int | str, dict[str, Any]] = {416: {"description": "The file has no such range."}} | problems(
    _400="the range header is malformed",
    _404="no such job; it may have expired",
    _409="the job is not done, or has failed",
    _422="not the number of a job",
)

JobId = Annotated[str, Path(description="Number of the job, as its creation gave it.", pattern=ID_PATTERN)]

router = APIRouter(responses=problems(_401="no valid bearer token, where the service asks for one"))


def _service(request: Request) -> Service:
    return request.app.state.service


@router.post(
    "/v1/videos",
    status_code=HTTPStatus.ACCEPTED,
    tags=["videos"],
    summary="Make a video",
    openapi_extra=upload_form(PORTRAIT, SPEECH, options=True, text=True),
    response_model=Video,
    responses={
        200: {"description": "The video, with wait=true.", "content": _MP4},
        202: {"description": "The job is queued; Location says where to ask for it."},
    }
    | problems(
        _400="the body is no complete form",
        _408="the body came too slowly",
        _410="the job was deleted while this request waited for it",
        _413="the body is too large",
        _415="the body is no form",
        _422="a file or an option cannot be used; `field` says which",
        _429="the queue is full; Retry-After says when to come again",
        _500="the worker failed at it",
        _503="the service is ending, or cannot start its workers",
        _504="it took too long to make",
        _507="no room to store it",
    ),
)
async def create_video(
    request: Request,
    wait: Annotated[bool, Query(description="Answer with the mp4 itself, when it is finished.")] = False,
) -> Response:
    """Upload a portrait and speech, or a text that a voice says, and get a job, or with `wait=true` the mp4 itself.

    With `mode=dub` the portrait is a video that keeps its motion, and says something else.
    Both are looked at before the job is queued: what cannot be used is refused at once. A client that hangs up
    while it waits has its job deleted.
    """
    service = _service(request)
    settings = service.settings
    async with in_threads(service.jobs.place()) as job_id:
        folder = service.store.job_folder(job_id)
        fields = await read_upload(
            request,
            folder,
            (PORTRAIT, SPEECH),
            (*OPTIONS, VOICE, WEBHOOK),
            settings.max_upload_bytes,
            settings.upload_timeout_s,
            texts={SPEECH: TEXT},
        )
        keep_text(fields, folder)
        webhook = fields.pop(WEBHOOK, "") or None
        if webhook is not None:
            if wait:
                raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "got wait and webhook; expected one of them", WEBHOOK)
            service.webhooks.check(webhook)
        options = read_options(fields)
        asked = options.get("face"), options.get("audio_track"), options.get("mode") == MODES[1]
        await _look(request, service.checker.check, folder, *asked)
        await run_in_threadpool(service.jobs.submit, job_id, options, request.state.owner, webhook)
    if wait:
        return await _wait_for(request, service, job_id)
    job = await run_in_threadpool(_job, service, job_id)
    location = {"Location": f"{request.scope.get('root_path', '')}/v1/videos/{job_id}"}
    return JSONResponse(Video.of(job).model_dump(mode="json"), HTTPStatus.ACCEPTED, headers=location)


@router.get("/v1/videos", tags=["videos"], summary="Your jobs", responses=problems(_422="no such limit"))
def list_videos(
    request: Request, limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20
) -> Videos:
    """The jobs that were made with the same token, or without one, the newest first."""
    jobs = _service(request).jobs.newest(request.state.owner, limit)
    return Videos(videos=[Video.of(job) for job in jobs])


@router.get(
    "/v1/videos/{job_id}",
    tags=["videos"],
    summary="How a job is doing",
    responses=problems(_404="no such job; it may have expired", _422="not the number of a job"),
)
def get_video(request: Request, job_id: JobId) -> Video:
    """The state of a job: its place in the queue, its progress, its result, or why it failed."""
    return Video.of(_job(_service(request), job_id))


@router.get(
    "/v1/videos/{job_id}/content",
    tags=["videos"],
    summary="The mp4",
    response_class=FileResponse,
    responses={
        200: {"description": "The whole file.", "content": _MP4},
        206: {"description": "The range that was asked for.", "content": _MP4},
    }
    | _OF_A_FILE,
)
def get_content(request: Request, job_id: JobId) -> FileResponse:
    """The finished video, H.264 and AAC; ranges are served."""
    service = _service(request)
    _finished(service, job_id)
    return _file(service, job_id)


@router.get(
    "/v1/videos/{job_id}/landmarks",
    tags=["videos"],
    summary="The landmarks of the frames",
    response_class=FileResponse,
    responses={
        200: {"description": "The whole file.", "model": Landmarks},
        206: {"description": "The range that was asked for.", "content": {"application/json": {}}},
    }
    | _OF_A_FILE,
)
def get_landmarks(request: Request, job_id: JobId) -> FileResponse:
    """Where the 68 points of the face lie in each frame of a finished video; ranges are served."""
    service = _service(request)
    _finished(service, job_id)
    path = service.store.job_folder(job_id) / LANDMARKS
    if not path.is_file():
        raise Problem(HTTPStatus.NOT_FOUND, "this video was made before landmarks were kept")
    return FileResponse(path, media_type="application/json")


@router.get(
    "/v1/videos/{job_id}/preview",
    tags=["videos"],
    summary="The first frame",
    response_class=Response,
    responses={200: {"description": "A picture of at most 1024 pixels a side.", "content": _JPEG}}
    | problems(
        _404="no such job; it may have expired",
        _409="no frame is finished yet, or the job has failed",
        _422="not the number of a job",
    ),
)
def get_preview(request: Request, job_id: JobId) -> Response:
    """The first frame as a JPEG, as soon as `progress` counts one."""
    service = _service(request)
    job = _job(service, job_id)
    try:
        picture = (service.store.job_folder(job_id) / PREVIEW).read_bytes()
    except FileNotFoundError as error:
        raise Problem(HTTPStatus.CONFLICT, f"the job is {job.state} and has no frame to show") from error
    return Response(picture, media_type="image/jpeg")


@router.delete(
    "/v1/videos/{job_id}",
    status_code=HTTPStatus.NO_CONTENT,
    tags=["videos"],
    summary="Stop and forget a job",
    responses=problems(_404="no such job; it may have expired", _422="not the number of a job"),
)
def delete_video(request: Request, job_id: JobId) -> Response:
    """Remove a job and all of its files; if it is being made, the work is stopped at once."""
    if not _service(request).jobs.delete(job_id):
        raise _unknown()
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.get(
    "/v1/videos/{job_id}/events",
    tags=["videos"],
    summary="Progress as server-sent events",
    response_class=StreamingResponse,
    responses={200: {"description": "The stream.", "content": _EVENTS}}
    | problems(_404="no such job; it may have expired", _422="not the number of a job"),
)
async def get_events(request: Request, job_id: JobId) -> StreamingResponse:
    """An event at each change, at most ten a second: `queued`, `running`, and at the end `done`, `failed` or
    `deleted`. The data of each is the job as JSON, of `deleted` its number alone."""
    service = _service(request)
    await run_in_threadpool(_job, service, job_id)
    return StreamingResponse(_events(request, job_id), media_type="text/event-stream")


@router.post(
    "/v1/faces",
    tags=["faces"],
    summary="Find the faces in a portrait",
    openapi_extra=upload_form(PORTRAIT),
    responses=problems(
        _400="the body is no complete form",
        _408="the body came too slowly",
        _413="the body is too large",
        _415="the body is no form",
        _422="the portrait cannot be used",
        _429="too many ask at once; Retry-After says when to come again",
        _503="the service is ending, or cannot start its workers",
        _507="no room to store the upload",
    ),
)
async def find_faces(request: Request) -> Faces:
    """Whether a portrait can be used, and where its faces are; nothing of it is kept."""
    service = _service(request)
    settings = service.settings
    with service.checker.place():
        async with in_threads(service.store.new_folder()) as upload:
            folder = service.store.job_folder(upload)
            await read_upload(request, folder, (PORTRAIT,), (), settings.max_upload_bytes, settings.upload_timeout_s)
            return Faces(**await _look(request, service.checker.faces, folder))


@router.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    await hold_session(socket, socket.app.state.service.live)


@router.post(
    "/v1/live/offer",
    status_code=HTTPStatus.CREATED,
    tags=["live"],
    summary="Begin a live session over WebRTC",
    openapi_extra=upload_form(PORTRAIT, OFFER, live=True),
    responses=problems(
        _400="the body is no complete form",
        _404="live sessions are turned off",
        _408="the body came too slowly",
        _413="the body is too large",
        _415="the body is no form",
        _422="the offer, the portrait or an option cannot be used; `field` says which",
        _500="the worker failed at it",
        _501="the service was installed without WebRTC",
        _503="all sessions are taken, or the service is ending",
        _507="no room to store the upload",
    ),
)
async def offer_live(request: Request) -> Answer:
    """Send an offer (SDP with all candidates) and a portrait, get the answer; the session goes on from there.

    Audio that comes is said by the face; a data channel takes texts. docs/service.md says how.
    """
    service = _service(request)
    settings = service.settings
    sessions = service.webrtc
    if sessions is None:
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, 'no WebRTC here; expected pip install "atldiff[webrtc]"')
    async with in_threads(service.store.new_folder()) as upload:
        folder = service.store.job_folder(upload)
        fields = await read_upload(
            request, folder, (PORTRAIT, OFFER), LIVE_OPTIONS, settings.max_upload_bytes, settings.upload_timeout_s
        )
        options = read_options(fields, LIVE_OPTIONS)
        offer = (folder / OFFER).read_bytes().decode("utf-8", "replace")
        return Answer(type="answer", sdp=await sessions.answer(offer, folder / PORTRAIT, options))


@router.get("/v1/limits", tags=["service"], summary="What the service takes")
def get_limits(request: Request) -> Limits:
    """How large a request, how long a speech and how large a portrait may be."""
    settings = _service(request).settings
    return Limits(
        max_upload_bytes=settings.max_upload_bytes,
        max_duration_s=settings.max_duration_s,
        max_pixels=settings.max_pixels,
        voices=voices(),
    )


@router.get(
    "/health",
    tags=["service"],
    summary="Whether videos can be made now",
    responses={503: {"description": "They cannot.", "model": Health}, 401: {"description": "Never."}},
)
async def get_health(request: Request) -> Response:
    """`ok` with status 200, or `starting` or `failing` with 503. Needs no token, and waits for no other request."""
    jobs = _service(request).jobs
    state = "failing" if jobs.ailment else "ok" if jobs.can_work else "starting"
    health = Health(status=state, version=__version__, detail=jobs.ailment or None)
    return JSONResponse(health.model_dump(), HTTPStatus.OK if state == "ok" else HTTPStatus.SERVICE_UNAVAILABLE)


@router.get(
    "/metrics",
    tags=["service"],
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}},
)
def get_metrics(request: Request) -> Response:
    """Jobs, frames, workers, requests, live sessions, and the process itself."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _ending(request: Request) -> asyncio.Event:
    return request.app.state.ending


async def _look(request: Request, check: Callable[..., Any], *arguments: Any) -> Any:
    """What a check of the uploads says; it is abandoned where the client goes, or the service ends."""
    abandoned, ending = threading.Event(), _ending(request)
    watches = [asyncio.create_task(watch) for watch in (_until_gone(request), ending.wait())]
    for watch in watches:
        watch.add_done_callback(lambda _: abandoned.set())
    try:
        limiter = _service(request).checks
        return await anyio.to_thread.run_sync(check, *arguments, abandoned, limiter=limiter)
    except Problem as problem:
        if ending.is_set():
            raise stopped_problem() from problem
        raise
    finally:
        for watch in watches:
            watch.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unknown() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "no such job; it may have expired")


def _job(service: Service, job_id: str) -> Job:
    job = service.jobs.get(job_id)
    if job is None:
        raise _unknown()
    return job


def _finished(service: Service, job_id: str) -> None:
    state = _job(service, job_id).state
    if state != DONE:
        raise Problem(HTTPStatus.CONFLICT, f"the job is {state}; expected a job that is done")


def _file(service: Service, job_id: str, after: BackgroundTask | None = None) -> FileResponse:
    path = service.store.job_folder(job_id) / VIDEO
    return FileResponse(
        path, media_type="video/mp4", filename=VIDEO, content_disposition_type="inline", background=after
    )


async def _wait_for(request: Request, service: Service, job_id: str) -> Response:
    """The video when it is finished; nobody else knows of the job, so it is deleted after that."""
    delete = BackgroundTask(service.jobs.delete, job_id)
    try:
        async for job in _changes(request, job_id, _DISCONNECT_LOOK_S):
            if job is None:
                if await request.is_disconnected():
                    raise Problem(HTTPStatus.GONE, "the client has gone")
            elif job.state == DONE:
                return _file(service, job_id, delete)
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


async def _events(request: Request, job_id: str) -> AsyncIterator[str]:
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
    changed, ending, jobs = asyncio.Event(), _ending(request), _service(request).jobs
    tell = partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)
    watch = asyncio.create_task(ending.wait())
    watch.add_done_callback(lambda _: changed.set())
    try:
        with jobs.listening(job_id, tell):
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
