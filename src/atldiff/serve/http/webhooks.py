"""Webhooks: who made a job is told of its end by a signed POST to an address of their own (Standard Webhooks)."""

import base64
import contextlib
import hashlib
import heapq
import hmac
import http.client
import ipaddress
import logging
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import SplitResult, urlsplit

from atldiff.errors import InputError
from atldiff.serve.http.schemas import Video
from atldiff.serve.problems import Problem
from atldiff.serve.work.store import FINAL, Job, JobStore

WEBHOOK = "webhook"
"""The field of the form."""

RETRIES_S = (5.0, 30.0, 120.0, 600.0)
"""Pauses before each further try; after the last the receiver is given up."""

_TIMEOUT_S = 10.0
"""Seconds that a receiver may take for its answer."""

_SENDERS = 4
"""Webhooks that are sent at once."""

_SECRET_PREFIX = "whsec_"
_LEAST_SECRET = 16
"""Bytes of the shortest secret."""

_PORTS = {"http": 80, "https": 443}
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")

_log = logging.getLogger("atldiff")


@dataclass(frozen=True)
class Address:
    """Where a webhook goes.

    Attributes:
        scheme: ``http`` or ``https``.
        host, port: of the receiver.
        target: path and query.
    """

    scheme: str
    host: str
    port: int
    target: str


class Webhooks:
    """Tells receivers of jobs that have ended; what was not told when the service ended is told at its next start.

    Args:
        store: where the jobs are, with the addresses.
        secret: signs; empty: webhooks are refused.
        allows_private: whether addresses inside a private network, this machine's among them, are called.
        retries_s: as :data:`RETRIES_S`.
    """

    def __init__(
        self, store: JobStore, secret: str, allows_private: bool, retries_s: tuple[float, ...] = RETRIES_S
    ) -> None:
        self._store, self._key, self._allows_private = store, signing_key(secret), allows_private
        self._retries_s = retries_s
        self._changed = threading.Condition()
        self._due: list[tuple[float, str, int]] = []
        self._stopped = False
        self._senders = ThreadPoolExecutor(_SENDERS, "atldiff-webhook")
        self._thread = threading.Thread(target=self._work, name="atldiff-webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send, also what an earlier service did not get to."""
        with contextlib.suppress(Problem):  # the store has told what fails in it
            for job_id in self._store.untold():
                self.announce(job_id)
        self._thread.start()

    def stop(self) -> None:
        """What is not told by now is told at the next start."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()
        self._senders.shutdown(wait=False, cancel_futures=True)

    def check(self, text: str) -> None:
        """Raises Problem: webhooks are off, or this is no address to call."""
        try:
            if not self._key:
                raise InputError("this service sends no webhooks; expected one with a secret for them")
            literal = _literal(read_address(text).host)
            if literal is not None:  # a name is looked up when it is called
                self._check_reachable(literal)
        except InputError as error:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), WEBHOOK) from error

    def announce(self, job_id: str) -> None:
        """A job has ended; any thread may say so."""
        self._plan(job_id, 0, 0.0)

    def _plan(self, job_id: str, tries: int, pause_s: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + pause_s, job_id, tries))
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._stopped:
                    return
                left_s = self._due[0][0] - time.monotonic() if self._due else None
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                    continue
                _, job_id, tries = heapq.heappop(self._due)
                self._senders.submit(self._send, job_id, tries)

    def _send(self, job_id: str, tries: int) -> None:
        try:
            job = self._store.get(job_id)
            if job is None or job.webhook is None or job.state not in FINAL:
                return
            fault = self._post(job, read_address(job.webhook))
            if fault and tries < len(self._retries_s):
                pause_s = self._retries_s[tries]
                _log.info("job %s: the webhook %s; trying again in %g s", job_id, fault, pause_s)
                self._plan(job_id, tries + 1, pause_s)
                return
            if fault:
                _log.warning("job %s: the webhook %s; given up after %d tries", job_id, fault, tries + 1)
            self._store.forget_webhook(job_id)
        except Exception as error:  # of the store: told at the next start
            _log.warning("job %s: the webhook was not sent (%s)", job_id, type(error).__name__)

    def _post(self, job: Job, address: Address) -> str:
        """Send it; gives what went wrong, or "". Redirects are not followed, and no body is read."""
        body = body_of(job)
        headers = {"Content-Type": "application/json", **signature(self._key, job.id, int(time.time()), body)}
        try:
            with contextlib.closing(self._connected(address)) as connection:
                # Whoever answers a byte at a time is cut off.
                watchdog = threading.Timer(_TIMEOUT_S, _cut, (connection.sock,))
                watchdog.start()
                try:
                    connection.request("POST", address.target, body, headers)
                    status = connection.getresponse().status
                finally:
                    watchdog.cancel()
        except InputError as error:
            return str(error)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            return f"could not be reached ({type(error).__name__})"
        return "" if 200 <= status < 300 else f"was answered with status {status}"

    def _connected(self, address: Address) -> http.client.HTTPConnection:
        """A connection to an address that was looked at, and is not looked up again."""
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        for entry in found:
            self._check_reachable(ipaddress.ip_address(entry[4][0]))
        raw = socket.create_connection((str(found[0][4][0]), address.port), _TIMEOUT_S)
        if address.scheme == "http":
            connection = http.client.HTTPConnection(address.host, address.port)
            connection.sock = raw
            return connection
        try:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(address.host, address.port, context=context)
            connection.sock = context.wrap_socket(raw, server_hostname=address.host)
        except BaseException:
            raw.close()
            raise
        return connection

    def _check_reachable(self, address: "ipaddress.IPv4Address | ipaddress.IPv6Address") -> None:
        if not self._allows_private and not is_public(address):
            raise InputError("the webhook leads to a private address; expected one that everyone can reach")


def read_address(text: str) -> Address:
    """The address of a receiver. Raises InputError."""
    expected = "expected http:// or https://, a host and a path"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InputError(f"the webhook is no address; {expected}") from error
    is_plain = text.isascii() and text.isprintable() and " " not in text
    if not is_plain or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or parts.fragment:
        raise InputError(f"the webhook is no address; {expected}, without a user's name and a fragment")
    return Address(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], _target(parts))


def _literal(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def is_public(address: Any) -> bool:
    """Whether an IP address is one of the internet's, also where an IPv6 address carries one of IPv4."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _TRANSLATED:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def signing_key(secret: str) -> bytes:
    """The key of a secret: what follows ``whsec_`` in base 64, or the text itself.

    Raises:
        InputError: too short, or no base 64.
    """
    if not secret:
        return b""
    key = secret.encode()
    if secret.startswith(_SECRET_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except ValueError as error:
            raise InputError(f"the webhooks' secret is no base 64 after {_SECRET_PREFIX}") from error
    if len(key) < _LEAST_SECRET:
        raise InputError(f"the webhooks' secret has {len(key)} bytes; expected at least {_LEAST_SECRET}")
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that say who sent it and when; the receiver makes the same of the body and compares."""
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "Webhook-Id": message_id,
        "Webhook-Timestamp": str(timestamp),
        "Webhook-Signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def body_of(job: Job) -> bytes:
    """What is sent: the kind of end, and the job as the API shows it."""
    message = Video.of(job).model_dump_json()
    return f'{{"type":"video.{job.state}","data":{message}}}'.encode()


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
