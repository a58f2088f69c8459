"""The events of a request on an asyncio event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from . import _idefics


async def stream(engine: _idefics.EngineBase, request: _idefics.Request) -> AsyncIterator[_idefics.Event]:
    """Yields the events of `request`. Leaving the loop early, or cancelling the task, cancels the request.

    Raises Error in place of the END event when the request failed.
    """
    queued = engine.submit_queued(request)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(queued.fileno(), ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            for event in queued.drain():
                error = event.error
                if error is not None and error.code != "cancelled":
                    raise error
                yield event
                if event.type == _idefics.EventType.END:
                    return
    finally:
        loop.remove_reader(queued.fileno())
        engine.cancel(queued.id)
