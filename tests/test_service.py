"""The service: videos made, watched, fetched and deleted; what a killed process leaves."""

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import test_service_live
from dub_films import moving_frames
from media_files import sine, write_video
from service_server import (
    MAX_DURATION_S,
    PLAIN,
    SLOW,
    Server,
    assert_refused,
    figure,
    form,
    frames_of,
    head,
    limited,
    queued,
    wait_until,
)
from test_service_refusals import blank

pytest.importorskip("fastapi")
pytest.importorskip("websockets")


from atldiff.face.portrait import prepare_portrait
from atldiff.serve.work.store import JobStore, stopped_problem
from atldiff.speech.voices import voices

torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One of their own, as it is: some of the tests kill it."""
    with limited(tmp_path_factory.mktemp("service") / "data", tiny_model, PLAIN) as server:
        yield server


def test_a_video_is_made_watched_fetched_and_deleted(server, face, sound) -> None:
    job_id = queued(server.post(portrait=face, speech=sound, fps="10", crop_only="true", seed="3", emotion=""))
    events = server.get(f"/v1/videos/{job_id}/events")
    assert events.headers["content-type"].startswith("text/event-stream")
    seen = re.findall(r"event: (\w+)\ndata: (.*)\n\n", events.body.decode())
    names = [name for name, _ in seen]
    assert names == sorted(names, key=["queued", "running", "done"].index)
    assert names[-1] == "done"
    last = json.loads(seen[-1][1])
    assert last == server.get(f"/v1/videos/{job_id}").json()
    assert (last["state"], last["progress"], last["problem"]) == ("done", None, None)
    assert last["options"] == {"fps": 10.0, "crop_only": True, "seed": 3}
    assert (last["result"]["frames"], last["result"]["emotion"]) == (4, "neutral")
    assert last["result"]["warnings"] == []
    assert server.get("/v1/videos?limit=1").json() == {"videos": [last]}

    whole = server.get(f"/v1/videos/{job_id}/content")
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    assert len(whole.body) == last["result"]["bytes"]
    assert frames_of(whole.body) == 4
    part = server.get(f"/v1/videos/{job_id}/content", Range="bytes=10-19")
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert server.get(f"/v1/videos/{job_id}/content", Range="bytes=99999999-").status == 416
    kept = {path.name for path in (server.data / "jobs" / job_id).iterdir()}
    assert kept == {"video.mp4", "preview.jpg", "landmarks.json"}

    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 204
    assert server.request("DELETE", f"/v1/videos/{job_id}").status == 404
    for path in ("", "/content", "/events"):
        assert server.get(f"/v1/videos/{job_id}{path}").status == 404
    assert not (server.data / "jobs" / job_id).exists()


def test_the_video_itself_is_the_answer_to_one_who_waits(server, face, sound, tmp_path) -> None:
    pictures = np.tile(np.asarray(Image.open(io.BytesIO(face)).convert("RGB")), (2, 1, 1, 1))
    clip = write_video(tmp_path / "clip.mp4", pictures, samples=sine(0.3, 48_000)).read_bytes()
    reply = server.post("/v1/videos?wait=true", portrait=clip, speech=clip, crop_only="1")
    assert (reply.status, reply.headers["content-type"]) == (200, "video/mp4")
    assert frames_of(reply.body) in (7, 8)


def test_a_text_is_said(server, face) -> None:
    video = server.post("/v1/videos?wait=true", portrait=face, text="Hello. I am a face.", crop_only="true")
    assert video.status == 200, video.body
    assert 40 < frames_of(video.body) < 100
    assert server.get("/v1/limits").json()["voices"] == voices()


@pytest.mark.parametrize(
    ("parts", "field", "words"),
    [
        ({"text": "你好"}, "text", "nothing that the voice can say"),
        ({"text": 40 * "This is far too long. "}, "text", f"longer than {MAX_DURATION_S} s"),
        ({"text": 70_000 * "x"}, "text", "too long"),
        ({"text": "Hello.", "voice": "nobody"}, "voice", "no voice 'nobody'"),
        ({"voice": "heart"}, "speech", "the speech is missing; expected a file, or a text"),
        ({"text": "Hello.", "speech": b"RIFF"}, "text", "got speech and text"),
        ({"voice": "heart", "speech": b"RIFF"}, "voice", "a voice says a text"),
    ],
)
def test_a_text_that_cannot_be_said_is_refused(server, face, parts, field, words) -> None:
    answer = server.post(portrait=face, **parts)
    assert answer.status == 422
    assert answer.json()["field"] == field
    assert words in answer.json()["detail"]


def test_a_video_is_dubbed(server, portrait, face, sound, tmp_path) -> None:
    film = write_video(tmp_path / "film.mp4", moving_frames(portrait, 10), samples=sine(0.4, 48_000)).read_bytes()
    job_id = queued(server.post(portrait=film, speech=sound, mode="dub", old_sound="0.3", mouth="1.2"))
    wait_until(lambda: server.get(f"/v1/videos/{job_id}").json()["state"] in ("done", "failed"))
    job = server.get(f"/v1/videos/{job_id}").json()
    assert (job["state"], job["problem"]) == ("done", None)
    result = job["result"]
    assert (result["frames"], result["dubbed"], result["left"], result["fps"]) == (10, 10, {}, 25.0)
    assert job["options"] == {"mode": "dub", "old_sound": 0.3, "mouth": 1.2}
    assert frames_of(server.get(f"/v1/videos/{job_id}/content").body) == 10
    assert server.get(f"/v1/videos/{job_id}/preview").headers["content-type"] == "image/jpeg"
    landmarks = server.get(f"/v1/videos/{job_id}/landmarks").json()["landmarks"]
    assert np.array(landmarks).shape == (10, 68, 2)
    server.request("DELETE", f"/v1/videos/{job_id}")
    assert_refused(server, server.post(portrait=face, speech=sound, mode="dub"), "portrait")
    assert_refused(server, server.post(portrait=film, speech=sound, mode="dub", fps="30"), "fps")
    assert_refused(server, server.post(portrait=film, speech=sound, longer="loop"), "longer")
    assert_refused(server, server.post(portrait=film, speech=sound, mode="dup"), "mode")
    long = write_video(tmp_path / "long.mp4", moving_frames(portrait, 8), 1).read_bytes()
    refused = server.post(portrait=long, speech=sound, mode="dub")
    assert_refused(server, refused, "portrait")
    assert "lasts longer than 6 s" in refused.json()["detail"]


def test_a_prepared_portrait_is_taken(server, face, portrait, detector, sound, tmp_path) -> None:
    known = prepare_portrait(portrait, lambda: detector).save(tmp_path / "face.atl").read_bytes()
    assert server.post("/v1/faces", portrait=known).json() == server.post("/v1/faces", portrait=face).json()
    assert server.post("/v1/videos?wait=true", portrait=known, speech=sound).status == 200
    assert "damaged" in server.post(portrait=known[:-9], speech=sound).json()["detail"]


def test_the_example_makes_a_video(server, portrait, sound, tmp_path) -> None:
    speech, out = tmp_path / "tone.wav", tmp_path / "out.mp4"
    speech.write_bytes(sound)
    command = [sys.executable, str(ROOT / "examples" / "client.py"), str(portrait), str(speech), str(out)]
    address = {"ATLDIFF_URL": f"http://127.0.0.1:{server.port}"}
    said = subprocess.run(command, env=os.environ | address, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert frames_of(out.read_bytes()) == 10
    speech.write_bytes(b"no sound")
    said = subprocess.run(command, env=os.environ | address, capture_output=True, text=True)
    assert said.returncode == 1
    assert "speech: the speech cannot be read" in said.stderr


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "usage: client.py PORTRAIT SPEECH OUTPUT"),
        (["none.jpg", "none.wav", "out.mp4"], "none.jpg"),
        (["here", "here", "out.mp4"], "no service answers at http://127.0.0.1:9"),
    ],
)
def test_the_example_says_in_words_what_is_wrong(tmp_path, names, words) -> None:
    (tmp_path / "here").write_bytes(b"x")
    command = [sys.executable, str(ROOT / "examples" / "client.py"), *names]
    address = {"ATLDIFF_URL": "http://127.0.0.1:9"}
    said = subprocess.run(command, env=os.environ | address, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode != 0
    assert words in said.stderr
    assert "Traceback" not in said.stderr


def test_faces_are_found_from_left_to_right(server, face) -> None:
    one = Image.open(io.BytesIO(face)).convert("RGB").resize((400, 400))
    two = Image.new("RGB", (1000, 500))
    two.paste(one, (0, 0))
    two.paste(one.resize((500, 500)), (500, 0))
    stream = io.BytesIO()
    two.save(stream, "PNG")
    found = server.post("/v1/faces", portrait=stream.getvalue()).json()
    assert (found["width"], found["height"]) == (1000, 500)
    assert [box["number"] for box in found["faces"]] == [1, 2]
    left, right = found["faces"]
    assert left["x"] < 400 < 500 < right["x"]
    assert 1.1 < right["width"] / left["width"] < 1.4
    assert found["warnings"] == []
    cut = io.BytesIO()
    one.crop((144, 0, 250, 190)).resize((318, 570)).save(cut, "PNG")
    told = server.post("/v1/faces", portrait=cut.getvalue()).json()["warnings"]
    assert any("reaches beyond the picture" in text for text in told)
    assert_refused(server, server.post("/v1/faces", portrait=blank()), "portrait")
    assert_refused(server, server.post("/v1/faces", portrait=face, speech=face), "speech")


def test_a_full_queue_says_when_to_come_again_and_deleting_stops_the_work(server, face, long_sound) -> None:
    first, second = (queued(server.post(portrait=face, speech=long_sound, **SLOW)) for _ in range(2))
    server.wait(first, "running")
    assert server.get(f"/v1/videos/{second}").json()["position"] == 1
    refused = server.post(portrait=face, speech=long_sound)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert "queue is full" in refused.json()["detail"]
    conflict = server.get(f"/v1/videos/{first}/content")
    assert (conflict.status, "running" in conflict.json()["detail"]) == (409, True)

    workers = set(server.children)
    assert server.request("DELETE", f"/v1/videos/{second}").status == 204
    assert server.request("DELETE", f"/v1/videos/{first}").status == 204
    wait_until(lambda: not (server.data / "jobs" / first).exists())
    assert len(workers - set(server.children)) == 1


def test_one_who_waits_and_goes_has_the_work_stopped(server, face, long_sound) -> None:
    body, kind = form({"portrait": face, "speech": long_sound, **SLOW})
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head("/v1/videos?wait=true", kind, len(body)) + body)
        wait_until(lambda: figure(server, "atldiff_jobs_running") == 1)
    wait_until(lambda: figure(server, "atldiff_jobs_running") == 0)
    wait_until(lambda: not list((server.data / "jobs").iterdir()))


def test_the_description_names_every_route(server) -> None:
    description = server.get("/openapi.json").json()
    assert set(description["paths"]) >= {"/v1/videos", "/v1/videos/{job_id}", "/health", "/metrics"}
    body = description["paths"]["/v1/videos"]["post"]["requestBody"]
    form_schema = body["content"]["multipart/form-data"]["schema"]
    assert form_schema["required"] == ["portrait"]
    assert form_schema["oneOf"] == [{"required": ["speech"]}, {"required": ["text"]}]
    assert set(form_schema["properties"]) > {"fps", "seed", "emotion", "face"}
    page = server.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert b"/v1/videos/{job_id}/content" in page.body
    assert b"<script" not in page.body


@pytest.mark.skipif(not find_spec("schemathesis"), reason="needs schemathesis")
def test_the_service_keeps_to_its_description(server) -> None:
    address = f"http://127.0.0.1:{server.port}/openapi.json"
    program = Path(sys.executable).with_name("schemathesis")
    options = ["--phases", "coverage", "--generation-database", "none", "--no-color"]
    options += ["--exclude-checks", "positive_data_acceptance", "--seed", "1", "--request-timeout", "60"]
    said = subprocess.run([program, "run", address, *options], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_a_killed_worker_takes_one_job(server, face, sound, long_sound) -> None:
    job_id = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    server.wait(job_id, "running")
    for pid in server.children:
        os.kill(pid, signal.SIGKILL)
    job = server.wait(job_id, "failed")
    assert job["problem"]["status"] == 500
    assert "signal 9" in job["problem"]["detail"]
    assert server.post("/v1/videos?wait=true", portrait=face, speech=sound, crop_only="1").status == 200
    assert figure(server, "atldiff_worker_restarts_total") >= 1
    test_service_live.test_a_live_session_gives_frames(server, face)


def test_a_killed_service_leaves_true_reports(server, face, sound, long_sound) -> None:
    done = queued(server.post(portrait=face, speech=sound, crop_only="1"))
    server.wait(done, "done")
    video = server.get(f"/v1/videos/{done}/content").body
    running_job, waiting = (queued(server.post(portrait=face, speech=long_sound, **SLOW)) for _ in range(2))
    server.wait(running_job, "running")
    workers = server.children
    server.stop(signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    server.start()
    assert server.get(f"/v1/videos/{done}").json()["state"] == "done"
    assert server.get(f"/v1/videos/{done}/content").body == video
    for job_id in (running_job, waiting):
        job = server.get(f"/v1/videos/{job_id}").json()
        assert (job["state"], job["problem"]["status"]) == ("failed", 503)
        assert list((server.data / "jobs" / job_id).iterdir()) == []
    assert (server.data.stat().st_mode & 0o777) == 0o700

    left = queued(server.post(portrait=face, speech=long_sound, **SLOW))
    server.wait(left, "running")
    with contextlib.ExitStack() as stack:
        watching = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        watching.sendall(b"GET /v1/videos/%s/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % left.encode())
        assert watching.recv(12) == b"HTTP/1.1 200"
        body, kind = form({"portrait": face, "speech": sound})
        waiting = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        waiting.sendall(head("/v1/videos?wait=true", kind, len(body)) + body)
        wait_until(lambda: figure(server, "atldiff_jobs_queued") == 1)
        began = time.monotonic()
        assert server.stop() == 143
        assert time.monotonic() - began < 4
        assert waiting.recv(12) == b"HTTP/1.1 503"
    assert any("ending" in line for line in server.log)
    with contextlib.closing(JobStore(server.data, keep_s=60)) as store:
        job = store.get(left)
        assert job is not None
        assert job.problem == {**stopped_problem().body(), "status": 503}
    said = "".join(server.log)
    assert "Traceback" not in said
    assert "faces" not in said
