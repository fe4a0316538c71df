"""The JSON of the API, for its OpenAPI description."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atldiff.serve.fields import LIVE_OPTIONS, OPTIONS
from atldiff.serve.problems import MEDIA_TYPE
from atldiff.serve.work.store import PORTRAIT, SPEECH, TEXT, VOICE, Job
from atldiff.speech.voices import DEFAULT_VOICE


class ProblemBody(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "no face found in the portrait (200×200); expected a face towards the camera",
                "field": "portrait",
            }
        },
    )

    type: str = "about:blank"
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What came and what was expected.")
    field: str | None = Field(None, description="Name of the field of the request that is at fault.")


class JobProgress(BaseModel):
    """How far a running job is."""

    frames_done: int
    frames: int


class Result(BaseModel):
    """A finished video."""

    frames: int
    fps: float
    duration_s: float = Field(description="Length of the speech in seconds.")
    emotion: str = Field(description="The expression on the face.")
    seconds: float = Field(description="Time that the work took.")
    bytes: int = Field(description="Size of the file.")
    warnings: list[str] = Field([], description="What will not have turned out well, and why.")
    dubbed: int | None = Field(None, description="Frames with another mouth, with mode=dub.")
    left: dict[str, int] | None = Field(None, description="Frames that were left as they are, by reason.")


_VIDEO = {
    "id": "q5ZbWmRk3vXc0TtYh8LpAg",
    "state": "done",
    "created_at": "2026-01-31T12:00:00Z",
    "started_at": "2026-01-31T12:00:01Z",
    "finished_at": "2026-01-31T12:00:05Z",
    "expires_at": "2026-02-01T12:00:05Z",
    "position": None,
    "progress": None,
    "options": {"emotion": "happy", "seed": 3},
    "result": {
        "frames": 30,
        "fps": 25.0,
        "duration_s": 1.2,
        "emotion": "happy",
        "seconds": 3.412,
        "bytes": 123456,
        "warnings": ["the head is turned aside; faces towards the camera give better videos"],
    },
    "problem": None,
}


class Video(BaseModel):
    """A job: a video that waits, is being made, is done, or could not be made."""

    model_config = ConfigDict(json_schema_extra={"example": _VIDEO})

    id: str
    state: Literal["queued", "running", "done", "failed"]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None = Field(description="When a job that has ended will be removed.")
    position: int | None = Field(description="Place in the queue, from 1.")
    progress: JobProgress | None
    options: dict[str, Any] = Field(description="The options that were given.")
    result: Result | None
    problem: ProblemBody | None = Field(description="Why it failed.")

    @classmethod
    def of(cls, job: Job) -> "Video":
        """What the API says of a job."""
        progress = None
        if job.frames_done is not None and job.frames is not None:
            progress = JobProgress(frames_done=job.frames_done, frames=job.frames)
        return cls(
            id=job.id,
            state=job.state,  # pyright: ignore[reportArgumentType]
            created_at=datetime.fromtimestamp(job.created_at, UTC),
            started_at=_time(job.started_at),
            finished_at=_time(job.finished_at),
            expires_at=_time(job.expires_at),
            position=job.position,
            progress=progress,
            options=job.options,
            result=None if job.result is None else Result(**job.result),
            problem=None if job.problem is None else ProblemBody(**job.problem),
        )


class Videos(BaseModel):
    """Jobs, the newest first."""

    videos: list[Video]


class Face(BaseModel):
    """The box around a face's landmarks, in pixels of the portrait."""

    number: int = Field(description="From 1 at the left; what the option `face` takes.")
    x: float
    y: float
    width: float
    height: float


class Faces(BaseModel):
    """The faces in a portrait."""

    width: int = Field(description="Of the portrait in pixels, turned as its EXIF data says.")
    height: int
    faces: list[Face]
    warnings: list[str] = Field([], description="What will not turn out well, and why.")


class Landmarks(BaseModel):
    """The landmarks that the frames of a video were made from, in pixels of the frame."""

    width: int = Field(description="Of the frames in pixels, before an odd one loses its last.")
    height: int
    fps: float
    landmarks: list[list[tuple[float, float]]] = Field(
        description="For each frame the 68 points (x, y) of iBUG 300-W; the first pixel spans 0 to 1. None "
        "of a frame that dubbing leaves as it is."
    )


class Answer(BaseModel):
    """What answers a WebRTC offer."""

    type: Literal["answer"]
    sdp: str


class Limits(BaseModel):
    """What the service takes."""

    max_upload_bytes: int = Field(description="Of a whole request.")
    max_duration_s: float = Field(description="Of the speech.")
    max_pixels: int = Field(description="Of the portrait.")
    voices: list[str] = Field(description="That can say a text; none where the service has no text to speech.")


class Health(BaseModel):
    """Whether videos can be made now."""

    status: Literal["ok", "starting", "failing"]
    version: str
    detail: str | None = Field(None, description="Why not, where it is failing.")


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def problems(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, ``problems(_404="no such video")``, for its OpenAPI description."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}
    return {int(name[1:]): {"description": text, "content": content} for name, text in descriptions.items()}


def upload_form(*files: str, options: bool = False, text: bool = False, live: bool = False) -> dict[str, Any]:
    """The multipart form of an upload, as OpenAPI: with the options of a video, and a ``text`` that may be in the
    place of the speech, or with those of a live session."""
    binary = {"type": "string", "format": "binary"}
    parts: dict[str, Any] = {
        "portrait": binary | {"description": "A picture, or a video with a face in it; its bytes say what it is."},
        "offer": binary | {"description": "SDP of a WebRTC offer, with all of its candidates."},
        "speech": binary | {"description": "A sound file, or a video with sound; its bytes say what it is."},
    }
    properties = {name: parts[name] for name in files}
    known = OPTIONS if options else LIVE_OPTIONS if live else {}
    properties |= {name: option.schema for name, option in known.items()}
    schema = {
        "type": "object",
        "required": list(files),
        "properties": properties,
        "additionalProperties": False,
    }
    if text:
        schema["required"] = [PORTRAIT]
        schema["oneOf"] = [{"required": [SPEECH]}, {"required": [TEXT]}]
        properties[TEXT] = {"type": "string", "minLength": 1, "description": "What is to be said, instead of speech."}
        properties[VOICE] = {"type": "string", "default": DEFAULT_VOICE, "description": "That says the text."}
        properties["webhook"] = {"type": "string", "format": "uri", "description": "Is told of the end."}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
