"""Every metric against a known answer."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from atldiff.errors import InputError
from atldiff.evaluation import metrics
from atldiff.face.topology import MOUTH, OUTER_EYE_CORNERS


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def pictures(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    smooth = np.cumsum(random.normal(0, 3, (3, 40, 32, 3)), axis=1) + 120
    noisy = smooth + random.normal(0, 12, smooth.shape)
    return np.clip(smooth, 0, 255).astype(np.uint8), np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.fixture
def landmarks(random: np.random.Generator) -> np.ndarray:
    """(12, 68, 2), the outer eye corners always 50 pixels apart."""
    points = random.uniform(30, 90, (12, 68, 2)).astype(np.float32)
    points[:, OUTER_EYE_CORNERS[0]] = (30, 40)
    points[:, OUTER_EYE_CORNERS[1]] = (80, 40)
    return points


def test_psnr_of_a_constant_error() -> None:
    black = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    assert metrics.psnr(black, black + np.uint8(5)) == pytest.approx(20 * np.log10(255 / 5))
    assert metrics.psnr(black, black + np.uint8(255)) == pytest.approx(0)


def test_psnr_is_the_mean_of_the_frames_own(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pictures
    noisy = noisy.copy()
    noisy[0] = clean[0]
    expected = [metrics.PSNR_CAP] + [
        peak_signal_noise_ratio(clean[index], noisy[index], data_range=255) for index in (1, 2)
    ]
    assert metrics.psnr(clean, noisy) == pytest.approx(np.mean(expected), rel=1e-5)


def test_ssim_agrees_with_scikit_image(pictures: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = pictures
    expected = [
        structural_similarity(
            first,
            second,
            data_range=255,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for first, second in zip(clean, noisy, strict=True)
    ]
    assert 0.2 < np.mean(expected) < 0.95
    assert metrics.ssim(clean, noisy) == pytest.approx(np.mean(expected), abs=1e-6)
    assert metrics.ssim(clean, clean) == pytest.approx(1)


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim])
def test_pictures_of_two_shapes_are_refused(measure) -> None:
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"\(2, 16, 16, 3\).*\(1, 16, 16, 3\)"):
        measure(frames, frames[:1])


def test_ssim_of_too_small_pictures_is_refused() -> None:
    frames = np.zeros((1, 16, 10, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"11 pixels.*10×16"):
        metrics.ssim(frames, frames)


def test_mouth_box_holds_every_mouth_with_its_margin(landmarks: np.ndarray) -> None:
    landmarks[:, MOUTH] = (60, 80)
    landmarks[3, 48], landmarks[5, 54], landmarks[7, 57] = (50, 78), (70, 81), (60, 86.5)
    assert metrics.mouth_box(landmarks, 128) == (46, 74, 74, 91)


def test_mouth_box_stays_inside_and_large_enough(landmarks: np.ndarray) -> None:
    landmarks[:, MOUTH] = (130, 126)
    assert metrics.mouth_box(landmarks, 128) == (117, 117, 128, 128)
    landmarks[0, 50] = np.nan
    with pytest.raises(InputError, match="NaN"):
        metrics.mouth_box(landmarks, 128)


def test_landmark_distance_counts_the_asked_points(landmarks: np.ndarray) -> None:
    moved = landmarks.copy()
    moved[:, MOUTH] += (3, 4)
    assert metrics.landmark_distance(moved, landmarks, MOUTH) == pytest.approx(5 / 50, rel=1e-5)
    assert metrics.landmark_distance(moved, landmarks) == pytest.approx(5 / 50 * 20 / 68, rel=1e-5)
    assert metrics.landmark_distance(2 * moved, 2 * landmarks, MOUTH) == pytest.approx(5 / 50, rel=1e-5)
    assert metrics.landmark_distance(landmarks, landmarks) == 0


def test_velocity_sees_movement_and_not_place(landmarks: np.ndarray) -> None:
    assert metrics.landmark_velocity_distance(landmarks + 7, landmarks) == pytest.approx(0, abs=1e-6)
    drift = np.arange(len(landmarks))[:, None, None] * np.array([3.0, 4.0])
    assert metrics.landmark_velocity_distance(landmarks + drift, landmarks) == pytest.approx(5 / 50, rel=1e-5)


def test_published_formulas(landmarks: np.ndarray) -> None:
    points = landmarks.shape[0] * landmarks.shape[1]
    moved = landmarks + np.array([3, 4])
    assert metrics.landmark_distance_as_published(moved, landmarks) == pytest.approx(5 * np.sqrt(points))
    assert metrics.landmark_velocity_distance_as_published(moved, landmarks) == pytest.approx(0, abs=1e-3)
    one = landmarks.copy()
    one[4, 30, 0] += 2
    assert metrics.landmark_velocity_distance_as_published(one, landmarks) == pytest.approx(2 * np.sqrt(2), rel=1e-5)


@pytest.mark.parametrize("lag", range(-5, 6))
def test_a_shifted_mouth_is_found_with_its_lag(lag: int, random: np.random.Generator) -> None:
    opening = np.convolve(random.normal(size=80), np.ones(3) / 3, mode="valid")
    true, generated = opening[10:50], opening[10 - lag : 50 - lag]
    found = metrics.mouth_correlation(generated, true)
    assert found.lag == lag
    assert found.r_best == pytest.approx(1)
    assert found.r_at_zero == pytest.approx(np.corrcoef(generated, true)[0, 1])


def test_correlation_knows_sign_and_scale(random: np.random.Generator) -> None:
    opening = random.normal(size=30)
    assert metrics.mouth_correlation(0.3 * opening + 2, opening).r_at_zero == pytest.approx(1)
    assert metrics.mouth_correlation(-opening, opening).r_at_zero == pytest.approx(-1)


def test_a_still_mouth_correlates_with_nothing(random: np.random.Generator) -> None:
    opening = random.normal(size=30).astype(np.float32)
    for still, other in ((np.full(30, 0.1, dtype=np.float32), opening), (opening, np.zeros(30))):
        assert metrics.mouth_correlation(still, other) == metrics.MouthCorrelation(0.0, 0.0, 0)


def test_a_short_clip_is_not_matched_by_its_last_frames() -> None:
    found = metrics.mouth_correlation(np.array([1.0, 5.0, 2.0, 2.0]), np.array([2.0, 2.0, 9.0, 4.0]))
    assert abs(found.lag) <= 2


def test_gain(random: np.random.Generator) -> None:
    opening = random.normal(size=30)
    assert metrics.gain(0.4 * opening + 1, opening) == pytest.approx(0.4)
    assert metrics.gain(np.ones(30), opening) == pytest.approx(0)
    assert np.isnan(metrics.gain(opening, np.ones(30)))


def test_flicker_is_the_second_difference_outside_the_mouth() -> None:
    frames = np.zeros((6, 16, 16, 3), dtype=np.uint8)
    frames[1::2] = 10
    box = (4, 4, 12, 12)
    assert metrics.flicker(frames, box) == pytest.approx(20)
    frames[:, 4:12, 4:12] = np.arange(6)[:, None, None, None] ** 2
    assert metrics.flicker(frames, box) == pytest.approx(20)
    ramp = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), dtype=np.uint8) * 9
    assert metrics.flicker(ramp, box) == 0
    assert np.isnan(metrics.flicker(ramp[:2], box))
