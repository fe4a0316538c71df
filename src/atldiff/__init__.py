"""ATL-Diff: audio-driven talking heads. ``ATLDiffPipeline.from_pretrained()(portrait, speech).save("out.mp4")``."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atldiff.pipeline import ATLDiffPipeline, TalkingHead
    from atldiff.speech.waveform import Speech

__version__ = "0.1.0"
__all__ = ["ATLDiffPipeline", "Speech", "TalkingHead", "__version__"]

_HOMES = {
    "ATLDiffPipeline": "atldiff.pipeline",
    "TalkingHead": "atldiff.pipeline",
    "Speech": "atldiff.speech.waveform",
}


def __getattr__(name: str) -> Any:
    """Import the public classes when they are first asked for, so that ``import atldiff`` loads no torch."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'atldiff' has no attribute {name!r}")
