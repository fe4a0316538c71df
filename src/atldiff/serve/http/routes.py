"""The routes of the API."""

from http import HTTPStatus

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import JSONResponse, Response

from atldiff._version import __version__
from atldiff.serve.fields import LIVE_OPTIONS, read_options
from atldiff.serve.http import videos
from atldiff.serve.http.requests import look, service_of
from atldiff.serve.http.schemas import Answer, Faces, Health, Limits, problems, upload_form
from atldiff.serve.http.threads import in_threads
from atldiff.serve.http.uploads import read_upload
from atldiff.serve.live.sessions import hold_session
from atldiff.serve.problems import Problem
from atldiff.serve.work.store import OFFER, PORTRAIT
from atldiff.speech.voices import voices

router = APIRouter(responses=problems(_401="no valid bearer token, where the service asks for one"))
router.include_router(videos.router)


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
    service = service_of(request)
    settings = service.settings
    with service.checker.place():
        async with in_threads(service.store.new_folder()) as upload:
            folder = service.store.job_folder(upload)
            await read_upload(request, folder, (PORTRAIT,), (), settings.max_upload_bytes, settings.upload_timeout_s)
            return Faces(**await look(request, service.checker.faces, folder))


@router.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    """A live session over a WebSocket."""
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
    service = service_of(request)
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
    settings = service_of(request).settings
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
    jobs = service_of(request).jobs
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
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
