"""The status worked out of a snapshot: rate, time left, health, and the JSON's shape."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.job import JobState
from millrace.core.jobstore import Snapshot
from millrace.core.record import JobRecord, initial_fields
from millrace.core.status import JobStatus, status_of
from tests.unit.core.support import a_spec

NOW = 10_000_000


def a_snapshot(
    *,
    spec: Any = None,
    pace: list[tuple[int, int]] | None = None,
    owners: tuple[str, ...] = (),
    live: int = 1,
    **fields: object,
) -> Snapshot:
    """A job at `NOW`: by default running, listed, 10 of 100 images done."""
    stands = {
        "state": "running",
        "listing_complete": 1,
        "total": 100,
        "succeeded": 10,
        "created_ms": NOW - 50_000,
        "started_ms": NOW - 40_000,
        "updated_ms": NOW,
        **fields,
    }
    text = {**initial_fields(spec or a_spec()), **stands}
    hashed = {name.encode(): str(value).encode() for name, value in text.items()}
    return Snapshot(
        record=JobRecord.read(hashed),
        by_code={},
        samples=[],
        pace=pace or [],
        now_ms=NOW,
        owners=list(owners),
        live_workers=live,
    )


def a_status(**what: Any) -> JobStatus:
    return status_of(a_snapshot(**what))


def test_the_rate_is_of_the_images_since_the_oldest_recent_completion() -> None:
    pace = [(NOW, 20), (NOW - 5_000, 20), (NOW - 10_000, 999)]
    assert a_status(pace=pace).rate_images_per_s == 4.0


def test_the_rate_falls_while_nothing_completes() -> None:
    pace = [(NOW - 10_000, 20), (NOW - 20_000, 20)]
    assert a_status(pace=pace).rate_images_per_s == 1.0


def test_completions_older_than_a_minute_do_not_count() -> None:
    pace = [(NOW, 20), (NOW - 10_000, 20), (NOW - 60_001, 10_000)]
    assert a_status(pace=pace).rate_images_per_s == 2.0


@pytest.mark.parametrize("pace", [[], [(NOW, 20)], [(NOW, 20), (NOW - 61_000, 20)]])
def test_one_completion_makes_no_rate(pace: list[tuple[int, int]]) -> None:
    status = a_status(pace=pace)
    assert (status.rate_images_per_s, status.eta_s) == (0.0, None)


def test_the_rate_of_a_job_that_ended_is_of_its_whole_run() -> None:
    status = a_status(
        state="succeeded", total=100, succeeded=90, failed=10, completed_ms=NOW - 20_000
    )
    assert status.rate_images_per_s == 5.0


@pytest.mark.parametrize("started", [{"started_ms": ""}, {"started_ms": NOW, "completed_ms": NOW}])
def test_a_job_that_ended_at_once_has_no_rate(started: dict[str, object]) -> None:
    ended = {"state": "failed", "completed_ms": NOW, **started}
    assert a_status(**ended).rate_images_per_s == 0.0


def test_the_time_left_is_what_is_pending_over_the_rate() -> None:
    assert a_status(pace=[(NOW, 20), (NOW - 10_000, 1)]).eta_s == 45.0


def test_the_time_left_is_unknown_while_listing() -> None:
    status = a_status(pace=[(NOW, 20), (NOW - 10_000, 1)], listing_complete=0)
    assert (status.rate_images_per_s, status.eta_s) == (2.0, None)


def test_no_time_is_left_after_the_end() -> None:
    assert a_status(state="succeeded", succeeded=100, completed_ms=NOW).eta_s is None


@given(st.lists(st.tuples(st.integers(0, NOW), st.integers(0, 1000)), max_size=20))
def test_any_pace_makes_a_finite_rate(pace: list[tuple[int, int]]) -> None:
    status = a_status(pace=sorted(pace, reverse=True))
    assert 0 <= status.rate_images_per_s < float("inf")


def test_progress_is_what_has_an_outcome() -> None:
    status = a_status(total=8, succeeded=1, failed=1, skipped=1, cancelled=1)
    assert status.progress == 0.5
    assert status.counts.pending == 4


@pytest.mark.parametrize(
    ("fields", "progress"),
    [
        ({"listing_complete": 0}, 0.0),
        ({"listing_complete": 1, "state": "finalizing"}, 1.0),
        ({"listing_complete": 0, "state": "cancelled"}, 1.0),
    ],
)
def test_a_job_without_images_is_done_once_that_is_known(
    fields: dict[str, object], progress: float
) -> None:
    assert a_status(total=0, succeeded=0, **fields).progress == progress


def test_a_job_nobody_serves_says_so() -> None:
    assert a_status(live=0).health == "no_workers"
    assert a_status(live=1).health == "ok"


def test_a_job_that_nobody_lists_yet_is_well() -> None:
    for age_ms, health in ((2_000, "ok"), (4_000, "no_producer")):
        made = a_snapshot(listing_complete=0, created_ms=NOW - age_ms)
        assert status_of(replace(made, has_producer=False)).health == health


def test_a_job_without_progress_for_two_minutes_is_stalled() -> None:
    stuck = {"created_ms": NOW - 900_000, "started_ms": NOW - 800_000}
    assert a_status(**stuck).health == "stalled"
    assert a_status(**stuck, progress_ms=NOW - 121_000).health == "stalled"
    assert a_status(**stuck, progress_ms=NOW - 119_000).health == "ok"


def test_a_new_job_is_given_two_minutes() -> None:
    assert a_status(created_ms=NOW - 1_000, started_ms="").health == "ok"


@pytest.mark.parametrize("state", ["paused", "succeeded", "failed", "cancelled", "expired"])
def test_a_job_that_waits_for_nobody_is_well(state: str) -> None:
    assert a_status(state=state, live=0, created_ms=0, started_ms=1).health == "ok"


def test_a_job_with_nothing_pending_is_well() -> None:
    assert a_status(state="finalizing", total=10, live=0).health == "ok"


def test_active_workers_are_processes_and_not_chunks() -> None:
    owners = ("1@a/x/t1", "1@a/x/t2", "2@b/y/t3")
    workers = a_status(owners=owners, live=3).workers
    assert (workers.active, workers.live) == (2, 3)


def test_the_errors_are_counted_and_a_few_are_shown() -> None:
    sample = {"key": "a", "error": {"stage": "decode", "code": "bad_image"}}
    snapshot = replace(a_snapshot(), samples=[sample], by_code={"decode/bad_image": 1})
    errors = status_of(snapshot).errors
    assert errors.samples == [sample]
    assert errors.by_code == {"decode/bad_image": 1}


def test_the_outputs_are_urls_below_the_job() -> None:
    output = a_status(spec=a_spec("j", output="s3://b/out/")).output
    assert output.uri == "s3://b/out/j"
    assert output.results_uri == "s3://b/out/j/results/"
    assert output.manifest_uri == "s3://b/out/j/manifest/"
    assert output.errors_uri == "s3://b/out/j/errors.jsonl"
    assert output.summary_uri == "s3://b/out/j/summary.json"
    assert output.by_key_uri is None


def test_the_per_image_layout_has_a_place_for_the_images() -> None:
    spec = a_spec("j", output="s3://b", layout="per-image")
    assert a_status(spec=spec).output.by_key_uri == "s3://b/j/by-key/"


@pytest.mark.parametrize("state", JobState)
def test_terminal_is_told_beside_the_state(state: JobState) -> None:
    assert a_status(state=state).terminal == state.terminal


def test_a_retried_job_names_its_parent() -> None:
    spec = a_spec(input={"uri": "s3://b", "failed_of": "parent"})
    assert a_status(spec=spec).parent_job_id == "parent"


def test_the_json_has_the_documented_shape() -> None:
    spec = a_spec(input={"uri": "s3://b", "include": ("*.jpg",)})
    shown = a_status(spec=spec, version="3", digest="sha256:d").model_dump(mode="json")
    assert list(shown) == [
        "schema_version",
        "job_id",
        "parent_job_id",
        "labels",
        "state",
        "terminal",
        "reason",
        "health",
        "model",
        "input",
        "output",
        "counts",
        "progress",
        "rate_images_per_s",
        "eta_s",
        "errors",
        "workers",
        "timing_share",
        "bottleneck",
        "notification",
        "created_at",
        "started_at",
        "completed_at",
        "updated_at",
    ]
    assert shown["model"] == {"name": "tiny", "version": "3", "digest": "sha256:d"}
    assert shown["parent_job_id"] is None
    assert shown["input"]["include"] == ["*.jpg"]
    assert list(shown["timing_share"]) == ["fetch", "decode", "infer", "write"]
    assert shown["bottleneck"] is None
    assert set(shown["counts"]) == {
        "total",
        "pending",
        "succeeded",
        "failed",
        "skipped",
        "cancelled",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", shown["created_at"])
    assert shown["completed_at"] is None


def test_the_bottleneck_is_named_in_words() -> None:
    shown = a_status(infer_us=600, wait_decode_us=300, wait_fetch_us=100).model_dump()
    assert shown["bottleneck"] == {
        "stage": "decode",
        "advice": "decode-bound: add CPU or processes",
        "predicting": 0.6,
        "waiting": {"fetch": 0.1, "decode": 0.3, "write": 0.0},
    }
