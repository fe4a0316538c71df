import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

import atldiff
from atldiff.face.detection import FaceDetector
from atldiff.image.unet import IdentityDiffusionUNet, UNetConfig
from atldiff.landmarks.generator import LandmarkGenerator, LandmarkGeneratorConfig
from atldiff.media.signing import (
    CERTIFICATE_NAME,
    CERTIFICATE_VARIABLE,
    KEY_NAME,
    KEY_VARIABLE,
    SigningIdentity,
    make_pair,
)
from atldiff.pipeline import ATLDiffPipeline
from atldiff.processes.workers import processors
from atldiff.speech.emotion import EmotionClassifier
from atldiff.speech.waveform import SAMPLE_RATE, Speech
from atldiff.speech.whisper import WhisperEncoder
from forked_workers import fork_workers
from media_files import sine, write_sound
from service_server import Server, limited

torch.set_num_threads(1)
fork_workers()

ASSETS = Path(atldiff.__file__).parent / "assets"

LONGEST = (
    "studio_page", "test_training", "test_service", "test_cli", "test_prepare", "test_sync", "one service",
    "test_trees", "test_webrtc", "test_docs", "test_batch", "test_evaluation", "test_image_training", "test_talking",
    "test_paper_diffusion", "test_live_page", "test_live", "test_distributed", "test_pipecat", "test_service_parts",
    "test_console", "test_pack", "test_studio",
)  # fmt: skip
"""What takes longest is begun first, so that nobody waits for the end of it alone."""

SHARED_SERVICE = ("test_service_connections", "test_service_live", "test_service_refusals")


def group_of(path: Path) -> str:
    """Files of one group are tested in one process, and share its service and its browser."""
    if path.parent != Path(__file__).parent:
        return path.parent.name
    return "one service" if path.stem in SHARED_SERVICE else path.stem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {group: place for place, group in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(group_of(item.path), len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Twice the processors: half of the time, a test waits for another process."""
    return 2 * processors()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.split("::")[0])

    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def signing_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningIdentity]:
    """Videos are signed with a pair made for the tests, not with the user's own."""
    folder = tmp_path_factory.mktemp("config") / "signing"
    make_pair(folder)
    pair = SigningIdentity(folder / CERTIFICATE_NAME, folder / KEY_NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CERTIFICATE_VARIABLE, str(pair.certificate))
        patch.setenv(KEY_VARIABLE, str(pair.key))
        yield pair


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine says no more on its way than a fast one."""
    monkeypatch.setattr("atldiff.cli.common.LINE_EVERY_S", 3600.0)


@pytest.fixture(scope="session")
def portrait() -> Path:
    """The astronaut, 512×512."""
    return ASSETS / "portrait.jpg"


@pytest.fixture(scope="session")
def speech() -> Path:
    """A synthesised sentence of 7 s."""
    return ASSETS / "speech.flac"


@pytest.fixture(scope="session")
def word(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 1.2 s of the sentence."""
    blocks = Speech.open(speech).blocks(SAMPLE_RATE)
    samples = np.concatenate(list(blocks))[: round(1.2 * SAMPLE_RATE)]
    return write_sound(tmp_path_factory.mktemp("word") / "word.wav", samples[None], SAMPLE_RATE)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with small, random weights: fast, and its noise shows in the frames."""
    generator = torch.Generator().manual_seed(0)
    landmarks = LandmarkGenerator(LandmarkGeneratorConfig(channels=16, dilations=(1, 2)))
    unet = IdentityDiffusionUNet(UNetConfig(channels=(8, 16)))
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    pipeline = ATLDiffPipeline(WhisperEncoder.from_package(), landmarks, unet, EmotionClassifier(), device="cpu")
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_model: Path) -> Iterator[ATLDiffPipeline]:
    pipeline = ATLDiffPipeline.from_pretrained(tiny_model, device="cpu")
    yield pipeline
    pipeline.close()


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceDetector]:
    with FaceDetector() as face_detector:
        yield face_detector


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with limited(tmp_path_factory.mktemp("service") / "data", tiny_model) as server:
        yield server


@pytest.fixture(scope="session")
def face(portrait: Path) -> bytes:
    return portrait.read_bytes()


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """0.4 s."""
    return write_sound(tmp_path_factory.mktemp("sound") / "tone.wav", sine(0.4, 16_000), 16_000).read_bytes()


@pytest.fixture(scope="session")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """5 s."""
    return write_sound(tmp_path_factory.mktemp("sound") / "long.wav", sine(5, 16_000), 16_000).read_bytes()
