"""The badge can be read in every frame of the written file, whatever the size and whatever is behind it."""

import av
import numpy as np
import pytest

from atldiff.cli import main
from atldiff.errors import InputError
from atldiff.media.badge import TEXTS, Badge
from atldiff.media.provenance import INTACT, read_provenance
from atldiff.media.writer import VideoWriter

SIZES = [(64, 48), (128, 128), (65, 51), (256, 256), (640, 360), (360, 640), (1024, 1024)]


def background(kind: str, width: int, height: int, seed: int) -> np.ndarray:
    if kind == "noise":
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.full((height, width, 3), {"black": 0, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("kind", ["black", "white", "noise"])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_is_readable_in_every_frame(tmp_path, width, height, kind):
    path = tmp_path / "out.mp4"
    with VideoWriter(path, width, height, 25, badge=True) as writer:
        for seed in range(3):
            writer.write(background(kind, width, height, seed))
    badge = Badge(width // 2 * 2, height // 2 * 2)
    letters = badge._added[..., 0] / 255
    assert letters.shape[0] >= 12
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3
    for frame in frames:
        seen = frame[badge.top : badge.top + letters.shape[0], badge.left : badge.left + letters.shape[1]].mean(2)
        assert np.corrcoef(seen.ravel(), letters.ravel())[0, 1] > 0.85
        white, box = luminance(seen[letters > 0.9].mean()), luminance(seen[letters < 0.1].mean())
        assert (white + 0.05) / (box + 0.05) > 4.5, "WCAG 2.2, success criterion 1.4.3"
    assert read_provenance(path).state == INTACT


def luminance(value: float) -> float:
    """Relative luminance of a grey of 0 to 255 (sRGB)."""
    share = value / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def test_it_stays_in_its_corner_and_spares_the_frame():
    frame = background("noise", 512, 512, 0)
    before = frame.copy()
    marked = Badge(512, 512).draw(frame)
    assert np.array_equal(frame, before)
    rows, columns = np.nonzero((marked != before).any(axis=2))
    assert rows.max() < 512 * 0.1
    assert columns.min() > 512 * 0.5


def test_large_frames_have_the_long_text():
    widths = [Badge(size, size)._added.shape[1] for size in (128, 512)]
    assert widths[1] > 4 * widths[0]
    assert len(TEXTS) == 2


def test_frames_without_room(tmp_path):
    with pytest.raises(InputError, match="too small for a badge"):
        VideoWriter(tmp_path / "out.mp4", 32, 24, 25, badge=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_draws_it(tmp_path, tiny_model, portrait, word):
    pictures = []
    for name, more in (("plain", []), ("badged", ["--badge"])):
        path = tmp_path / f"{name}.mp4"
        options = ["--model", str(tiny_model), "--crop-only", "--fps", "5", "--device", "cpu", *more]
        inputs = ["--portrait", str(portrait), "--speech", str(word), "-o", str(path)]
        assert main(["generate", "-q", *inputs, *options]) == 0
        assert read_provenance(path).state == INTACT
        with av.open(str(path)) as container:
            pictures.append(next(container.decode(video=0)).to_ndarray(format="rgb24"))
    badge = Badge(128, 128)
    different = np.abs(pictures[0].astype(int) - pictures[1]).max(axis=2) > 40
    rows, columns = np.nonzero(different)
    assert rows.size
    assert rows.max() <= badge.top + badge._added.shape[0] + 2
    assert columns.min() >= badge.left - 2
