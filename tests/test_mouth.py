"""The mouth as a layer: exact edges, rigid teeth, the portrait's light, nothing where lips touch."""

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from atldiff.face.crop import FaceCrop
from atldiff.face.places import crop_places, crop_to_image
from atldiff.image.lips import sealed_lips, shut_lips
from atldiff.image.mouth.atlas import EXTENT_MM, make_atlas
from atldiff.image.mouth.geometry import MouthGeometry, edge_coefficients, edge_height
from atldiff.image.mouth.light import mouth_light
from atldiff.image.mouth.own import OwnTeeth, PortraitReader
from atldiff.image.mouth.painter import MouthPainter
from atldiff.image.mouth.settle import settle_lips
from atldiff.image.warp import thin_plate_flow
from atldiff.motion.rest import closing_displacement
from face_shapes import open_face

torch.set_num_threads(1)

SCALE = 4
"""Pixels of the test's portraits to a crop pixel."""

LOWER_FACE = [65, 66, 67, 55, 56, 57, 58, 59, 7, 8, 9]
SKIN, LIPS, WHITE = (0.80, 0.62, 0.52), (0.62, 0.34, 0.32), (0.86, 0.85, 0.83)


def closed_face() -> np.ndarray:
    return open_face() + closing_displacement(open_face())


def inner_edge(landmarks: np.ndarray, nodes: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) portrait pixels along the smooth inner edge of a lip, from the right corner to the left."""
    along = torch.linspace(0, 1, 60, dtype=torch.float64)
    height = edge_height(edge_coefficients(torch.from_numpy(landmarks)[None], nodes), along[None, None])[0, 0]
    x = landmarks[60, 0] + along.numpy() * (landmarks[64, 0] - landmarks[60, 0])
    return SCALE * np.stack([x, landmarks[60, 1] + height.numpy()], axis=1)


def portrait(landmarks: np.ndarray, teeth: bool = False) -> np.ndarray:
    """(512, 512, 3) uint8: skin, whites of the eyes, lips, a dark seam; with ``teeth`` white ones with dark gaps."""
    picture = Image.new("RGB", (128 * SCALE,) * 2, level_of(SKIN))
    draw = ImageDraw.Draw(picture)
    for points, colour in ((slice(36, 42), WHITE), (slice(42, 48), WHITE), (slice(48, 60), LIPS)):
        draw.polygon([tuple(SCALE * place) for place in landmarks[points]], fill=level_of(colour))
    upper, lower = (inner_edge(landmarks, nodes) for nodes in ((61, 62, 63), (67, 66, 65)))
    if teeth:
        draw.polygon([tuple(place) for place in (*upper, *lower[::-1])], fill=level_of(WHITE))
        top, bottom = upper[:, 1].min(), lower[:, 1].max()
        for x in np.arange(SCALE * 64 - 24, SCALE * 64 + 25, 12):
            draw.line([(x, top + 6), (x, bottom - 6)], fill=(70, 60, 60), width=2)
    else:
        draw.line([tuple(place) for place in upper], fill=(60, 30, 30), width=2)
    return np.asarray(picture)


def level_of(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * level) for level in colour)
    return red, green, blue


def painted(picture: np.ndarray, own: np.ndarray, frames: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """The portrait with its mouth as in ``frames``, (F, 68, 2) crop pixels → (F, H, W, 3) in [0, 1]."""
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    crop = FaceCrop(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]))
    geometry = MouthGeometry(own)
    points = torch.from_numpy(frames).float()
    made = image.repeat(len(frames), 1, 1, 1)
    flow = thin_plate_flow(torch.from_numpy(own)[None], points, 128)
    MouthPainter(image, image, crop, geometry).paint(made, flow, geometry.shapes(points))
    return made.permute(0, 2, 3, 1).numpy()


def opened(own: np.ndarray, amounts: list[float]) -> np.ndarray:
    """The face with its lower lip and chin so many crop pixels lower."""
    frames = np.repeat(own[None], len(amounts), axis=0)
    frames[:, LOWER_FACE, 1] += np.array(amounts)[:, None]
    return frames


def between_lips(frame: np.ndarray, landmarks: np.ndarray, inset: float = 1.0) -> np.ndarray:
    """(n, 3) the pixels inside the inner lips."""
    rows, columns = (np.mgrid[0 : frame.shape[0], 0 : frame.shape[1]] + 0.5) / SCALE
    points = torch.from_numpy(landmarks)[None]
    along = (columns - landmarks[60, 0]) / (landmarks[64, 0] - landmarks[60, 0])
    ways = torch.from_numpy(along.clip(0, 1))[None]
    top, bottom = (
        landmarks[60, 1] + edge_height(edge_coefficients(points, nodes), ways)[0].numpy()
        for nodes in ((61, 62, 63), (67, 66, 65))
    )
    inside = (rows > top + inset) & (rows < bottom - inset) & (along > 0.1) & (along < 0.9)
    return frame[inside]


def test_the_edge_runs_through_its_points_and_is_sharp_at_the_corners() -> None:
    points = torch.from_numpy(open_face())[None]
    for nodes in ((61, 62, 63), (67, 66, 65)):
        coefficients = edge_coefficients(points, nodes)
        along = (points[0, list(nodes), 0] - points[0, 60, 0]) / (points[0, 64, 0] - points[0, 60, 0])
        height = edge_height(coefficients, along[None, None])[0, 0]
        assert torch.allclose(points[0, 60, 1] + height, points[0, list(nodes), 1], atol=1e-6)
        near = edge_height(coefficients, torch.tensor([[[0.0, 1e-3, 1.0]]], dtype=torch.float64))[0, 0]
        assert near[0] == near[2] == 0 and abs(float(near[1])) > 1e-3


def test_shut_lips_show_nothing_of_the_layer() -> None:
    face = closed_face()
    frames = np.repeat(face[None], 3, axis=0)
    frames[:, :, 0] += np.array([0.0, 1.0, -2.0])[:, None]
    picture = portrait(face)
    made = painted(picture, face, frames)
    colours = portrait_colours(picture)
    assert np.abs(made[0] - picture / 255).max() < 0.01
    for frame in made:
        assert frame.reshape(-1, 3).max(axis=0) == pytest.approx(colours.max(axis=0), abs=0.02)
        window = frame[320:420, 170:350]
        assert window.min() > 0.1


def portrait_colours(picture: np.ndarray) -> np.ndarray:
    return picture.reshape(-1, 3) / 255


def test_lips_that_touched_open_onto_dark_and_teeth_at_once() -> None:
    face = closed_face()
    (frame,) = painted(portrait(face), face, opened(face, [6.0]))
    inside = between_lips(frame, opened(face, [6.0])[0], inset=0.3).mean(axis=1)
    cheek = np.mean(SKIN)
    # four in five of 50 people's mouths with gaps of 7 to 13 mm: 0.64 to 1.27, and 0.08 to 0.48
    assert 0.64 * cheek < np.percentile(inside, 95) < 1.27 * cheek
    assert 0.08 * cheek < np.percentile(inside, 5) < 0.35 * cheek
    lips = np.array(LIPS)
    stretched = np.abs(between_lips(frame, opened(face, [6.0])[0]) - lips).max(axis=1) < 0.04
    assert stretched.mean() < 0.1


def test_the_opening_grows_smoothly_from_nothing() -> None:
    face = closed_face()
    frames = painted(portrait(face), face, opened(face, [0.0, 0.2, 0.4, 0.8, 1.6, 3.2]))
    changes = [float(np.abs(frame - frames[0])[340:420, 200:310].mean()) for frame in frames]
    assert changes == sorted(changes)
    assert changes[1] < 0.1 * changes[-1]


def test_upper_teeth_stay_with_the_skull_whatever_the_lips_do() -> None:
    face = open_face()
    random = np.random.default_rng(0)
    frames = np.repeat(face[None], 100, axis=0)
    frames[:, LOWER_FACE, 1] += random.uniform(0.5, 4, (100, 1))
    frames[:, [60, 48], 0] += random.uniform(0, 2, (100, 1))
    frames[:, [64, 54], 0] -= random.uniform(0, 2, (100, 1))
    head = random.uniform(-3, 3, (100, 1, 2))
    frames = frames + head
    made = painted(portrait(face, teeth=True), face, frames)
    found = []
    for frame, (shift,) in zip(made, head, strict=True):
        row = round(SCALE * (86.0 + shift[1]))
        columns = np.arange(round(SCALE * (62.5 + shift[0])), round(SCALE * (65.5 + shift[0])))
        dark = (0.9 - frame[row, columns].mean(axis=1)).clip(0) ** 2
        found.append((dark * (columns + 0.5)).sum() / dark.sum() - SCALE * shift[0])
    assert np.abs(np.array(found) - np.median(found)).max() < 0.5


def test_teeth_keep_their_width_as_the_mouth_narrows() -> None:
    face = open_face()
    narrow = face.copy()
    narrow[48:68, 0] = 64 + 0.7 * (narrow[48:68, 0] - 64)
    wide_frame, narrow_frame = painted(portrait(face, teeth=True), face, np.stack([face, narrow]))

    def distance(frame: np.ndarray) -> float:
        row = frame[SCALE * 86, SCALE * 57 : SCALE * 71].mean(axis=1)
        gaps = [
            place
            for place in range(1, len(row) - 1)
            if row[place] < 0.6 and row[place] <= row[place - 1 : place + 2].min()
        ]
        return float(np.median(np.diff([gap for gap in gaps if row[gap] < 0.6][::2] or gaps)))

    assert distance(narrow_frame) == pytest.approx(distance(wide_frame), rel=0.05)


def tinted(picture: np.ndarray, kind: str) -> np.ndarray:
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    light = {
        "grey": grey,
        "dark": picture * 0.15,
        "blue": picture * np.array([0.35, 0.5, 1.0]),
        "orange": picture * np.array([1.0, 0.55, 0.2]),
        "sepia": grey * np.array([1.0, 0.86, 0.66]),
        "faded": 120 + picture * 0.4,
    }[kind]
    return light.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["grey", "dark", "blue", "orange", "sepia", "faded"])
def test_nothing_is_lit_but_as_the_portrait_is(kind: str) -> None:
    face = closed_face()
    picture = tinted(portrait(face), kind)
    frames = opened(face, [4.0, 9.0])
    made = painted(picture, face, frames)
    brightest = picture.mean(axis=2).max() / 255
    skin = picture[200, 256] / 255
    for frame, landmarks in zip(made, frames, strict=True):
        inside = between_lips(frame, landmarks)
        assert inside.mean(axis=1).max() <= brightest + 0.02
        teeth = inside[inside.mean(axis=1) > np.percentile(inside.mean(axis=1), 90)].mean(axis=0)
        if kind == "grey":
            assert np.ptp(inside, axis=1).max() < 0.01
        if kind in ("blue", "orange", "sepia"):
            own, expected = (colorsys.rgb_to_hsv(*colour) for colour in (teeth, skin))
            assert abs(own[0] - expected[0]) < 0.08 and own[1] > 0.3 * expected[1]


def test_the_shadow_between_the_lips_goes_as_they_part() -> None:
    face = closed_face()
    even = np.full_like(portrait(face), 150)
    frames = opened(face, [0.0, 1.0, 4.0, 8.0])
    made = painted(even, face, frames)
    column = round(SCALE * face[62, 0])
    light = []
    for frame, landmarks in zip(made, frames, strict=True):
        above, below = (round(SCALE * landmarks[number, 1]) for number in (62, 66))
        light.append((frame[above - 6 : above - 2, column].mean(), frame[below + 2 : below + 6, column].mean()))
    upper, lower = np.array(light).T * 255 / 150
    assert np.allclose([upper[0], lower[0]], 1, atol=0.01)
    assert (np.diff(lower) >= -1e-3).all() and 1.1 < lower[-1] < 1.25
    assert 1 < upper[-1] < lower[-1]
    assert np.allclose(made[-1][round(SCALE * frames[-1][8, 1]) - 4, column], 150 / 255, atol=0.01)


def test_what_is_painted_is_the_same_at_another_resolution() -> None:
    face = closed_face()
    frames = opened(face, [6.0])
    picture = portrait(face)
    fine = painted(picture, face, frames)[0]
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(picture.copy()).permute(2, 0, 1).float(), 2)
    coarse = painted(small.round().byte().permute(1, 2, 0).numpy(), face, frames, scale=2)[0]
    reduced = torch.nn.functional.avg_pool2d(torch.from_numpy(fine).permute(2, 0, 1), 2).permute(1, 2, 0).numpy()
    assert np.abs(reduced - coarse)[150:220, 90:170].mean() < 0.03


def test_frames_are_painted_alike_one_by_one_and_together() -> None:
    face = closed_face()
    frames = opened(face, [0.0, 2.0, 7.0])
    together = painted(portrait(face), face, frames)
    for number in range(3):
        alone = painted(portrait(face), face, frames[number : number + 1])[0]
        assert np.abs(alone - together[number]).max() < 1e-4


def test_a_portrait_of_closed_lips_has_its_points_on_their_seam() -> None:
    face = closed_face()
    picture = portrait(face)
    rough = face.copy()
    rough[[61, 62, 63], 1] -= 0.9
    rough[[65, 66, 67], 1] -= 0.4
    settled = settle_lips(picture, SCALE * rough) / SCALE
    assert np.abs(settled[[61, 62, 63], 1] - settled[[67, 66, 65], 1]).max() < 0.1
    assert np.abs(settled[[61, 62, 63], 1] - face[[61, 62, 63], 1]).max() < 0.3
    untouched = [point for point in range(68) if point not in (61, 62, 63, 65, 66, 67)]
    assert np.allclose(settled[untouched], rough[untouched], atol=1e-3)


def test_parted_lips_have_their_points_where_their_colour_ends() -> None:
    face = open_face()
    rough = face.copy()
    rough[[61, 62, 63], 1] -= 0.8
    rough[[65, 66, 67], 1] += 0.8
    settled = settle_lips(portrait(face, teeth=True), SCALE * rough) / SCALE
    before, after = (np.abs(points[61:68, 1] - face[61:68, 1]).max() for points in (rough, settled))
    assert after < 0.5 * before


def test_the_hidden_is_drawn_at_any_size_without_gaps() -> None:
    face = closed_face()
    for scale in (0.5, 1, 3):
        side = round(128 * scale)
        image = torch.full((3, side, side), 0.6)
        atlas = make_atlas(image, FaceCrop(np.array([[scale, 0, 0], [0, scale, 0]], float)), MouthGeometry(face))
        assert atlas.upper.shape == atlas.lower.shape and bool(torch.isfinite(atlas.upper).all())
        middle = atlas.upper.shape[2] // 2
        assert float(atlas.upper[3, :, middle].max()) > 0.9
        assert atlas.upper.shape[2] / atlas.upper.shape[1] == pytest.approx(
            2 * EXTENT_MM[0] / (EXTENT_MM[1] + EXTENT_MM[2]), rel=0.05
        )


def wide_face() -> np.ndarray:
    face = open_face()
    face[65:68, 1] += 3
    return face


def smile(landmarks: np.ndarray, end: float, below: tuple[float, float, float], line: bool = False) -> np.ndarray:
    """A portrait whose upper teeth end at a share of the way between its lips; what is seen below them."""
    picture = Image.fromarray(portrait(landmarks))
    draw = ImageDraw.Draw(picture)
    upper, lower = (inner_edge(landmarks, nodes) for nodes in ((61, 62, 63), (67, 66, 65)))
    bite = upper + end * (lower - upper)
    draw.polygon([tuple(place) for place in (*upper, *lower[::-1])], fill=level_of(below))
    draw.polygon([tuple(place) for place in (*upper, *bite[::-1])], fill=level_of(WHITE))
    if line:
        draw.line([tuple(place) for place in bite], fill=level_of((0.6, 0.58, 0.55)), width=2)
    return np.asarray(picture)


def own_teeth(picture: np.ndarray, landmarks: np.ndarray) -> OwnTeeth:
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    crop = FaceCrop(np.array([[SCALE, 0.0, 0.0], [0.0, SCALE, 0.0]]))
    light = mouth_light(image, torch.from_numpy(SCALE * landmarks))
    return PortraitReader(image, crop, MouthGeometry(landmarks)).own_teeth(light)


DARK = (0.12, 0.08, 0.08)


@pytest.mark.parametrize("end", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("below", ["dark", "a line and lower teeth"])
def test_upper_teeth_end_where_the_dark_or_the_lower_ones_begin(end: float, below: str) -> None:
    face = wide_face()
    touching = below != "dark"
    own = own_teeth(smile(face, end, WHITE if touching else DARK, line=touching), face)
    assert own.upper is not None
    assert own.upper.usual_end == pytest.approx(end, abs=0.06)
    if touching and end < 0.7:
        assert own.lower is not None and own.lower.usual_end == pytest.approx(1 - end, abs=0.06)
    else:
        assert own.lower is None
    assert own.upper.shown[20:-20].min() > 0.9
    assert own.tooth_3 is not None and np.allclose(own.tooth_3, WHITE, atol=0.03)
    assert (own.dark_3 is None) == touching


def test_some_columns_that_were_misread_do_not_bend_a_row() -> None:
    face = wide_face()
    picture = smile(face, 0.6, DARK)
    middle = round(SCALE * face[62, 0])
    spoiled = picture.copy()
    row = round(SCALE * face[62:67:4, 1].mean())
    spoiled[row : row + 14, middle - 6 : middle + 6] = level_of(WHITE)
    before, after = (own_teeth(each, face).upper for each in (picture, spoiled))
    assert before is not None and after is not None
    assert np.abs(after.end - before.end).max() * 8 < 1.5


def test_lips_alone_are_not_teeth() -> None:
    face = wide_face()
    own = own_teeth(smile(face, 0.5, DARK) // 3, face)
    assert own.upper is not None, "a dim picture has teeth as well"
    own = own_teeth(portrait(face), face)
    assert own.upper is None and own.lower is None and own.tooth_3 is None


def test_own_teeth_go_on_under_the_lip_that_hid_them() -> None:
    face = wide_face()
    frames = np.repeat(face[None], 2, axis=0)
    frames[1, [50, 51, 52, 61, 62, 63], 1] -= 2
    rest, raised = painted(smile(face, 0.6, DARK), face, frames)
    x = round(SCALE * face[62, 0])
    rows = slice(round(SCALE * (frames[1, 62, 1] + 0.8)), round(SCALE * (face[62, 1] + 1.5)))
    assert raised[rows, x].min() > 0.6
    assert rest[rows.start, x, 1] < 0.5
    assert raised[round(SCALE * face[66, 1]) - 6, x, 1] < 0.4


@pytest.fixture(scope="module")
def bundled() -> Path:
    import atldiff

    return Path(atldiff.__file__).parent / "assets" / "portrait.jpg"


def test_settling_leaves_the_bundled_portrait_within_reach(bundled: Path) -> None:
    from atldiff.face.detection import FaceDetector
    from atldiff.face.portrait import select_face

    picture = np.asarray(Image.open(bundled).convert("RGB"))
    with FaceDetector() as detector:
        landmarks, _ = select_face(picture, detector, None)
    moved = settle_lips(picture, landmarks) - landmarks
    assert np.abs(moved).max() < 0.05 * np.linalg.norm(landmarks[45] - landmarks[36])
    assert np.allclose(moved[:60], 0, atol=1e-3)


def test_lips_that_come_together_leave_no_teeth_on_them() -> None:
    face = open_face()
    face[65:68, 1] += 3
    scale = SCALE
    wider = face.copy()
    wider[[61, 62, 63], 1] -= 0.8
    wider[[65, 66, 67], 1] += 0.8
    picture = portrait(wider, teeth=True)
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    crop = FaceCrop(np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]))
    places, to_image = (each(crop, 128 * scale, 128 * scale).float() for each in (crop_places, crop_to_image))
    given = (image, places, to_image)
    frames = torch.from_numpy(np.stack([face, face + closing_displacement(face)])).float()
    flow = thin_plate_flow(torch.from_numpy(face)[None], frames, 128)
    geometry = MouthGeometry(face)
    teeth = []
    for sealed in (None, sealed_lips(*given, geometry)):
        made = image.repeat(2, 1, 1, 1)
        MouthPainter(shut_lips(*given, face), image, crop, geometry, sealed_3HW=sealed).paint(
            made, flow, geometry.shapes(frames)
        )
        mouth = made[:, :, 300:420, 190:320]
        teeth.append((mouth.amin(dim=1) > 0.7).flatten(1).float().mean(dim=1))
    assert torch.equal(teeth[0][:1], teeth[1][:1])
    assert teeth[0][1] > 0.01 and teeth[1][1] < 0.2 * teeth[0][1]


def test_only_parted_lips_are_sealed() -> None:
    steps = torch.arange(128) + 0.5
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1)
    to_image = torch.tensor([[2 / 128, 0.0, -1.0], [0.0, 2 / 128, -1.0]])
    image = torch.rand(3, 128, 128)
    assert sealed_lips(image, places, to_image, MouthGeometry(closed_face())) is None
    parted = open_face()
    parted[65:68, 1] += 3
    assert sealed_lips(image, places, to_image, MouthGeometry(parted)) is not None
