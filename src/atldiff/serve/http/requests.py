"""What the routes ask of a request: the service, its end, a look at what was uploaded."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread
from fastapi import Request

from atldiff.serve.http.service import Service
from atldiff.serve.problems import Problem
from atldiff.serve.work.store import stopped_problem


def service_of(request: Request) -> Service:
    """The service that a request came to."""
    return request.app.state.service


def ending_of(request: Request) -> asyncio.Event:
    """Set when the service is being stopped."""
    return request.app.state.ending


async def look(request: Request, check: Callable[..., Any], *arguments: Any) -> Any:
    """What a check of the uploads says; it is abandoned where the client goes, or the service ends."""
    abandoned, ending = threading.Event(), ending_of(request)
    watches = [asyncio.create_task(watch) for watch in (_until_gone(request), ending.wait())]
    for watch in watches:
        watch.add_done_callback(lambda _: abandoned.set())
    try:
        limiter = service_of(request).checks
        return await anyio.to_thread.run_sync(check, *arguments, abandoned, limiter=limiter)
    except Problem as problem:
        if ending.is_set():
            raise stopped_problem() from problem
        raise
    finally:
        for watch in watches:
            watch.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
