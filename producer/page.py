"""Jobs a page at a time, newest first, by what they are about and where they stand."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice

from millrace.core.errors import CorruptRecord, JobNotFound, UsageError
from millrace.core.job import JobState
from millrace.core.jobindex import AT_ONCE, Brief, JobIndex, Place
from millrace.core.model_ref import ModelRef
from millrace.core.services import Services
from millrace.core.status import JobStatus

OUR_LABELS = "millrace/"
"""Labels that begin so are set by us alone."""

ONE_PICTURE = f"{OUR_LABELS}one-picture"
"""The label of a job that answers one request; who does not ask for it does not see it."""

MOST_LOOKED_AT = 1000
"""Jobs that one page looks at: with a filter that few meet, a page may be short or empty."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job has to be. `model` is a name, or a name and version; labels must all be there."""

    states: Set[JobState] = frozenset()
    model: ModelRef | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.states or self.model or self.labels)

    def meets(self, brief: Brief) -> bool:
        spec = brief.spec
        if ONE_PICTURE in spec.labels and ONE_PICTURE not in self.labels:
            return False
        if self.states and brief.state not in self.states:
            return False
        if self.model is not None and (
            spec.model.name != self.model.name
            or self.model.version not in (None, spec.model.version)
        ):
            return False
        return all(spec.labels.get(name) == value for name, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class JobsPage:
    """Some jobs, and where to go on; None if there are no older ones."""

    jobs: list[JobStatus]
    next_cursor: str | None


def jobs_page(
    services: Services,
    read: Callable[[str], JobStatus],
    *,
    limit: int,
    cursor: str | None = None,
    wanted: Wanted | None = None,
) -> JobsPage:
    """At most `limit` jobs that are `wanted`, after those of the page that gave the `cursor`;
    `read` tells the status of each. Raises UsageError for what is no cursor."""
    index, wanted = JobIndex(services.redis), wanted or Wanted()
    places = index.before(decode_cursor(cursor) if cursor else None)
    found: list[JobStatus] = []
    last: Place | None = None
    looked_at = 0
    while batch := [*islice(places, AT_ONCE)]:
        for brief in index.briefs(batch):
            if not wanted.meets(brief):
                continue
            if len(found) == limit:
                return JobsPage(found, encode_cursor(last) if last else None)
            with suppress(JobNotFound, CorruptRecord):
                found.append(read(brief.place.job))
                last = brief.place
        looked_at += len(batch)
        if looked_at >= MOST_LOOKED_AT:
            return JobsPage(found, encode_cursor(batch[-1]))
    return JobsPage(found, None)


def encode_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.created_ms}:{place.job}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place:
    """Raises UsageError."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        ms, separator, job = text.partition(":")
        if not (separator and job and ms.isascii() and ms.isdigit() and len(ms) < 16):
            raise ValueError
        return Place(int(ms), job)
    except (ValueError, binascii.Error, UnicodeError):
        raise UsageError("that is no cursor that a page has given") from None
