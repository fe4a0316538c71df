"""Webhooks: signed, tried again within bounds, told after a restart, and never led into a private network."""

import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from atldiff.errors import InputError
from atldiff.serve.http.webhooks import Webhooks, is_public, read_address, signing_key
from atldiff.serve.problems import Problem
from atldiff.serve.settings import read_secret
from atldiff.serve.work.store import JobStore
from service_server import form, queued, running, wait_until

SECRET = "a secret of the tests"
PRIVATE = (
    "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::a00:1",
    "2002:7f00:1::", "::ffff:169.254.169.254",
)  # fmt: skip


class Receiver(ThreadingHTTPServer):
    """Answers with the given statuses, one after another, the last for ever; keeps what came."""

    daemon_threads = True

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.came: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/done?from=tests"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.came.append((self.path, dict(self.headers), body))
        statuses = self.server.statuses
        self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextlib.contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    with Receiver(*statuses) as receiver:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        yield receiver
        receiver.shutdown()


@contextlib.contextmanager
def telling(store: JobStore, retries_s: tuple[float, ...] = (0.05, 0.05)) -> Iterator[Webhooks]:
    webhooks = Webhooks(store, SECRET, allows_private=True, retries_s=retries_s)
    webhooks.start()
    yield webhooks
    webhooks.stop()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "data", keep_s=60)
    yield opened
    opened.close()


def failed_job(store: JobStore, webhook: str) -> str:
    with store.new_folder() as job_id:
        store.add(job_id, {"fps": 5.0}, webhook=webhook)
    store.finish(job_id, Problem(422, "no face", "portrait"))
    return job_id


def assert_signed(headers: dict[str, str], body: bytes) -> None:
    """As the specification of Standard Webhooks says, computed here anew."""
    signed = f"{headers['Webhook-Id']}.{headers['Webhook-Timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["Webhook-Signature"] == f"v1,{expected}"
    assert abs(int(headers["Webhook-Timestamp"]) - time.time()) < 60


def test_the_end_of_a_job_is_told_again_until_it_is_taken(store) -> None:
    with receiving(500, 302, 204) as receiver, telling(store) as webhooks:
        job_id = failed_job(store, receiver.address)
        webhooks.announce(job_id)
        wait_until(lambda: store.untold() == [])
        assert len(receiver.came) == 3
        assert {path for path, _, _ in receiver.came} == {"/done?from=tests"}
        for _, headers, body in receiver.came:
            assert_signed(headers, body)
        message = json.loads(receiver.came[-1][2])
        assert (message["type"], message["data"]["id"]) == ("video.failed", job_id)
        assert message["data"]["problem"]["detail"] == "no face"
        assert receiver.address not in json.dumps(message)


def test_a_receiver_that_never_takes_it_is_given_up(store) -> None:
    with receiving(500) as receiver, telling(store) as webhooks:
        webhooks.announce(failed_job(store, receiver.address))
        wait_until(lambda: store.untold() == [])
        time.sleep(0.2)
        assert len(receiver.came) == 3


def test_what_was_not_told_is_told_at_the_next_start(store) -> None:
    with receiving(200) as receiver:
        job_id = failed_job(store, receiver.address)
        deleted = failed_job(store, receiver.address)
        store.remove(deleted)
        with telling(store):
            wait_until(lambda: store.untold() == [])
        assert [json.loads(body)["data"]["id"] for _, _, body in receiver.came] == [job_id]


def test_private_addresses_are_refused_when_asked_and_when_called(store) -> None:
    assert [text for text in PRIVATE if is_public(ipaddress.ip_address(text))] == []
    assert is_public(ipaddress.ip_address("93.184.215.14"))
    assert is_public(ipaddress.ip_address("2606:4700::1111"))
    webhooks = Webhooks(store, SECRET, allows_private=False, retries_s=())
    for address in ("http://127.0.0.1/x", "http://[::1]:8000/", "https://169.254.169.254/latest"):
        with pytest.raises(Problem, match="private address") as caught:
            webhooks.check(address)
        assert (caught.value.status, caught.value.field) == (422, "webhook")
    webhooks.check("https://example.org/hook")
    webhooks.start()
    with receiving(200) as receiver:
        webhooks.announce(failed_job(store, f"http://localhost:{receiver.server_port}/"))
        wait_until(lambda: store.untold() == [])
        assert receiver.came == []
    webhooks.stop()


@pytest.mark.parametrize(
    "text",
    ["", "example.org", "ftp://example.org/", "file:///etc/passwd", "http://", "http://me@example.org/",
     "http://a b/", "http://example.org/#part", "http://example.org:99999/", "http://[::1/",
     "http://example.org/\r\nX: y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text) -> None:
    with pytest.raises(InputError, match="the webhook is no address"):
        read_address(text)


def test_secrets(store, tmp_path) -> None:
    with pytest.raises(Problem, match="sends no webhooks"):
        Webhooks(store, "", allows_private=False).check("https://example.org/")
    assert signing_key("whsec_" + base64.b64encode(bytes(range(24))).decode()) == bytes(range(24))
    for secret, words in (("short", "has 5 bytes"), ("whsec_***", "no base 64"), ("whsec_YQ==", "has 1 bytes")):
        with pytest.raises(InputError, match=words):
            signing_key(secret)
    (tmp_path / "secret").write_text(SECRET + "\n")
    assert read_secret(tmp_path / "secret", "another") == SECRET
    (tmp_path / "secret").write_text("one\ntwo\n")
    with pytest.raises(InputError, match="has 2 lines"):
        read_secret(tmp_path / "secret", "")


def test_a_service_tells_of_a_video(tiny_model, tmp_path, face, sound) -> None:
    (tmp_path / "secret").write_text(SECRET)
    options = ["--webhook-secret-file", str(tmp_path / "secret"), "--webhook-private"]
    model = ["--model", str(tiny_model), "--device", "cpu"]
    with receiving(200) as receiver, running(tmp_path / "data", *model, *options) as server:
        assert server.post(portrait=face, speech=sound, webhook="gopher://x/").json()["field"] == "webhook"
        waited = server.request("POST", "/v1/videos?wait=true", *upload(face, sound, receiver.address))
        assert (waited.status, waited.json()["field"]) == (422, "webhook")
        options = {"fps": "5", "aspect": "1:1", "max_size": "320", "audio_track": "1"}
        job_id = queued(server.post(portrait=face, speech=sound, webhook=receiver.address, **options))
        wait_until(lambda: len(receiver.came) == 1)
        _, headers, body = receiver.came[0]
        assert_signed(headers, body)
        job = server.get(f"/v1/videos/{job_id}").json()
        assert json.loads(body) == {"type": "video.done", "data": job}
        assert job["options"] == {"fps": 5.0, "aspect": "1:1", "max_size": 320, "audio_track": 1}
        landmarks = server.get(f"/v1/videos/{job_id}/landmarks").json()
        assert (landmarks["width"], landmarks["height"]) == (320, 320)
        assert not [line for line in server.log if receiver.address in line or "Traceback" in line]


def upload(face: bytes, sound: bytes, webhook: str) -> tuple[bytes, dict[str, str]]:
    body, kind = form({"portrait": face, "speech": sound, "webhook": webhook})
    return body, {"Content-Type": kind}
