"""Frames of which a part changes are converted as whole ones are."""

from collections.abc import Iterator

import av
import numpy as np
import pytest

from atldiff.media.patches import PatchConverter, Patches
from atldiff.media.writer import VideoWriter


def pictures(width: int, height: int, boxes: list[tuple[int, int, int, int]]) -> Iterator[np.ndarray]:
    """Noise, and the same with boxes (left, top, width, height) of it changed."""
    rng = np.random.default_rng(1)
    still = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    yield still
    for left, top, across, down in boxes:
        picture = still.copy()
        picture[top : top + down, left : left + across] = rng.integers(0, 256, 3)
        yield picture


def planes(pixels: np.ndarray) -> np.ndarray:
    return PatchConverter("yuv420p").frame(Patches().cut(pixels)).to_ndarray()


INNER = [(100, 80, 31, 17), (97, 83, 1, 1), (60, 40, 90, 70), (100, 80, 31, 17)]
BORDERS = [(0, 0, 9, 5), (231, 0, 9, 33), (200, 150, 38, 28)]
ALL = [(0, 0, 240, 178), (100, 80, 4, 4)]


@pytest.mark.parametrize("boxes", [INNER, BORDERS, ALL], ids=["inner", "borders", "all"])
@pytest.mark.parametrize(("width", "height"), [(240, 178), (238, 180)])
def test_frames_are_those_of_whole_pictures(boxes: list, width: int, height: int) -> None:
    patches, converter = Patches(), PatchConverter("yuv420p")
    for picture in pictures(width, height, boxes):
        assert np.array_equal(converter.frame(patches.cut(picture)).to_ndarray(), planes(picture))


def test_a_patch_is_small_and_keeps_its_size() -> None:
    patches = Patches()
    whole, *cuts = (patches.cut(picture) for picture in pictures(240, 178, [(100, 80, 31, 17), (103, 82, 20, 9)]))
    assert whole.pixels.shape == (178, 240, 3)
    assert cuts[0].pixels.shape == cuts[1].pixels.shape
    assert cuts[0].pixels.size < whole.pixels.size / 4


def test_later_changes_of_a_written_picture_do_not_count(tmp_path) -> None:
    frames = list(pictures(64, 48, [(20, 20, 9, 9)]))
    held = frames[0].copy()
    for path, again in ((tmp_path / "one.mp4", False), (tmp_path / "two.mp4", True)):
        with VideoWriter(path, 64, 48, 25) as writer:
            for frame in frames * 2:
                held[:] = frame
                writer.write(held if again else frame)
                held[:] = 0
    decoded = []
    for path in sorted(tmp_path.iterdir()):
        with av.open(str(path)) as container:
            decoded.append(np.stack([frame.to_ndarray() for frame in container.decode(video=0)]))
    assert np.array_equal(decoded[0], decoded[1])
