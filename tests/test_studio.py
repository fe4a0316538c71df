"""The studio's page as the service gives it, and what the service makes for it: the first frame, the landmarks."""

import contextlib
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from service_server import Server, running

pytest.importorskip("fastapi")

from atldiff.cli.studio import page_address
from atldiff.errors import InputError
from atldiff.face.detection import FaceDetector
from atldiff.face.topology import interocular_distance
from atldiff.media.provenance import DIGITAL_SOURCE_TYPE
from atldiff.pipeline import ATLDiffPipeline
from atldiff.serve.fields import LIVE_OPTIONS, OPTIONS, read_options
from atldiff.serve.http.guard import OPEN_PATHS
from atldiff.serve.problems import Problem
from atldiff.serve.settings import ServeSettings
from test_service_parts import TOKEN, status_of

torch.set_num_threads(1)

PAGE = Path(str(find_spec("atldiff.serve").origin)).parent / "page"  # pyright: ignore
SLOW = {"fps": "120", "steps": "64"}


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("studio") / "data"
    model = ["--model", str(tiny_model), "--device", "cpu"]
    with running(data, *model, "--no-browser", verb="studio") as server:
        yield server


def test_the_page_may_load_nothing_but_its_own(server) -> None:
    page = server.get("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("frame-ancestors") == "'none'"
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert {source for sources in policy.values() for source in sources.split()} == {"'self'", "'none'", "blob:"}
    assert (policy["script-src"], policy["connect-src"]) == ("'self'", "'self'")
    assert page.headers["permissions-policy"].startswith("camera=(self), microphone=(self), ")
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "unsafe-inline" in server.get("/docs").headers["content-security-policy"]
    assert "script-src" not in server.get("/health").headers["content-security-policy"]


def test_every_file_of_the_page_is_there_and_names_no_other_site(server) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for path in PAGE.iterdir():
        reply = server.get(f"/studio/{path.name}")
        assert (reply.status, reply.body) == (200, path.read_bytes())
        assert reply.headers["content-type"].split(";")[0] == kinds[path.suffix]
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*| // .*", "", text, flags=re.MULTILINE), path.name
    whole = "".join(path.read_text() for path in PAGE.iterdir())
    assert re.findall(r"""(?:href|src)="/|["'`]/(?:v1|studio|docs)""", whole) == []
    used = set(re.findall(r'studio/([\w.]+)|"\./([\w.]+)"', whole))
    for name in {name for pair in used for name in pair if name} | {"portrait.jpg", "expressions.jpg", "speech.flac"}:
        assert server.get(f"/studio/{name}").status == 200, name
    for name in ("", "nothing.js", "..%2Fstudio.py", "__init__.py", "%2e%2e/settings.py"):
        assert server.get(f"/studio/{name}").status == 404, name


def test_only_the_studio_has_a_page_and_it_needs_no_token(tmp_path) -> None:
    tokens = {"tokens": (TOKEN,)}
    for path in ("/", "/studio/studio.js"):
        assert status_of(ServeSettings(tmp_path, **tokens, studio=True), path) == 200
        assert status_of(ServeSettings(tmp_path, **tokens), path) == 401
    for path in ("/v1/videos", "/v1/limits", "/studio", "/metrics"):
        assert status_of(ServeSettings(tmp_path, **tokens, studio=True), path) == 401
    for path in OPEN_PATHS:
        assert status_of(ServeSettings(tmp_path, **tokens), path) != 401
    assert OPEN_PATHS == ("/health", "/docs", "/openapi.json", "/atldiff-live.js")


def test_the_service_alone_has_no_page(tmp_path) -> None:
    from fastapi.testclient import TestClient

    from atldiff.serve.http.app import create_app

    client = TestClient(create_app(ServeSettings(tmp_path)), base_url="http://localhost")
    assert [client.get(path).status_code for path in ("/", "/studio/studio.js", "/docs")] == [404, 404, 200]


def test_below_the_path_of_another_site_everything_is_found(tmp_path) -> None:
    from fastapi.testclient import TestClient

    from atldiff.serve.http.app import create_app

    settings = ServeSettings(tmp_path, tokens=(TOKEN,), studio=True, root_path="/faces")
    client = TestClient(create_app(settings), base_url="http://localhost", root_path="/faces")
    for path in ("/faces/", "/faces/studio/studio.js", "/faces/docs", "/faces/openapi.json"):
        assert client.get(path).status_code == 200, path
    assert client.get("/faces/v1/limits").status_code == 401
    assert client.get("/faces/openapi.json").json()["servers"] == [{"url": "/faces"}]
    assert 'href="openapi.json"' in client.get("/faces/docs").text
    for wrong in ("faces", "/faces/", "/fa ces", "//", "/f?"):
        with pytest.raises(InputError, match="the root path is"):
            ServeSettings(tmp_path, root_path=wrong)


def test_the_address_is_one_that_a_browser_can_open() -> None:
    assert page_address("127.0.0.1", 80) == page_address("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert page_address("::1", 8000) == "http://[::1]:8000/"


class _Inputs(HTMLParser):
    """The attributes of a page's inputs, by name or id."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, str | None]]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "input":
            self.found.setdefault(values.get("name") or values.get("id") or "", []).append(values)


def test_the_controls_offer_what_the_options_take() -> None:
    parser = _Inputs()
    parser.feed((PAGE / "index.html").read_text())
    offered = parser.found
    assert {entry["value"] for entry in offered["emotion"]} == set(OPTIONS["emotion"].schema["enum"])
    (chosen,) = [entry["value"] for entry in offered["emotion"] if "checked" in entry]
    assert chosen == OPTIONS["emotion"].schema["default"]
    for name in ("intensity", "mouth", "head_motion", "seed", "steps"):
        (control,) = offered[name]
        schema = OPTIONS[name].schema
        assert [float(control[end] or "nan") for end in ("min", "max")] == [schema["minimum"], schema["maximum"]]
        if name in ("seed", "steps"):
            assert "value" not in control and "default" not in schema
        else:
            assert float(control["value"] or "") == schema["default"]
    assert offered.keys() >= {"blink", "badge", "consent"}
    assert "checked" not in offered["consent"][0]


def test_the_first_frame_and_the_landmarks_of_a_video(server, portrait, word, tiny_pipeline) -> None:
    job_id = server.post(portrait=portrait.read_bytes(), speech=word.read_bytes(), head_motion="1").json()["id"]
    result = server.wait(job_id, "done")["result"]
    preview = server.get(f"/v1/videos/{job_id}/preview")
    assert (preview.status, preview.headers["content-type"]) == (200, "image/jpeg")
    assert DIGITAL_SOURCE_TYPE.encode() in preview.body
    video = pictures(server.get(f"/v1/videos/{job_id}/content").body)
    first = np.asarray(Image.open(io.BytesIO(preview.body)).convert("RGB")).astype(float)
    assert np.abs(first - video[0]).mean() < 4

    answer = server.get(f"/v1/videos/{job_id}/landmarks")
    assert answer.headers["content-type"] == "application/json"
    said = answer.json()
    assert (said["width"], said["height"], said["fps"]) == (512, 512, result["fps"])
    landmarks = np.array(said["landmarks"])
    assert landmarks.shape == (result["frames"], 68, 2)
    frames = tiny_pipeline.stream(portrait, word, head_motion=1.0).with_landmarks()
    assert np.abs(landmarks - np.stack([frame.landmarks for frame in frames])).max() < 0.02

    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 204
    for part in ("preview", "landmarks"):
        assert server.get(f"/v1/videos/{job_id}/{part}").status == 404


def test_the_landmarks_of_a_frame_lie_on_its_face(portrait, word, detector: FaceDetector) -> None:
    pipeline = ATLDiffPipeline.from_pretrained(device="cpu")
    with contextlib.closing(pipeline):
        stream = pipeline.stream(portrait, word, fps=10, head_motion=1.0)
        for frame in stream.with_landmarks():
            (detected,) = detector.detect(frame.picture)
            apart = np.linalg.norm(frame.landmarks - detected, axis=-1).mean()
            assert apart < 0.03 * interocular_distance(detected)


def pictures(video: bytes) -> np.ndarray:
    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_landmarks_of_a_crop_lie_in_the_crop(server, portrait, word) -> None:
    job_id = server.post(portrait=portrait.read_bytes(), speech=word.read_bytes(), crop_only="1").json()["id"]
    server.wait(job_id, "done")
    said = server.get(f"/v1/videos/{job_id}/landmarks").json()
    assert (said["width"], said["height"]) == (256, 256)
    assert np.abs(np.mean(said["landmarks"], axis=(0, 1)) - 128).max() < 40


def test_what_is_not_there_yet_is_told(server, portrait, speech) -> None:
    long = {"portrait": portrait.read_bytes(), "speech": speech.read_bytes(), **SLOW}
    running_job, waiting = (server.post(**long).json()["id"] for _ in range(2))
    for part, words in (("preview", "no frame to show"), ("landmarks", "the job is queued")):
        reply = server.get(f"/v1/videos/{waiting}/{part}")
        assert (reply.status, words in reply.json()["detail"]) == (409, True)
    for job_id in (waiting, running_job):
        server.request("DELETE", f"/v1/videos/{job_id}")


def test_the_badge_is_an_option(server, portrait, word) -> None:
    def corner(**options: str) -> np.ndarray:
        form = {"portrait": portrait.read_bytes(), "speech": word.read_bytes()}
        return pictures(server.post("/v1/videos?wait=true", **form, **options).body)[0, :60, -200:].astype(float)

    plain = corner()
    assert np.abs(corner(badge="true") - plain).mean() > 10
    assert np.abs(corner(badge="false") - plain).mean() == 0
    assert server.post(portrait=b"x", speech=b"x", badge="perhaps").json()["field"] == "badge"


def test_a_live_session_takes_no_badge() -> None:
    assert read_options({"badge": "true", "seed": "1"}) == {"badge": True, "seed": 1}
    with pytest.raises(Problem, match="unknown option"):
        read_options({"badge": True}, LIVE_OPTIONS)
