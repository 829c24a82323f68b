"""Answers that are made while they are sent: blocks of bytes that threads read, one at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from anyio import CancelScope, CapacityLimiter, move_on_after
from anyio.to_thread import run_sync
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from millrace.core.errors import Busy
from millrace.core.log import get_logger

log = get_logger(__name__)

MOST_STREAMS = 32
TAKEN_WITHIN_S = 60.0
"""Whoever takes nothing for so long holds a place for nothing."""


class _NotTaken(Exception):
    """The client is there, and does not read."""


class Closing(StreamingResponse):
    """A stream whose generator is closed when the answer ends, however it does; one that nobody
    reads is broken off."""

    def __init__(self, blocks: AsyncGenerator[bytes], **answer: Any) -> None:
        super().__init__(blocks, **answer)
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            with move_on_after(TAKEN_WITHIN_S) as sending:
                await send(message)
            if sending.cancelled_caught:
                raise _NotTaken

        try:
            await super().__call__(scope, receive, send_in_time)
        except _NotTaken:
            log.info("broke off an answer that nobody took", path=scope["path"])
        finally:
            await self._blocks.aclose()


class Streams:
    """How many answers may stream at once; each reads ahead by threads of its own."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._open = 0
        self._limiter = CapacityLimiter(most)

    async def answer(
        self, blocks: Generator[bytes], media_type: str, headers: Mapping[str, str]
    ) -> Response:
        """An answer of these blocks. What fails before the first is an error as any other; later
        the connection breaks, so that nobody takes a part for the whole. Raises Busy."""
        sent = self._sent(blocks)
        await anext(sent)
        return Closing(sent, headers=headers, media_type=media_type)

    async def _sent(self, blocks: Generator[bytes]) -> AsyncGenerator[bytes]:
        """The blocks, after an empty one once the first is there."""
        with self._place():
            try:
                block = await run_sync(next, blocks, b"", limiter=self._limiter)
                yield b""
                while block:
                    yield block
                    block = await run_sync(next, blocks, b"", limiter=self._limiter)
            finally:
                with CancelScope(shield=True):
                    await run_sync(blocks.close, limiter=self._limiter)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._open >= self._most:
            raise Busy(f"{self._open} answers are streaming already")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
