"""The record hash read into a typed value."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.errors import CorruptRecord
from millrace.core.job import JobState
from millrace.core.record import Counts, JobRecord, TimingTotals, from_ms, initial_fields, to_ms
from tests.unit.core.support import a_spec

few = st.integers(0, 1000)


def stored(**changes: object) -> dict[bytes, bytes]:
    """The hash of a new job as Redis would hand it over, with `changes`."""
    fields = {**initial_fields(a_spec()), "created_ms": 1000, "updated_ms": 2000, **changes}
    return {name.encode(): str(value).encode() for name, value in fields.items()}


def test_a_new_job_is_queued_and_empty() -> None:
    record = JobRecord.read(stored())
    assert record.spec == a_spec()
    assert record.state is JobState.QUEUED
    assert record.counts == Counts(0, 0, 0, 0, 0)
    assert (record.chunks, record.done, record.fed, record.parts) == (0, 0, 0, 0)
    assert not record.listing_complete
    assert (record.reason, record.ending, record.version, record.digest) == (None,) * 4
    assert (record.started_at, record.progress_at, record.completed_at) == (None,) * 3


def test_a_job_knows_the_model_it_was_pinned_to_at_submission() -> None:
    spec = a_spec(model={"name": "m", "version": "3", "digest": "sha256:d"})
    fields = initial_fields(spec)
    assert (fields["version"], fields["digest"]) == ("3", "sha256:d")


def test_every_field_is_read_as_its_type() -> None:
    record = JobRecord.read(
        stored(
            state="cancelling",
            reason="interrupted",
            ending="cancelled",
            version="1",
            digest="sha256:d",
            total=10,
            succeeded=4,
            failed=3,
            skipped=2,
            cancelled=1,
            chunks=5,
            done=4,
            fed=5,
            parts=1,
            listing_complete=1,
            fetch_us=1,
            decode_us=2,
            infer_us=3,
            write_us=4,
            started_ms=1500,
            progress_ms=1750,
            completed_ms=1999,
        )
    )
    assert (record.state, record.ending) == (JobState.CANCELLING, JobState.CANCELLED)
    assert record.counts == Counts(10, 4, 3, 2, 1)
    assert record.listing_complete
    assert record.timing == TimingTotals(1, 2, 3, 4)
    assert record.created_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert record.progress_at == from_ms(1750)


@pytest.mark.parametrize("missing", ["spec", "state", "created_ms", "updated_ms"])
def test_a_hash_without_an_essential_is_corrupt(missing: str) -> None:
    fields = stored()
    del fields[missing.encode()]
    with pytest.raises(CorruptRecord):
        JobRecord.read(fields)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spec", "{}"),
        ("spec", "not JSON"),
        ("state", "dreaming"),
        ("ending", "happily"),
        ("total", "many"),
        ("created_ms", "today"),
        ("started_ms", "1.5"),
    ],
)
def test_a_field_that_is_not_ours_is_corrupt(name: str, text: str) -> None:
    with pytest.raises(CorruptRecord):
        JobRecord.read(stored(**{name: text}))


@given(few, few, few, few, few)
def test_pending_is_what_has_no_outcome(s: int, f: int, k: int, c: int, pending: int) -> None:
    counts = Counts(s + f + k + c + pending, s, f, k, c)
    assert (counts.pending, counts.finished) == (pending, s + f + k + c)


@given(few, few, few, few)
def test_timing_shares_are_parts_of_one_whole(a: int, b: int, c: int, d: int) -> None:
    shares = TimingTotals(a, b, c, d).shares()
    assert list(shares) == ["fetch", "decode", "infer", "write"]
    assert sum(shares.values()) == pytest.approx(1 if a + b + c + d else 0, abs=0.001)


def test_waits_are_no_part_of_the_shares() -> None:
    assert TimingTotals(1, 1, 1, 1, 9, 9, 9).shares() == TimingTotals(1, 1, 1, 1).shares()


def test_times_are_utc() -> None:
    assert from_ms(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


@given(st.integers(0, 2**42))
def test_milliseconds_survive_the_way_there_and_back(ms: int) -> None:
    assert to_ms(from_ms(ms)) == ms
