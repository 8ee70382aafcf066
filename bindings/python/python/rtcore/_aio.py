"""``async for m in inbox``: the event loop watches the inbox's descriptor. No thread, no polling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ._errors import Closed
from ._rtcore import Event, Inbox, Message

#: Messages that are handed out one after the other before other tasks run.
_BURST = 64


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def messages(inbox: Inbox) -> AsyncIterator[Message | Event]:
    """Until the session is closed and all that had come is taken."""
    loop = asyncio.get_running_loop()
    inbox._begin_listening()
    try:
        fd = inbox.fileno()
        burst = 0
        while True:
            try:
                found = inbox.try_recv()
            except Closed:
                return
            if found is not None:
                yield found
                burst += 1
                if burst % _BURST == 0:
                    await asyncio.sleep(0)
                continue
            burst = 0
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(fd, _wake, ready)
            try:
                await ready
            finally:
                loop.remove_reader(fd)
    finally:
        inbox._end_listening()
