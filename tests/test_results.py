"""What people reach for in Python: results that save, count and show themselves, seeds, devices, names."""

import importlib.util
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import atldiff
from atldiff.errors import FaceError, InputError, OutputError
from atldiff.face.detection import FaceDetector
from atldiff.face.kinds import LEAST_HUMAN
from atldiff.face.sitter import read_sitter
from atldiff.media.provenance import INTACT, read_provenance
from atldiff.pipeline import ATLDiffPipeline
from atldiff.results import TalkingHead
from atldiff.speech.waveform import SAMPLE_RATE, Speech

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def syllable(word: Path) -> Speech:
    """The first 0.4 s of the word."""
    return Speech.from_array(np.concatenate(list(Speech.open(word).blocks()))[: SAMPLE_RATE * 2 // 5], SAMPLE_RATE)


def test_a_stream_counts_and_saves_itself(tiny_pipeline, portrait, syllable, tmp_path) -> None:
    stream = tiny_pipeline.stream(portrait, syllable, crop_only=True)
    assert len(stream) == stream.frames == 10
    assert re.fullmatch(r"FrameStream\(10 frames of 256×256 at 25 fps, seed \d+, 0 given\)", repr(stream))
    steps = []
    path = stream.save(tmp_path / "out.mp4", progress=lambda *step: steps.append(step))
    assert steps == [(done, 10) for done in range(1, 11)]
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 10
    with pytest.raises(InputError, match="10 of the stream's frames have been taken already"):
        stream.save(tmp_path / "again.mp4")
    with pytest.raises(OutputError, match="exists already"):
        tiny_pipeline.stream(portrait, syllable, crop_only=True).save(path, overwrite=False)


def test_frames_know_their_number_their_moment_and_their_landmarks(tiny_pipeline, portrait, syllable) -> None:
    pictures = list(tiny_pipeline.stream(portrait, syllable, seed=3, max_size=256))
    stream = tiny_pipeline.stream(portrait, syllable, seed=3, max_size=256)
    first = next(stream)
    frames = list(stream.with_landmarks())
    assert [(frame.number, frame.time_s) for frame in frames] == [(number, number / 25) for number in range(1, 10)]
    assert all(map(np.array_equal, [first, *(frame.picture for frame in frames)], pictures))
    own = read_sitter(portrait, tiny_pipeline._face_detector(), max_size=256).landmarks
    assert all(np.abs(frame.landmarks - own).mean() < 0.1 * np.ptp(own) for frame in frames)
    assert not np.array_equal(frames[0].landmarks, frames[-1].landmarks)
    with tiny_pipeline.live(portrait, max_size=256, max_delay_s=None, idle_s=None) as session:
        spoken = list(session.animate(syllable.blocks()))
    assert len(spoken) == 10
    assert all(np.abs(frame.landmarks - own).mean() < 0.1 * np.ptp(own) for frame in spoken)


def test_a_result_shows_itself_in_a_notebook(tiny_pipeline, portrait, syllable) -> None:
    steps = []
    head = tiny_pipeline(portrait, syllable, crop_only=True, seed=7, progress=lambda *step: steps.append(step))
    assert steps[-1] == (10, 10)
    assert repr(head) == "TalkingHead(10 frames of 256×256 at 25 fps, seed 7)"
    assert len(head) == 10
    assert head._repr_html_().startswith("<video controls")
    assert 'src="data:video/mp4;base64,' in head._repr_html_()


def test_every_form_makes_the_same_video(tiny_pipeline, portrait, syllable) -> None:
    samples = np.concatenate(list(syllable.blocks()))
    picture = Image.open(portrait)
    expected = tiny_pipeline(portrait, syllable, crop_only=True)
    for image, sound, more in (
        (np.asarray(picture) / 255, samples, {"sample_rate": SAMPLE_RATE}),
        (torch.from_numpy(np.array(picture)).permute(2, 0, 1), (SAMPLE_RATE, samples), {}),
        (portrait.read_bytes(), {"array": samples, "sampling_rate": SAMPLE_RATE}, {}),
    ):
        head = tiny_pipeline(image, sound, crop_only=True, **more)
        assert head.seed == expected.seed
        assert np.array_equal(head.frames, expected.frames)


def test_the_seed_comes_from_the_content(tiny_pipeline, portrait, syllable, word) -> None:
    def seed(*inputs: object) -> int:
        return tiny_pipeline.stream(*inputs, crop_only=True).seed

    assert seed(portrait, syllable) == seed(portrait, syllable)
    mirrored = np.asarray(Image.open(portrait))[:, ::-1]
    assert len({seed(portrait, syllable), seed(portrait, word), seed(mirrored, syllable)}) == 3


def test_a_pipeline_moves_and_closes_itself(tiny_model) -> None:
    with ATLDiffPipeline.from_pretrained(tiny_model, device=torch.device("cpu")) as pipeline:
        assert pipeline.to("cpu") is pipeline
        assert repr(pipeline) == "ATLDiffPipeline(preset 'compact', device 'cpu')"
        for name in ("abacus", "cuda:77", "meta", "cpu:1", 3.5):
            with pytest.raises(InputError, match=r"unknown device|is not available on this machine"):
                pipeline.to(name)


def test_public_names() -> None:
    assert set(atldiff.__all__) <= set(dir(atldiff))
    for name in atldiff.__all__:
        assert getattr(atldiff, name) is not None
    assert (Path(atldiff.__file__).parent / "py.typed").is_file()
    assert set(atldiff._HOMES) == set(atldiff.__all__) - {"__version__"}


def test_the_reference_page_is_what_the_docstrings_say() -> None:
    """Where this fails: python docs/make_reference.py"""
    specification = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert module.reference() == module.PAGE.read_text()


@pytest.mark.parametrize(
    ("suffix", "kinds"), [(".mov", ["h264", "aac"]), (".webm", ["vp9", "opus"]), (".gif", ["gif"])]
)
def test_other_kinds_of_files(portrait, syllable, tmp_path, suffix, kinds) -> None:
    picture = np.asarray(Image.open(portrait).resize((128, 128)))
    head = TalkingHead(np.stack([np.roll(picture, shift, axis=1) for shift in range(10)]), 25.0, syllable)
    path = head.save(tmp_path / f"out{suffix}")
    with av.open(str(path)) as video:
        assert [stream.codec_context.codec.canonical_name for stream in video.streams] == kinds
        pictures = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
        comment = {key.lower(): value for key, value in video.metadata.items()}.get("comment", "")
    assert len(pictures) == 10
    assert np.abs(np.stack(pictures).astype(int) - head.frames).mean() < 8
    if suffix == ".gif":
        assert b"c2pa" in path.read_bytes()
    else:
        assert comment.startswith("Synthetic media")
    if suffix == ".mov":
        assert read_provenance(path).state == INTACT
    with pytest.raises(OutputError, match=r"suffix is '\.avi'; expected \.mp4, \.mov, \.webm or \.gif"):
        head.save(tmp_path / "out.avi")


def test_quality_is_chosen(tiny_pipeline, portrait, syllable, tmp_path) -> None:
    head = tiny_pipeline(portrait, syllable, crop_only=True)
    fine, coarse = (head.save(tmp_path / f"{crf}.mp4", crf=crf).stat().st_size for crf in (10, 40))
    assert coarse < fine / 2
    for name, crf in (("a.mp4", 60), ("a.mp4", -1), ("a.gif", 20)):
        with pytest.raises(InputError, match=f"crf is {crf}"):
            head.save(tmp_path / name, crf=crf)


def test_a_large_portrait_becomes_a_video_of_usual_size(portrait, detector, caplog) -> None:
    large = Image.open(portrait).resize((2560, 2560))
    sitter = read_sitter(large, detector)
    assert sitter.picture.shape == (1920, 1920, 3)
    assert sitter.read_size == (2560, 2560)
    small = read_sitter(large, detector, max_size=640)
    assert small.picture.shape == (640, 640, 3)
    assert np.abs(small.landmarks * 3 - sitter.landmarks).max() < 1e-2
    for wrong in (10, 5000, 2.5, True):
        with pytest.raises(InputError, match="max_size is"):
            read_sitter(large, detector, max_size=wrong)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("aspect", "shape"), [("9:16", (512, 288)), ("1:1", (512, 512)), ("16:9", (288, 512))])
def test_a_portrait_is_cut_to_a_shape_around_its_face(portrait, detector, aspect, shape) -> None:
    sitter = read_sitter(portrait, detector, aspect=aspect)
    assert sitter.picture.shape[:2] == shape
    assert (sitter.landmarks >= 0).all() and (sitter.landmarks <= shape[::-1]).all()
    for wrong in ("9x16", "0:1", "100:1", ""):
        with pytest.raises(InputError, match="aspect is"):
            read_sitter(portrait, detector, aspect=wrong)


def test_a_face_that_does_not_fit_into_a_shape(portrait, detector) -> None:
    head = np.asarray(Image.open(portrait).crop((150, 20, 300, 220)))
    with pytest.raises(FaceError, match="does not fit into 4:1"):
        read_sitter(head, detector, aspect="4:1")


@pytest.mark.parametrize("size", [(4000, 2700), (4096, 300), (330, 4000)])
def test_a_small_face_in_a_large_picture_is_found(portrait, detector, size, caplog) -> None:
    width, height = size
    head = Image.open(portrait).crop((96, 0, 352, 256)).resize((196, 196))
    photo = Image.new("RGB", size, (110, 125, 120))
    photo.paste(head, (width * 5 // 7, height // 4) if width > height else (60, height * 5 // 7))
    sitter = read_sitter(photo, detector)
    assert np.ptp(sitter.landmarks, axis=0).max() >= 47
    assert max(sitter.picture.shape) >= 1920


def test_eyes_at_the_border_are_refused(portrait, detector) -> None:
    picture = np.asarray(Image.open(portrait))
    landmarks = read_sitter(portrait, detector).landmarks
    cut = picture[round(float(landmarks[36:48, 1].mean())) :]
    with pytest.raises(FaceError, match=r"eyes reach beyond the picture|no face found"):
        read_sitter(cut, detector)


def covered(portrait: Path, landmarks: np.ndarray, what: str) -> np.ndarray:
    picture = Image.open(portrait).convert("RGB")
    draw = ImageDraw.Draw(picture)
    if what == "glasses":
        for right, left in ((36, 39), (42, 45)):
            (x, y), width = (landmarks[right] + landmarks[left]) / 2, np.ptp(landmarks[[right, left], 0])
            draw.ellipse([x - 0.95 * width, y - 0.6 * width, x + 0.95 * width, y + 0.85 * width], fill=(18, 18, 20))
    else:
        outline = [landmarks[point] for point in range(2, 15)] + [landmarks[28]]
        draw.polygon([(float(x), float(y)) for x, y in outline], fill=(150, 190, 215))
    return np.asarray(picture)


def test_what_covers_a_face_is_told(portrait, detector, caplog) -> None:
    own = read_sitter(portrait, detector)
    assert own.blinks and not caplog.records
    glasses = read_sitter(covered(portrait, own.landmarks, "glasses"), detector)
    assert not glasses.blinks
    assert "dark glasses: they do not blink" in caplog.text
    caplog.clear()
    assert read_sitter(covered(portrait, own.landmarks, "mask"), detector).blinks
    assert "the mouth seems to be covered" in caplog.text


def test_an_animal_has_no_face(detector) -> None:
    from skimage import data

    with pytest.raises(FaceError, match="no face found"):
        read_sitter(data.chelsea(), detector)


def test_what_does_not_look_human_is_told_apart(portrait, detector) -> None:
    own = read_sitter(portrait, detector)
    assert detector.likeness(own.picture, own.landmarks) > LEAST_HUMAN
    upside_down = np.ascontiguousarray(own.picture[::-1])
    turned = own.landmarks * [1, -1] + [0, len(own.picture)]
    assert detector.likeness(upside_down, turned) < LEAST_HUMAN


def test_detectors_of_several_threads_leave_standard_error_alone() -> None:
    before = os.fstat(2)
    threads = [threading.Thread(target=lambda: FaceDetector().close()) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.fstat(2).st_ino == before.st_ino


def test_a_fork_is_refused_in_words(detector) -> None:
    def child(pipe) -> None:
        try:
            detector.detect_once(np.zeros((64, 64, 3), np.uint8))
        except InputError as error:
            pipe.send(str(error))

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(30)
    assert "was forked after its face detector had been made" in ours.recv()
    process.join(10)


def test_a_missing_system_library_is_named(tmp_path) -> None:
    fake = tmp_path / "mediapipe"
    fake.mkdir()
    (fake / "__init__.py").write_text('raise OSError("libEGL.so.1: cannot open shared object file")\n')
    script = "from atldiff.face.detection import FaceDetector\nFaceDetector()"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "InputError: MediaPipe, which finds faces, cannot be loaded (libEGL.so.1)" in result.stderr
    assert "apt-get install libegl1 libgles2" in result.stderr
