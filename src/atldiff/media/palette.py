"""Frames in the 256 colours of a GIF, each with its own."""

from fractions import Fraction

from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame


class Palette:
    """Gives every frame the palette that fits it, dithered."""

    def __init__(self) -> None:
        self._graph: Graph | None = None

    def reduce(self, frame: VideoFrame) -> VideoFrame:
        """An rgb24 frame with 256 colours, pal8."""
        if self._graph is None:
            self._graph = _graph(frame.width, frame.height)
        frame.pts = None
        self._graph.push(frame)
        reduced = self._graph.pull()
        assert isinstance(reduced, VideoFrame)
        return reduced


def _graph(width: int, height: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1, 100))
    split = graph.add("split")
    make = graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=4")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(make, 1, 0)
    make.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
