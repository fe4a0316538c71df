"""The light in which a portrait's mouth lies: nothing that is made may be lit otherwise.

Teeth and tongue take their colour and level from the skin around the mouth and from the whites of the eyes: of a grey
portrait they are grey, under orange light orange, in a dark picture dark.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

_SKIN_SPOTS = (
    (48, 4, 0.45),
    (41, 48, 0.45),
    (48, 31, 0.5),
    (54, 12, 0.45),
    (46, 54, 0.45),
    (54, 35, 0.5),
    (57, 8, 0.6),
)
"""Where skin near the mouth is read: a share of the way from one landmark to another."""

_RIGHT_SPOTS, _LEFT_SPOTS = slice(0, 3), slice(3, 6)
_LIT_QUANTILE = 0.65
"""Which of the spots counts, from the darkest to the brightest: beards and shadows are darker than skin."""

_SPOT_SHARE = 0.035
"""Half the width of such a spot as a share of the distance of the outer eye corners."""

_TOOTH_LEVEL = 1.25
"""Luma of a front tooth over that of the skin around the mouth: between the lips of 59 people who talk the brightest
twentieth is 1.23 times as bright as their cheeks in the median, the darkest 0.25 times."""

_TOOTH_CHROMA = 0.52
_SKIN_CHROMA = 0.33
"""How far the colour of teeth goes from grey to that of the skin, and how far skin in white light is from grey: what
is beyond that is the light's colour, which teeth take up whole."""

_MOUTH_MARGIN = 0.15
"""How far around the mouth its blur is read, as a share of its width and height."""

_USUAL_BLUR, _LEAST_SLOPE = 0.5, 0.01
"""Standard deviation in pixels where it cannot be read: the picture is too small, or its steepest slopes, in levels a
pixel, are nothing."""

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class MouthLight:
    """Colours in [0, 1], as the picture has them.

    Attributes:
        skin_3: of the skin around the mouth where light falls on it.
        tooth_3: of a front tooth in the open.
        gum_3: of gums and tongue in the open.
        sides: light on the right and on the left of the picture's mouth over the mean.
        blur: standard deviation of the picture's blur, its pixels.
    """

    skin_3: torch.Tensor
    tooth_3: torch.Tensor
    gum_3: torch.Tensor
    sides: tuple[float, float]
    blur: float


def luma(colours_3: torch.Tensor) -> torch.Tensor:
    """Rec. 601 luma of colours (3, …) → (…)."""
    red, green, blue = _LUMA
    return red * colours_3[0] + green * colours_3[1] + blue * colours_3[2]


def mouth_light(image_3HW: torch.Tensor, landmarks_K2: torch.Tensor) -> MouthLight:
    """Read the light of a picture.

    Args:
        image_3HW: in [0, 1].
        landmarks_K2: (68, 2) of the face, pixels of the picture.
    """
    eyes = float((landmarks_K2[45] - landmarks_K2[36]).norm())
    spots = [landmarks_K2[a] + share * (landmarks_K2[b] - landmarks_K2[a]) for a, b, share in _SKIN_SPOTS]
    colours = torch.stack([_median_colour(image_3HW, spot, _SPOT_SHARE * eyes) for spot in spots], dim=1)
    order = luma(colours).argsort()
    middle = round(_LIT_QUANTILE * (len(order) - 1))
    skin = colours[:, order[middle - 1 : middle + 2]].mean(dim=1)
    level = float(luma(skin))
    lips = [landmarks_K2[[a, b]].mean(dim=0) for a, b in ((57, 66), (58, 67), (56, 65))]
    lip = torch.stack([_median_colour(image_3HW, spot, 0.6 * _SPOT_SHARE * eyes) for spot in lips], 1).mean(dim=1)
    white = _eye_white(image_3HW, landmarks_K2)
    tooth = max(_TOOTH_LEVEL * level, min(0.95 * white, 2.2 * level))
    tint = skin / max(level, 1e-3)
    chroma = 1 - (1 - _TOOTH_CHROMA) * min(1.0, _SKIN_CHROMA / max(float((tint - 1).norm()), 1e-3))
    sides = [float(luma(colours[:, each]).mean()) for each in (_RIGHT_SPOTS, _LEFT_SPOTS)]
    mean = max(sum(sides) / 2, 1e-3)
    limits = [min(max(0.3 + 0.7 * side / mean, 0.55), 1.25) for side in sides]
    return MouthLight(
        skin_3=skin,
        tooth_3=(tooth * (1 + chroma * (tint - 1))).clamp(0, 1),
        gum_3=(0.5 * lip + 0.5 * skin * (lip / skin.clamp_min(1e-3)).clamp(0.4, 1.1)).clamp(0, 1),
        sides=(limits[0], limits[1]),
        blur=_blur(image_3HW, landmarks_K2),
    )


def _median_colour(image_3HW: torch.Tensor, place_2: torch.Tensor, half: float) -> torch.Tensor:
    height, width = image_3HW.shape[1:]
    x, y, reach = float(place_2[0]), float(place_2[1]), max(half, 0.6)
    left, right = (int(min(max(edge, 0), width - 1)) for edge in (x - reach, x + reach))
    top, bottom = (int(min(max(edge, 0), height - 1)) for edge in (y - reach, y + reach))
    return image_3HW[:, top : bottom + 1, left : right + 1].flatten(1).median(dim=1).values


def _eye_white(image_3HW: torch.Tensor, landmarks_K2: torch.Tensor) -> float:
    """Luma of the brightest sixth of what lies between the lids."""
    values = []
    for right, left in ((36, 39), (42, 45)):
        corners = landmarks_K2[[right, left]]
        upper = landmarks_K2[[right + 1, right + 2]]
        lower = landmarks_K2[[right + 5, right + 4]]
        across = torch.linspace(0.12, 0.88, 24)[:, None]
        line = corners[0] + across * (corners[1] - corners[0])
        for share in (0.35, 0.5, 0.65):
            gap = (upper + share * (lower - upper)).mean(dim=0) - corners.mean(dim=0)
            values.append(_read(image_3HW, line + gap * (1 - (2 * across - 1).square())))
    return float(luma(torch.cat(values, dim=1)).quantile(0.84))


def _read(image_3HW: torch.Tensor, places_N2: torch.Tensor) -> torch.Tensor:
    """(3, N) colours at places in pixels."""
    size = torch.tensor([image_3HW.shape[2], image_3HW.shape[1]], dtype=places_N2.dtype)
    grid = (places_N2 * 2 / size - 1).to(image_3HW)[None, None]
    return F.grid_sample(image_3HW[None], grid, padding_mode="border", align_corners=False)[0, :, 0]


def _blur(image_3HW: torch.Tensor, landmarks_K2: torch.Tensor) -> float:
    """The greater of the face's and of the mouth's: a lens or a codec may leave the eyes alone sharp."""
    return max(_blur_within(image_3HW, landmarks_K2, 0), _blur_within(image_3HW, landmarks_K2[48:], _MOUTH_MARGIN))


def _blur_within(image_3HW: torch.Tensor, points_K2: torch.Tensor, margin: float) -> float:
    """By how much a further blur of one pixel lowers the steepest slopes tells how steep they were."""
    low, high = points_K2.amin(dim=0), points_K2.amax(dim=0)
    spare = margin * (high - low)
    (left, top), (right, bottom) = ((low - spare).long().tolist(), (high + spare).long().tolist())
    face = luma(image_3HW)[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    if min(face.shape) < 8:
        return _USUAL_BLUR
    steep, softened = (_steepest(each) for each in (face, gaussian_blur(face[None], 1.0)[0]))
    if steep < _LEAST_SLOPE:
        return _USUAL_BLUR
    ratio = max(steep / max(softened, 1e-6), 1.02)
    return float(min(max((ratio * ratio - 1) ** -0.5, 0.4), 4.0))


def _steepest(image_HW: torch.Tensor) -> float:
    slopes = (image_HW[1:, :-1] - image_HW[:-1, :-1]).square() + (image_HW[:-1, 1:] - image_HW[:-1, :-1]).square()
    values = slopes.sqrt().flatten()
    count = max(1, len(values) // 100)
    return float(values.topk(count).values.mean())


def gaussian_blur(image_CHW: torch.Tensor, sigma: float) -> torch.Tensor:
    """A picture of any number of channels, blurred; the edge is repeated. ``sigma`` in pixels."""
    reach = max(1, round(3 * sigma))
    profile = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=image_CHW.device) / sigma).square())
    profile = (profile / profile.sum()).to(image_CHW)
    padded = F.pad(image_CHW[:, None], (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, profile.view(1, 1, 1, -1)), profile.view(1, 1, -1, 1))[:, 0]
