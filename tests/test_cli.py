import argparse
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import atldiff
from atldiff.cli import common, main
from atldiff.cli.common import ProgressBar
from atldiff.pipeline import ATLDiffPipeline
from atldiff.render.video import render_video
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from media_files import sine, unsigned_content, write_sound
from prepared_files import write_prepared

FRESH = [sys.executable, "-m", "atldiff.cli"]
HEAVY = ("torch", "numpy", "av", "PIL", "mediapipe", "safetensors", "tqdm")


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def generate(portrait: Path, word: Path, tiny_model: Path, tmp_path: Path):
    def run(*more: str, output: str = "out.mp4", speech: Path = word, portrait: Path = portrait) -> Path:
        path = tmp_path / output
        inputs = ["--portrait", str(portrait), "--speech", str(speech)]
        rest = ["-o", str(path), "--model", str(tiny_model), "--device", "cpu"]
        assert main(["generate", *inputs, *rest, *more]) == 0
        return path

    return run


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_costs_no_heavy_import(arguments):
    script = (
        f"import sys\nfrom atldiff.cli import main\ntry:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        f"sys.exit(' '.join({{name.split('.')[0] for name in sys.modules}} & set({HEAVY})) or None)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_help_answers_at_once():
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([*FRESH, "generate", "--help"], stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    best = min(seconds() for _ in range(3))
    slack_of_a_busy_machine = 0.5
    assert best < 0.3 + slack_of_a_busy_machine


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"atldiff {atldiff.__version__}\n"


def test_generate_says_one_line_and_nothing_else(generate, capfd):
    path = generate()
    out, err = capfd.readouterr()
    assert err == "atldiff: loading the model\natldiff: finding the face\n"
    took = r"took \d+\.\d s and \d+\.\d s to load, real-time factor \d+\.\d\d"
    pattern = rf": 512×512, 1\.20 s, 30 frames, seed \d+, {took}\n"
    assert re.fullmatch(re.escape(str(path)) + pattern, out)
    assert frames_of(path).shape == (30, 512, 512, 3)
    assert [file.name for file in path.parent.iterdir()] == ["out.mp4"]


def test_quiet_is_silent(generate, capfd):
    generate("-q")
    assert capfd.readouterr() == ("", "")


def test_verbose_tells_more(generate, capfd):
    generate("-v", "--crop-only")
    assert "model loaded on cpu" in capfd.readouterr().err


def test_where_there_is_no_terminal_a_line_now_and_then_says_how_far_it_is(generate, capfd, monkeypatch):
    monkeypatch.setattr(common, "LINE_EVERY_S", 0.0)
    generate("--crop-only")
    lines = capfd.readouterr().err.splitlines()
    counts = [
        re.fullmatch(r"atldiff: frame (\d+) of 30, (\d+) %, about \d+ (?:s|min) left", line) for line in lines[2:]
    ]
    assert [(int(count[1]), int(count[2])) for count in counts if count] == [
        (done, 100 * done // 30) for done in range(1, 30)
    ]


def test_work_that_goes_on_is_not_taken_for_fast(caplog, monkeypatch):
    monkeypatch.setattr(common, "LINE_EVERY_S", 5.0)
    monkeypatch.setattr(common.sys, "stderr", io.StringIO())
    with caplog.at_level("INFO", "atldiff"), ProgressBar("video", quiet=False) as progress:
        later = time.monotonic() + 100
        monkeypatch.setattr(common.time, "monotonic", lambda: later)
        progress(81, 100)
    (line,) = caplog.messages
    assert re.fullmatch("video 81 of 100, 81 %, about 31 min left", line)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_progress_with_the_time_left(generate, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    generate("--crop-only")
    assert re.search(r"\d+%.*\d+/30 \[\d\d:\d\d<", terminal.getvalue())
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    generate("--crop-only", "-q")
    assert quiet.getvalue() == ""


def test_the_same_seed_gives_the_same_file(generate):
    first, again = generate("--seed", "3"), generate("--seed", "3", output="again.mp4")
    other = generate("--seed", "4", output="other.mp4")
    assert unsigned_content(first) == unsigned_content(again)
    assert not np.array_equal(frames_of(first), frames_of(other))


def test_options_reach_the_frames(generate):
    plain = frames_of(generate("--crop-only", "--seed", "0", "--fps", "10"))
    assert plain.shape == (12, 256, 256, 3)
    pairs = ["--steps 2", "--emotion surprised", "--head-motion 0", "--blink off", "--mouth 0.2"]
    for number, more in enumerate(pair.split() for pair in pairs):
        changed = frames_of(generate("--crop-only", "--seed", "0", "--fps", "10", *more, output=f"{number}.mp4"))
        assert not np.array_equal(plain, changed), more
    assert len(frames_of(generate("--crop-only", "--emotion", "auto", "--fps", "30", output="auto.mp4"))) == 36


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30])
@pytest.mark.parametrize("duration", [0.2, 1.0, 1.7])
def test_the_video_is_as_long_as_the_speech(generate, speech, tmp_path, duration, fps):
    whole = np.concatenate(list(Speech.open(speech).blocks(SAMPLE_RATE)))
    sound = write_sound(tmp_path / "s.wav", whole[None, : round(duration * SAMPLE_RATE)], SAMPLE_RATE)
    path = generate("--crop-only", "--steps", "1", "--fps", str(fps), speech=sound)
    exact = Fraction(30000, 1001) if fps == 29.97 else Fraction(fps)
    frames = len(frames_of(path))
    assert abs(frames / exact - Fraction(str(duration))) <= 0.5 / exact
    assert Speech.open(path).duration_s == pytest.approx(duration, abs=1e-3)


def test_a_minute_is_not_cut(tiny_pipeline, portrait, tmp_path):
    sound, output = long_sound(tmp_path, 61.3), tmp_path / "o.mp4"
    report = render_video(tiny_pipeline, portrait, sound, output, steps=1, fps=2, crop_only=True)
    assert report.frames == round(61.3 * 2) == len(frames_of(output))
    assert report.real_time_factor == report.seconds / report.duration_s > 0


def test_streaming_equals_the_whole(tiny_pipeline, portrait, speech):
    options = {"seed": 5, "crop_only": True, "fps": 5}
    head = tiny_pipeline(portrait, speech, **options)
    stream = tiny_pipeline.stream(portrait, speech, **options)
    assert len(head.frames) == stream.frames == 35
    for index, frame in enumerate(stream):
        assert np.array_equal(frame, head.frames[index]), index


def test_render_reports_each_frame(tiny_pipeline, portrait, word, tmp_path):
    steps = []
    report = render_video(
        tiny_pipeline, portrait, word, tmp_path / "out.mp4", progress=lambda *step: steps.append(step)
    )
    assert steps == [(done, 30) for done in range(1, 31)]
    assert (report.frames, report.fps, report.emotion) == (30, 25.0, "neutral")


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_reported_size_is_that_of_the_file(tiny_pipeline, portrait, word, tmp_path, suffix):
    odd = Image.open(portrait).resize((301, 303))
    report = render_video(tiny_pipeline, odd, word, tmp_path / f"o{suffix}", steps=1, fps=2)
    with av.open(str(report.path)) as container:
        video = container.streams.video[0]
        assert report.size == (video.width, video.height) == (300, 302)


def test_the_background_stays_as_it_was(tiny_pipeline, portrait, word):
    frames = tiny_pipeline(portrait, word).frames
    picture = np.asarray(Image.open(portrait).convert("RGB"))
    assert np.array_equal(frames[:, :, :90], np.broadcast_to(picture[:, :90], frames[:, :, :90].shape))
    assert not np.array_equal(frames[10], picture)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_in_the_middle(tmp_path, portrait, tiny_model, number):
    output = tmp_path / "there" / "out.mp4"
    output.parent.mkdir()
    output.write_bytes(b"precious")
    sound = long_sound(tmp_path, 90)
    inputs = ["generate", "--portrait", str(portrait), "--speech", str(sound)]
    command = [*FRESH, *inputs, "-o", str(output), "--model", str(tiny_model), "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not any(file.stat().st_size for file in output.parent.glob(".*.mp4")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert output.read_bytes() == b"precious"
    assert out == ""
    if number == signal.SIGKILL:
        assert process.returncode == -number
        assert all(file.name.startswith(".") for file in output.parent.iterdir() if file != output)
    else:
        stages = "atldiff: loading the model\natldiff: finding the face\n"
        told = re.sub(r"(?m)^atldiff: frame \d+ of .*\n", "", err)  # of a machine that is slow at the moment
        assert (process.returncode, told) == (128 + number, f"{stages}atldiff: stopped\n")
        assert list(output.parent.iterdir()) == [output]


def long_sound(folder: Path, duration_s: float) -> Path:
    return write_sound(folder / "long.wav", sine(duration_s, 8000), 8000)


TINY_TRAINING = ["steps=2", "clips=2", "frames=8", "report_every=1", "model.channels=16"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("prepared") / "data", ["train", "val"])


def test_train_makes_a_part_and_goes_on(prepared, tmp_path, capfd):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    command = [
        "train",
        "landmarks",
        str(prepared),
        "--set",
        *TINY_TRAINING,
        "--seed",
        "3",
        "--accelerator",
        "cpu",
        "-o",
    ]
    assert main([*command, str(whole)]) == 0
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == f"best weights: {whole / 'landmark_generator'}"
    assert err == ""
    assert main([*command, str(pieces), "--max-time", "0.001s"]) == 0
    assert "at step 1 of 2; the same command goes on" in capfd.readouterr().out
    assert main([*command, str(pieces), "-q"]) == 0
    assert capfd.readouterr() == ("", "")
    weights = [folder / "landmark_generator" / "model.safetensors" for folder in (whole, pieces)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_terminal_shows_how_far_the_training_is(prepared, tmp_path, monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run = ["-o", str(tmp_path / "run"), "--accelerator", "cpu"]
    assert main(["train", "landmarks", str(prepared), "--set", *TINY_TRAINING, *run]) == 0
    assert re.search(r"2/2 \[\d\d:\d\d<", terminal.getvalue())
    assert "step 1/2  loss" in capsys.readouterr().out


def test_the_clips_of_the_caller_are_named_when_wrong(prepared, tmp_path, capfd):
    run = ["-o", str(tmp_path / "run")]
    good = [str(prepared), *run]
    for arguments, words in (
        (["train", "landmarks", str(tmp_path / "none"), *run], "not a folder"),
        (["train", "landmarks", str(tmp_path), *run], f"make one with: atldiff prepare clips {tmp_path} PREPARED"),
        (["train", "emotion", str(tmp_path), *run], "no clips.csv"),
        (["train", "emotion", *good, "--max-time", "3m"], "it takes no time limit"),
        (["train", "landmarks", *good, "--set", "steps=0"], "steps is 0"),
        (["train", "diffusion", *good, "--set", "size=3"], "unknown setting 'size'"),
        (
            ["train", "emotion", *good, "--preset", "paper"],
            "preset paper of the emotion classifier is not available yet",
        ),
        (["train", "landmarks", *good, "--max-time", "-1"], "'-1' was given as a time"),
        (["train", "everything", *good], "invalid choice: 'everything'"),
    ):
        assert main(arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert re.fullmatch(r"atldiff: error: .*\n", err)
        assert words in err


@pytest.mark.skipif("ATLDIFF_DATA" not in os.environ, reason="needs real clips: set ATLDIFF_DATA")
@pytest.mark.parametrize("clip", ["grid/grid_A", "lrwar/sp22"])
def test_real_clips_speak(generate, clip):
    video = min((Path(os.environ["ATLDIFF_DATA"]) / clip).rglob("*.mp4"))
    path = generate("-q", "--steps", "1", portrait=video, speech=video)
    frames = frames_of(path)
    assert len(frames) == Speech.open(video).frames_at(25)
    with av.open(str(video)) as container:
        first = next(container.decode(video=0))
    assert frames.shape[1:3] == (first.height, first.width)
    assert np.abs(frames.astype(int) - frames[0]).max() > 20


def mouth_openings(frames, detector):
    from atldiff.evaluation.judge import detect_landmarks
    from atldiff.face.topology import mouth_opening

    return mouth_opening(detect_landmarks(frames, detector))


def test_silence_shuts_the_mouth_and_speech_opens_it(portrait, word, detector):
    pipeline = ATLDiffPipeline.from_pretrained(device="cpu")
    silence = Speech.from_array(np.zeros(SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE)
    still = pipeline(portrait, silence, crop_only=True, head_motion=0, blink="off").frames
    alive = pipeline(portrait, silence, crop_only=True).frames
    shut = mouth_openings(np.concatenate([still, alive]), detector)
    spoken = mouth_openings(pipeline(portrait, word, crop_only=True).frames, detector)
    pipeline.close()
    assert np.abs(np.diff(still.astype(int), axis=0)).max() <= 1
    assert np.abs(np.diff(alive.astype(int), axis=0)).max() > 1
    assert shut.max() < 0.03
    assert np.percentile(spoken, 90) > shut.max() + 0.05


def verbs() -> dict[str, argparse.ArgumentParser]:
    from atldiff.cli.entry import _parser

    parser = _parser()
    action = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("verb", verbs())
def test_help_tells_every_default_and_ends_with_examples_that_parse(verb):
    parser = verbs()[verb]
    needed = ("help", "portrait", "video", "speech", "text", "output")
    options = [each for each in parser._actions if each.option_strings and not each.required]
    texts = {each.option_strings[0]: each.help or "" for each in options if each.dest not in needed}
    assert [name for name, text in texts.items() if "default: " not in text] == []
    epilog = parser.epilog or ""
    assert epilog.startswith("examples:\n  atldiff ") or verb == "live"
    commands = re.findall(rf"atldiff {verb} [^|\n]*|atldiff {verb}$", epilog, re.MULTILINE)
    assert commands
    for command in commands:
        parser.parse_args(shlex.split(command)[2:])
