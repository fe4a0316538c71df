"""Have a service make a video: ``python examples/client.py portrait.jpg speech.wav out.mp4``.

Start one with ``atldiff serve``. ATLDIFF_URL says where it is, ATLDIFF_TOKEN is its bearer token, if it wants one.
"""

import http.client
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

URL = os.environ.get("ATLDIFF_URL", "http://127.0.0.1:8000")
TOKEN = os.environ.get("ATLDIFF_TOKEN", "")


def call(method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {TOKEN}"} if TOKEN else {})
    return urllib.request.urlopen(urllib.request.Request(URL + path, body, headers, method=method))


def send(portrait: Path, speech: Path, **options: str) -> str:
    """Queue a video and return the number of the job; while the queue is full, come again."""
    parts = {"portrait": portrait.read_bytes(), "speech": speech.read_bytes()}
    parts |= {name: value.encode() for name, value in options.items()}
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    body = b"".join((head % name).encode() + content + b"\r\n" for name, content in parts.items())
    while True:
        try:
            kind = f"multipart/form-data; boundary={mark}"
            return json.load(call("POST", "/v1/videos", body + f"--{mark}--\r\n".encode(), kind))["id"]
        except urllib.error.HTTPError as error:
            if error.code != 429:
                raise
            time.sleep(int(error.headers["Retry-After"]))


def main(portrait: Path, speech: Path, output: Path) -> None:
    job, state = send(portrait, speech, emotion="happy"), {}
    for line in call("GET", f"/v1/videos/{job}/events"):
        if line.startswith(b"data: "):
            state = json.loads(line[6:])
            print(state.get("state", "deleted"), state.get("progress") or "")
    if state.get("state") != "done":
        sys.exit(f"no video: {state}")
    with call("GET", f"/v1/videos/{job}/content") as video, output.open("wb") as file:
        shutil.copyfileobj(video, file)
    call("DELETE", f"/v1/videos/{job}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: client.py PORTRAIT SPEECH OUTPUT")
    try:
        main(*map(Path, sys.argv[1:]))
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        sys.exit(f"{problem.get('field', 'refused')}: {problem['detail']}")
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        sys.exit(f"no service answers at {URL}: {getattr(error, 'reason', error)}")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
