"""``atldiff studio``: the service with a page of its own, opened in the browser."""

import argparse
import logging
import threading
import webbrowser
from urllib.parse import quote

from atldiff.cli import serve
from atldiff.serve.settings import default_data_folder

EXAMPLES = """examples:
  atldiff studio
  atldiff studio --page live
  atldiff studio --no-browser --port 9000
"""

PAGES = ("videos", "live")

_EVERY_ADDRESS = ("0.0.0.0", "::")

_log = logging.getLogger("atldiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments to its parser."""
    serve.add_arguments(parser)
    parser.add_argument("--page", choices=PAGES, default=PAGES[0], help="which page is opened (default: %(default)s)")
    parser.add_argument(
        "--no-browser", action="store_true", help="say where the page is, but do not open it (default: open it)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Do what the verb was asked for. Raises ATLDiffError where that cannot be."""
    settings = serve.settings_of(arguments, default_data_folder("studio"), studio=True)

    def show(port: int) -> None:
        address = page_address(arguments.host, port) + ("live" if arguments.page == "live" else "")
        _log.info("the studio is at %s", address)
        if not arguments.no_browser:
            token = f"#token={quote(settings.tokens[0])}" if settings.tokens else ""
            # A browser that runs in the terminal would hold up the service.
            threading.Thread(target=webbrowser.open, args=(address + token,), daemon=True).start()

    serve.serve(arguments, settings, when_serving=show)


def page_address(host: str, port: int) -> str:
    """Where this machine's own browser finds the page of a service that listens on ``host``."""
    name = "127.0.0.1" if host in _EVERY_ADDRESS else host
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"
