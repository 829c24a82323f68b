"""The job's spec and its states."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from millrace.core.errors import CorruptRecord, UsageError
from millrace.core.job import TRANSITIONS, JobSpec, JobState, Layout, Priority, new_job_id
from millrace.core.storage import Location
from tests.unit.core.support import a_spec

S = JobState

LEGAL = {
    S.QUEUED: {S.ENQUEUING, S.PAUSED, S.CANCELLING, S.FINALIZING},
    S.ENQUEUING: {S.RUNNING, S.PAUSED, S.CANCELLING, S.FINALIZING},
    S.RUNNING: {S.PAUSED, S.CANCELLING, S.FINALIZING},
    S.PAUSED: {S.RUNNING, S.CANCELLING, S.FINALIZING},
    S.CANCELLING: {S.FINALIZING},
    S.FINALIZING: {S.SUCCEEDED, S.COMPLETED_WITH_ERRORS, S.FAILED, S.CANCELLED, S.EXPIRED},
    S.SUCCEEDED: set(),
    S.COMPLETED_WITH_ERRORS: set(),
    S.FAILED: set(),
    S.CANCELLED: set(),
    S.EXPIRED: set(),
}


@pytest.mark.parametrize("state", S)
def test_the_legal_transitions_are_these_and_no_others(state: JobState) -> None:
    assert TRANSITIONS[state] == LEGAL[state]


def test_a_state_that_leads_nowhere_is_terminal() -> None:
    terminal = {S.SUCCEEDED, S.COMPLETED_WITH_ERRORS, S.FAILED, S.CANCELLED, S.EXPIRED}
    assert {state for state in S if state.terminal} == terminal


def test_every_ending_is_reached_through_finalizing_alone() -> None:
    for state, after in TRANSITIONS.items():
        assert state is S.FINALIZING or not any(ending.terminal for ending in after)


def test_every_state_leads_to_an_ending() -> None:
    reached = {state for state in S if state.terminal}
    while more := {s for s, after in TRANSITIONS.items() if after & reached} - reached:
        reached |= more
    assert reached == set(S)


@pytest.mark.parametrize("job_id", ["a", "0", "a" * 128, "digits-20261120-174500-4f9c", "A.b_c-d"])
def test_a_job_id_of_letters_digits_dots_dashes_and_underscores_will_do(job_id: str) -> None:
    assert a_spec(job_id).job_id == job_id


@pytest.mark.parametrize(
    "job_id",
    [
        "",
        ".",
        "..",
        "-a",
        "_a",
        "a/b",
        "a:b",
        "{a}",
        "a b",
        "ä",
        "a\n",
        "a\x00",
        "a" * 129,
        7,
        None,
    ],
)
def test_any_other_job_id_is_a_usage_error_naming_the_field(job_id: object) -> None:
    with pytest.raises(UsageError, match=r"^job_id: "):
        a_spec(job_id=job_id)


@pytest.mark.parametrize("name", ["", ".", "a/b", "a:1", "-a", "a\n", "a" * 101])
def test_a_model_name_that_is_no_path_segment_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"^model\.name: "):
        a_spec(model=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("chunk_size", 0),
        ("chunk_size", 8193),
        ("chunk_size", "many"),
        ("top_k", 0),
        ("top_k", 10_001),
        ("priority", "urgent"),
        ("layout", "tree"),
        ("error_threshold", "some"),
        ("deadline", "tomorrow"),
        ("schema_version", 2),
        ("surprise", 1),
    ],
)
def test_a_field_that_makes_no_sense_is_named(field: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{field}: "):
        a_spec(**{field: value})


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        a_spec().chunk_size = 3  # type: ignore[misc]


def test_a_spec_is_read_back_as_it_was_written() -> None:
    spec = a_spec(
        model={"name": "m", "requested_version": "2", "version": "2", "digest": "sha256:x"},
        input={"uri": "s3://b/p", "include": ("*.jpg",), "exclude": ("x/**",), "manifest": "list"},
        priority="high",
        top_k=3,
        layout="per-image",
    )
    assert JobSpec.from_json(spec.model_dump_json()) == spec
    assert JobSpec.from_json(spec.model_dump_json().encode()) == spec


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"[]", b"\xff", b'{"schema_version":2}'])
def test_a_foreign_text_is_a_corrupt_record(text: bytes) -> None:
    with pytest.raises(CorruptRecord, match="not a job spec"):
        JobSpec.from_json(text)


def test_the_digest_is_of_the_request_alone() -> None:
    pinned = {"name": "tiny", "version": "7", "digest": "sha256:abc"}
    later = datetime(2027, 1, 1, tzinfo=UTC)
    assert a_spec("one").digest == a_spec("two", created_at=later, model=pinned).digest
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", a_spec().digest)


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"name": "other"}},
        {"model": {"name": "tiny", "requested_version": "7"}},
        {"input": {"uri": "memory://elsewhere"}},
        {"input": {"uri": "memory://photos", "include": ("*.jpg",)}},
        {"input": {"uri": "memory://photos", "exclude": ("*.jpg",)}},
        {"input": {"uri": "memory://photos", "manifest": "list.txt"}},
        {"output": "memory://other"},
        {"chunk_size": 3},
        {"priority": "low"},
        {"top_k": 1},
        {"layout": "per-image"},
        {"error_threshold": "5%"},
        {"deadline": "2h"},
        {"input": {"uri": "memory://photos", "failed_of": "parent"}},
        {"input": {"uri": "memory://photos", "failed_of": "parent", "codes": ("gone",)}},
    ],
)
def test_another_request_has_another_digest(change: dict[str, object]) -> None:
    assert a_spec(**change).digest != a_spec().digest


def test_the_digest_survives_storage() -> None:
    spec = a_spec(top_k=2)
    assert JobSpec.from_json(spec.model_dump_json(indent=2)).digest == spec.digest


def test_a_job_waits_in_the_queue_of_the_version_it_is_pinned_to() -> None:
    assert a_spec().queue == "millrace.tiny"
    assert a_spec(model={"name": "tiny", "version": "2"}).queue == "millrace.tiny:2"


def test_a_job_has_a_directory_below_its_output() -> None:
    assert a_spec("j", output="s3://b/out").directory == Location("s3", "b", "out/j/")
    assert a_spec("j", output="file:///out").directory == Location("file", "/out/j")


def test_the_defaults_are_128_rows_normal_priority_and_chunks() -> None:
    spec = JobSpec.make(
        job_id="j",
        created_at=datetime.now(UTC),
        model={"name": "m"},
        input={"uri": "memory://a"},
        output="memory://b",
    )
    assert (spec.chunk_size, spec.priority, spec.layout) == (128, Priority.NORMAL, Layout.CHUNKS)


def test_priority_widens_or_narrows_the_window() -> None:
    factors = [
        priority.window_factor for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    ]
    assert factors == [0.25, 1.0, 4.0]


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True))
def test_a_new_job_id_is_a_valid_one(model: str) -> None:
    assert a_spec(new_job_id(model)).job_id.startswith(model)


def test_new_job_ids_sort_by_time_and_differ() -> None:
    earlier = new_job_id("m", datetime(2026, 11, 20, 17, 45, 0, tzinfo=UTC))
    later = new_job_id("m", datetime(2026, 11, 20, 17, 45, 1, tzinfo=UTC))
    assert earlier.startswith("m-20261120-174500-")
    assert earlier < later
    assert new_job_id("m") != new_job_id("m")


def test_a_spec_with_labels_is_a_key_as_any_other() -> None:
    spec = a_spec(labels={"team": "catalogue"})
    assert {spec: "it"}[JobSpec.from_json(spec.model_dump_json())] == "it"


def test_labels_are_part_of_what_is_asked_for_if_there_are_any() -> None:
    assert a_spec(labels={}).digest == a_spec().digest
    assert a_spec(labels={"a": "1"}).digest != a_spec(labels={"a": "2"}).digest


@pytest.mark.parametrize(
    "labels", [{"": "x"}, {"-a": "x"}, {"a b": "x"}, {"a": "x\n"}, {"a": "x" * 256}, {"a" * 64: ""}]
)
def test_an_odd_label_is_refused(labels: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="labels"):
        a_spec(labels=labels)


def test_there_are_only_so_many_labels() -> None:
    a_spec(labels={str(number): "" for number in range(32)})
    with pytest.raises(UsageError, match="labels"):
        a_spec(labels={str(number): "" for number in range(33)})
