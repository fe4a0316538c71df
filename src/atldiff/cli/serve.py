"""``atldiff serve``: the HTTP and WebSocket service."""

import argparse
import os
from pathlib import Path
from typing import Any

from atldiff.errors import InputError, ModelError
from atldiff.serve.settings import LOOPBACK_NAMES, ServeSettings, default_data_folder, read_secret, read_tokens

EXAMPLES = """examples:
  atldiff serve
  atldiff serve --workers 2 --token-file tokens --host 0.0.0.0 --allow-host faces.example.org
  curl -F portrait=@me.jpg -F speech=@speech.wav 'http://127.0.0.1:8000/v1/videos?wait=true' -o out.mp4
"""

TOKENS_VARIABLE = "ATLDIFF_TOKENS"
SECRET_VARIABLE = "ATLDIFF_WEBHOOK_SECRET"

_ANY_HOST = "*"
_LAST_PORT = 65_535


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    add, default = parser.add_argument, ServeSettings
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", metavar="N", type=_port, default=8000, help="0 for any that is free (default: %(default)s)")
    add("--model", metavar="DIR", help="folder of a model (default: the one in the package)")
    add(
        "--workers", metavar="N", type=int, default=default.workers, help="videos made at once (default: %(default)s)"
    )
    add("--live", metavar="N", type=int, default=default.live_sessions, help="live sessions (default: %(default)s)")
    add("--queue", metavar="N", type=int, default=default.queue, help="jobs that may wait (default: %(default)s)")
    add(
        "--data",
        metavar="DIR",
        type=Path,
        help="private folder for the jobs (default: one of this verb's own in $XDG_STATE_HOME/atldiff)",
    )
    add("--keep-hours", metavar="X", type=float, default=24.0, help="until a job is removed (default: %(default)g)")
    add(
        "--job-timeout", metavar="X", type=float, default=default.job_timeout_s, help="seconds (default: %(default)g)"
    )
    add(
        "--upload-timeout",
        metavar="X",
        type=float,
        default=default.upload_timeout_s,
        help="seconds for a body (default: %(default)g)",
    )
    add("--max-upload", metavar="MIB", type=float, default=32.0, help="of a request (default: %(default)g)")
    add(
        "--max-duration",
        metavar="X",
        type=float,
        default=default.max_duration_s,
        help="of the speech, in seconds (default: %(default)g)",
    )
    add(
        "--max-pixels",
        metavar="MP",
        type=float,
        default=40.0,
        help="of the portrait, in millions (default: %(default)g)",
    )
    add("--worker-memory", metavar="MIB", type=float, help="that a worker may allocate (default: no limit)")
    add(
        "--token-file",
        metavar="FILE",
        type=Path,
        help=f"bearer tokens, one a line; ${TOKENS_VARIABLE} adds to them (default: none)",
    )
    add(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help=f"a name that requests may use, {_ANY_HOST} for any (default: this machine's own)",
    )
    add(
        "--webhook-secret-file",
        metavar="FILE",
        type=Path,
        help=f"the secret that signs webhooks (default: that in ${SECRET_VARIABLE}, or no webhooks)",
    )
    add("--webhook-private", action="store_true", help="let webhooks lead to private addresses (default: no)")
    add(
        "--root-path",
        metavar="PATH",
        default="",
        help="below which a reverse proxy shows the service, such as /faces (default: it has a name for itself)",
    )


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text[:9]) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port; expected a whole number from 0 to {_LAST_PORT}")
    return int(text)


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    serve(arguments, settings_of(arguments, default_data_folder()))


def settings_of(arguments: argparse.Namespace, data: Path, studio: bool = False) -> ServeSettings:
    """The settings that the arguments ask for; the jobs lie in ``data`` unless they say otherwise."""
    memory = arguments.worker_memory
    hosts = [*LOOPBACK_NAMES, arguments.host, *arguments.allow_host]
    return ServeSettings(
        data=arguments.data or data,
        model=arguments.model or ServeSettings.model,
        device=arguments.device,
        workers=arguments.workers,
        live_sessions=arguments.live,
        queue=arguments.queue,
        max_upload_bytes=round(arguments.max_upload * 2**20),
        max_duration_s=arguments.max_duration,
        max_pixels=round(arguments.max_pixels * 1e6),
        job_timeout_s=arguments.job_timeout,
        upload_timeout_s=arguments.upload_timeout,
        keep_s=arguments.keep_hours * 3600,
        worker_memory_bytes=None if memory is None else round(memory * 2**20),
        tokens=read_tokens(arguments.token_file, os.environ.get(TOKENS_VARIABLE, "")),
        allowed_hosts=() if _ANY_HOST in hosts else tuple(name.lower() for name in hosts),
        studio=studio,
        webhook_secret=read_secret(arguments.webhook_secret_file, os.environ.get(SECRET_VARIABLE, "")),
        webhook_private=arguments.webhook_private,
        root_path=arguments.root_path.rstrip("/"),
    )


def serve(arguments: argparse.Namespace, settings: ServeSettings, **more: Any) -> None:
    """Run the service; ``more`` goes to :func:`atldiff.serve.http.server.run_server`.

    Raises:
        InputError: the extra is not installed, or the service cannot start as it was asked to.
        ModelError: there is no such model.
    """
    try:
        from atldiff.serve.http.server import run_server
    except ImportError as error:
        raise InputError(
            f'the service needs FastAPI and more: pip install "atldiff[serve]" ({error.name})'
        ) from error
    if arguments.model is not None and not Path(arguments.model).is_dir():
        raise ModelError(f"no model {arguments.model!r}: expected a folder")
    run_server(settings, arguments.host, arguments.port, **more)
