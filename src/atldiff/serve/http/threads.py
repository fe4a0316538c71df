"""What waits for the disk or for the table of jobs waits in a thread, never where requests are answered."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

import anyio
from fastapi.concurrency import run_in_threadpool

Value = TypeVar("Value")


@asynccontextmanager
async def in_threads(manager: AbstractContextManager[Value, bool | None]) -> AsyncIterator[Value]:
    """A context that is entered and left in threads, and left even where the task is cancelled."""
    value = await run_in_threadpool(manager.__enter__)
    try:
        yield value
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_threadpool(manager.__exit__, *sys.exc_info())
