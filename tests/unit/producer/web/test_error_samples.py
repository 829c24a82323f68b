"""Samples of errors: a few of each kind, however late it comes, with few reads at each look."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace.core.job import JobSpec
from millrace.core.services import Services
from millrace.producer.web.error_samples import CHUNKS_A_LOOK, OF_EACH, ErrorSamples
from millrace.producer.web.job_files import JobFiles
from tests.unit.producer.support import listed_job, object_of, work

CHUNKS = 3 * CHUNKS_A_LOOK
COMMON, RARE = "decode/corrupt", "fetch/not_found"


@pytest.fixture
def samples(services: Services) -> ErrorSamples:
    return ErrorSamples(JobFiles(services))


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Two images to a chunk: the first fails the common way, and the very last one another."""
    spec = listed_job(services, tmp_path / "out", images=2 * CHUNKS)
    failing = {2 * chunk: COMMON for chunk in range(CHUNKS)} | {2 * CHUNKS - 1: RARE}
    work(services, spec, *range(CHUNKS), failing=failing)
    return spec


def test_a_rare_error_is_found_at_a_later_look(
    services: Services, samples: ErrorSamples, job: JobSpec
) -> None:
    failed = services.jobs.failed_bitmap("j")
    first = samples.of(job, failed, [COMMON, RARE])
    assert [shot.row for shot in first.found[COMMON]] == [0, 2, 4, 6, 8]
    assert (RARE in first.found, first.more) == (False, True)
    assert samples.of(job, failed, [COMMON, RARE]).more
    last = samples.of(job, failed, [COMMON, RARE])
    assert [shot.row for shot in last.found[RARE]] == [2 * CHUNKS - 1]
    assert not last.more
    assert len(last.found[COMMON]) == OF_EACH


def test_no_more_is_read_than_is_missing_and_each_chunk_once(
    services: Services, samples: ErrorSamples, job: JobSpec
) -> None:
    failed = services.jobs.failed_bitmap("j")
    assert not samples.of(job, failed, [COMMON]).more
    for chunk in range(CHUNKS):
        object_of(job, chunk).unlink()
    again = samples.of(job, failed, [COMMON])
    assert len(again.found[COMMON]) == OF_EACH


def test_what_no_chunk_holds_is_not_looked_for_for_ever(
    services: Services, samples: ErrorSamples, job: JobSpec
) -> None:
    failed = services.jobs.failed_bitmap("j")
    looks = [samples.of(job, failed, ["infer/internal"]).more for _ in range(4)]
    assert looks == [True, True, False, False]


def test_a_damaged_chunk_takes_only_itself_away(
    services: Services, samples: ErrorSamples, job: JobSpec
) -> None:
    object_of(job, 0).write_bytes(b"nonsense\n")
    found = samples.of(job, services.jobs.failed_bitmap("j"), [COMMON]).found
    assert [shot.row for shot in found[COMMON]] == [2, 4, 6, 8, 10]
