"""ATL-Diff: audio-driven talking heads. ``ATLDiffPipeline.from_pretrained()(portrait, speech).save("out.mp4")``."""

from typing import TYPE_CHECKING, Any

from atldiff._version import __version__

if TYPE_CHECKING:
    from atldiff.dub.dubber import DubbedVideo, DubReport
    from atldiff.errors import ATLDiffError, FaceError, InputError, ModelError, OutputError
    from atldiff.live.session import LiveSession, LiveStats
    from atldiff.media.provenance import Provenance, read_provenance
    from atldiff.media.signing import SigningIdentity
    from atldiff.models.loading import PipelineConfig
    from atldiff.pipeline import ATLDiffPipeline
    from atldiff.render.dub import DubbedFile, dub_video
    from atldiff.render.video import RenderReport, render_video
    from atldiff.results import Frame, FrameStream, TalkingHead
    from atldiff.speech.waveform import Speech

_HOMES = {
    "ATLDiffError": "atldiff.errors",
    "ATLDiffPipeline": "atldiff.pipeline",
    "DubReport": "atldiff.dub.dubber",
    "DubbedFile": "atldiff.render.dub",
    "DubbedVideo": "atldiff.dub.dubber",
    "FaceError": "atldiff.errors",
    "Frame": "atldiff.results",
    "FrameStream": "atldiff.results",
    "InputError": "atldiff.errors",
    "LiveSession": "atldiff.live.session",
    "LiveStats": "atldiff.live.session",
    "ModelError": "atldiff.errors",
    "OutputError": "atldiff.errors",
    "PipelineConfig": "atldiff.models.loading",
    "Provenance": "atldiff.media.provenance",
    "RenderReport": "atldiff.render.video",
    "SigningIdentity": "atldiff.media.signing",
    "Speech": "atldiff.speech.waveform",
    "TalkingHead": "atldiff.results",
    "dub_video": "atldiff.render.dub",
    "read_provenance": "atldiff.media.provenance",
    "render_video": "atldiff.render.video",
}
"""Where the public names live."""

__all__ = [
    "ATLDiffError",
    "ATLDiffPipeline",
    "DubReport",
    "DubbedFile",
    "DubbedVideo",
    "FaceError",
    "Frame",
    "FrameStream",
    "InputError",
    "LiveSession",
    "LiveStats",
    "ModelError",
    "OutputError",
    "PipelineConfig",
    "Provenance",
    "RenderReport",
    "SigningIdentity",
    "Speech",
    "TalkingHead",
    "__version__",
    "dub_video",
    "read_provenance",
    "render_video",
]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for, so that ``import atldiff`` loads no torch."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atldiff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
