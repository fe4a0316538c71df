"""The routes of videos: one is asked for, waited for, fetched and forgotten."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from atldiff.serve.fields import MODES, OPTIONS, read_options
from atldiff.serve.http.requests import look, service_of
from atldiff.serve.http.schemas import Landmarks, Video, Videos, problems, upload_form
from atldiff.serve.http.threads import in_threads
from atldiff.serve.http.uploads import read_upload
from atldiff.serve.http.waiting import check_done, events_of, job_of, unknown_job, video_file, wait_for_video
from atldiff.serve.http.webhooks import WEBHOOK
from atldiff.serve.problems import Problem
from atldiff.serve.work.spoken_text import keep_text
from atldiff.serve.work.store import ID_PATTERN, LANDMARKS, PORTRAIT, PREVIEW, SPEECH, TEXT, VOICE

router = APIRouter()

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
    service = service_of(request)
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
        await look(request, service.checker.check, folder, *asked)
        await run_in_threadpool(service.jobs.submit, job_id, options, request.state.owner, webhook)
    if wait:
        return await wait_for_video(request, service, job_id)
    job = await run_in_threadpool(job_of, service, job_id)
    location = {"Location": f"{request.scope.get('root_path', '')}/v1/videos/{job_id}"}
    return JSONResponse(Video.of(job).model_dump(mode="json"), HTTPStatus.ACCEPTED, headers=location)


@router.get("/v1/videos", tags=["videos"], summary="Your jobs", responses=problems(_422="no such limit"))
def list_videos(
    request: Request, limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20
) -> Videos:
    """The jobs that were made with the same token, or without one, the newest first."""
    jobs = service_of(request).jobs.newest(request.state.owner, limit)
    return Videos(videos=[Video.of(job) for job in jobs])


@router.get(
    "/v1/videos/{job_id}",
    tags=["videos"],
    summary="How a job is doing",
    responses=problems(_404="no such job; it may have expired", _422="not the number of a job"),
)
def get_video(request: Request, job_id: JobId) -> Video:
    """The state of a job: its place in the queue, its progress, its result, or why it failed."""
    return Video.of(job_of(service_of(request), job_id))


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
    service = service_of(request)
    check_done(service, job_id)
    return video_file(service, job_id)


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
    service = service_of(request)
    check_done(service, job_id)
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
    service = service_of(request)
    job = job_of(service, job_id)
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
    if not service_of(request).jobs.delete(job_id):
        raise unknown_job()
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
    service = service_of(request)
    await run_in_threadpool(job_of, service, job_id)
    return StreamingResponse(events_of(request, job_id), media_type="text/event-stream")
