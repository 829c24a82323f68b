"""What becomes of jobs, told to whoever listens: one look at Redis for all jobs and all listeners.

Twice a second it asks when each watched job was last changed, in one round trip; only those that
were are read whole. Now and then the others are, too, for health is a matter of time.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field

from anyio import CapacityLimiter, move_on_after
from anyio.to_thread import run_sync

from millrace.core.errors import (
    AccessDenied,
    Busy,
    CorruptRecord,
    JobNotFound,
    MillraceError,
    RedisUnavailable,
)
from millrace.core.job import JobState
from millrace.core.log import get_logger
from millrace.core.record import to_ms
from millrace.core.services import Services
from millrace.core.topology import JobKeys
from millrace.producer.http.board import Posted, StatusBoard

log = get_logger(__name__)

LOOK_S = 0.5
LOOK_AGAIN_S = 10.0
HEARTBEAT_S = 15.0
RECONNECT_MS = 2000
MOST_LISTENERS = 1000
KEPT = 64
"""Events of a job that a listener who was away for a moment, or is slow, still gets."""

HEARTBEAT = b": still here\n\n"
END = b"event: end\ndata: {}\n\n"


@dataclass(frozen=True, slots=True)
class Event:
    """One message of a stream: its number here, its id for whoever comes back, its bytes."""

    number: int
    id: str
    frame: bytes


@dataclass(slots=True)
class Watched:
    """One job, and all who listen to it."""

    job: str
    posted: Posted
    events: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT))
    listeners: int = 0
    over: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, posted: Posted) -> None:
        """A newer status: an event, unless it says the same."""
        if self.events and posted.body == self.posted.body:
            self.posted = posted
            return
        moved = not self.events or _standing(posted) != _standing(self.posted)
        kind = "status" if moved else "progress"
        self.posted = posted
        name = event_id(posted)
        frame = b"id: %s\nevent: %s\ndata: %s\n\n" % (name.encode(), kind.encode(), posted.body)
        number = self.events[-1].number + 1 if self.events else 1
        self.events.append(Event(number, name, frame))
        self.over = posted.status.terminal
        self.wake()

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def seen(self, last_id: str | None) -> int:
        """The number of the event with that id; else that of the last one but one."""
        for event in self.events:
            if event.id == last_id:
                return event.number
        return self.events[-1].number - 1

    def since(self, number: int) -> list[Event]:
        return [event for event in self.events if event.number > number]


class Watcher:
    """All of it belongs to one event loop."""

    def __init__(self, services: Services, board: StatusBoard) -> None:
        self._redis = services.redis
        self._board = board
        self._watched: dict[str, Watched] = {}
        self._open = 0
        self._task: asyncio.Task[None] | None = None
        self._limiter = CapacityLimiter(1)
        self._stopping = False

    @property
    def listeners(self) -> int:
        """Event streams that are open, those of pages as well."""
        return self._open

    @contextmanager
    def place(self) -> Iterator[None]:
        """For one more event stream. Raises Busy."""
        if self._open >= MOST_LISTENERS:
            raise Busy(f"{MOST_LISTENERS} event streams are open already")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def stream(self, job: str, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """The frames of an event stream, from what the listener with that last id has not seen; the
        first is empty, and comes once the job is found. Raises JobNotFound, Busy."""
        posted = await self._board.posted(job)
        with self.place(), self._listening(job, posted) as watched:
            yield b""
            yield b"retry: %d\n\n" % RECONNECT_MS
            number = watched.seen(last_id)
            while not self._stopping:
                news = watched.news
                for event in watched.since(number):
                    number = event.number
                    yield event.frame
                if watched.since(number) or self._stopping:
                    continue  # it came while a slow listener took the ones before
                if watched.over:
                    yield END
                    return
                with move_on_after(HEARTBEAT_S) as waiting:
                    await news.wait()
                if waiting.cancelled_caught:
                    yield HEARTBEAT

    def end(self) -> None:
        """End all streams: their listeners come back to whichever server is there then."""
        self._stopping = True
        for watched in self._watched.values():
            watched.wake()

    @contextmanager
    def _listening(self, job: str, posted: Posted) -> Iterator[Watched]:
        watched = self._watched.get(job)
        if watched is None or watched.over:  # a new job of that name, or one that goes on
            watched = self._watched[job] = Watched(job, posted)
            watched.tell(posted)
        watched.listeners += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look_on(), context=Context())
        try:
            yield watched
        finally:
            watched.listeners -= 1
            if not watched.listeners and self._watched.get(job) is watched:
                del self._watched[job]

    async def _look_on(self) -> None:
        """Until nobody listens."""
        troubled = False
        try:
            while self._watched and not self._stopping:
                await asyncio.sleep(LOOK_S)
                try:
                    await self._look()
                    troubled = False
                except Exception as error:
                    # Whatever it is, all streams would stand still if this ended.
                    if not troubled:
                        _tell(error)
                    troubled = True
        finally:
            self._task = None

    async def _look(self) -> None:
        """What is wrong with one job is raised once all others were looked at."""
        wrong: Exception | None = None
        jobs = [*self._watched]
        changed = await run_sync(self._changed_at, jobs, limiter=self._limiter)
        for job, changed_ms in zip(jobs, changed, strict=True):
            watched = self._watched.get(job)
            if watched is None or watched.over:
                continue
            if changed_ms is None:
                watched.over = True  # it was deleted
                watched.wake()
            elif changed_ms != to_ms(watched.posted.status.updated_at) or _stale(watched):
                try:
                    watched.tell(await self._board.posted(job))
                except (RedisUnavailable, AccessDenied):
                    raise
                except (JobNotFound, CorruptRecord):
                    continue  # the next look says so
                except Exception as error:
                    wrong = error
        if wrong is not None:
            raise wrong

    def _changed_at(self, jobs: Sequence[str]) -> list[int | None]:
        with self._redis.errors():
            pipe = self._redis.raw.pipeline(transaction=False)
            for job in jobs:
                pipe.hget(JobKeys(job).record, "updated_ms")
            return [_ms(said) for said in pipe.execute(raise_on_error=False)]


def _ms(said: bytes | Exception | None) -> int | None:
    """None if there is no such job. Of what is no time, one that no status has: reading the whole
    record tells what is wrong with it."""
    try:
        return None if said is None else int(said)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return -1


def _tell(error: Exception) -> None:
    if isinstance(error, MillraceError):
        log.warning("cannot look after jobs", error=error.message)
    else:
        log.error("looking after jobs failed", exc_info=error)


def event_id(posted: Posted) -> str:
    """The same on every server that reads the same."""
    return f"{to_ms(posted.status.updated_at)}-{zlib.crc32(posted.body):08x}"


def _stale(watched: Watched) -> bool:
    """Time alone may have changed it. Nothing becomes of a paused job but by somebody's act."""
    age = time.monotonic() - watched.posted.read_at
    return age > (LOOK_AGAIN_S * 6 if _paused(watched) else LOOK_AGAIN_S)


def _paused(watched: Watched) -> bool:
    return watched.posted.status.state is JobState.PAUSED


def _standing(posted: Posted) -> tuple[object, ...]:
    status = posted.status
    return status.state, status.reason, status.health, status.input.listing_complete
