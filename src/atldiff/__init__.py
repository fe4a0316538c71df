"""ATL-Diff: audio-driven talking heads. ``ATLDiffPipeline.from_pretrained()(portrait, speech).save("out.mp4")``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atldiff.dub.dubber import DubbedVideo, DubReport
    from atldiff.dub.render import DubbedFile, dub_video
    from atldiff.errors import ATLDiffError, FaceError, InputError, ModelError, OutputError
    from atldiff.live import LiveFrame, LiveSession, LiveStats
    from atldiff.pipeline import ATLDiffPipeline, PipelineConfig
    from atldiff.provenance import Provenance, read_provenance
    from atldiff.render import RenderReport, render_video
    from atldiff.results import FrameStream, TalkingHead
    from atldiff.signing import SigningIdentity
    from atldiff.speech.waveform import Speech

__version__ = "0.1.0"

_HOMES = {
    "ATLDiffError": "atldiff.errors",
    "ATLDiffPipeline": "atldiff.pipeline",
    "DubReport": "atldiff.dub.dubber",
    "DubbedFile": "atldiff.dub.render",
    "DubbedVideo": "atldiff.dub.dubber",
    "FaceError": "atldiff.errors",
    "FrameStream": "atldiff.results",
    "InputError": "atldiff.errors",
    "LiveFrame": "atldiff.live",
    "LiveSession": "atldiff.live",
    "LiveStats": "atldiff.live",
    "ModelError": "atldiff.errors",
    "OutputError": "atldiff.errors",
    "PipelineConfig": "atldiff.pipeline",
    "Provenance": "atldiff.provenance",
    "RenderReport": "atldiff.render",
    "SigningIdentity": "atldiff.signing",
    "Speech": "atldiff.speech.waveform",
    "TalkingHead": "atldiff.results",
    "dub_video": "atldiff.dub.render",
    "read_provenance": "atldiff.provenance",
    "render_video": "atldiff.render",
}
"""Where the public names live."""

__all__ = [
    "ATLDiffError",
    "ATLDiffPipeline",
    "DubReport",
    "DubbedFile",
    "DubbedVideo",
    "FaceError",
    "FrameStream",
    "InputError",
    "LiveFrame",
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
