"""What pages read of a chunk: so many bytes, so many predictions of an image; they say of more."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from millrace.core.bitmaps import bitmap
from millrace.core.errors import ObjectTooLarge
from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.outcome import encode_lines, prediction_line
from millrace.core.services import Services
from millrace.producer.web import outcomes
from millrace.producer.web.classes import Classes
from millrace.producer.web.error_samples import ErrorSamples
from millrace.producer.web.gallery import Wanted, page_of
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.outcomes import MOST_PREDICTIONS, outcomes_of
from tests.support import wait_until
from tests.unit.core.support import a_spec
from tests.unit.producer.support import directory_of, listed_job, object_of, work

SAID = (
    "The outcomes of 1 chunk are too large to show here; "
    "<code>millrace results j</code> reads them."
)


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Six images, two to a chunk, that have all ended; of each chunk the second one failed."""
    spec = listed_job(services, tmp_path / "out", images=6)
    work(services, spec, 0, 1, 2, failing=dict.fromkeys((1, 3, 5), "decode/corrupt"))
    return spec


@pytest.fixture
def large(job: JobSpec, monkeypatch: pytest.MonkeyPatch) -> int:
    """The chunk that is larger than any that is read."""
    path = object_of(job, 1)
    path.write_bytes(path.read_bytes().replace(b"it failed", b"it failed" * 1000))
    monkeypatch.setattr(outcomes, "MOST_CHUNK_BYTES", 2000)
    return 1


def test_no_more_predictions_are_held_than_are_shown(services: Services, tmp_path: Path) -> None:
    spec = a_spec("j", output=str(tmp_path / "out"))
    classes = [{"label": str(n), "index": n, "score": 1 / (n + 1)} for n in range(1000)]
    body = encode_lines(prediction_line(ManifestRow(f"{n}.jpg"), classes) for n in range(2))
    directory = directory_of(services, spec)
    directory.create_chunk(spec.plan, 0, body)
    found = page_of(directory, spec, bitmap([0]), Wanted(label="0")).found
    assert [shot.outcome["predictions"] for shot in found] == [classes[:MOST_PREDICTIONS]] * 2


def test_a_chunk_that_is_too_large_is_passed_over(
    services: Services, job: JobSpec, large: int
) -> None:
    files = JobFiles(services)
    directory = files.directory(job)
    with pytest.raises(ObjectTooLarge):
        next(outcomes_of(directory, job, large))
    page = page_of(directory, job, services.jobs.done_bitmap("j"), Wanted())
    assert [shot.row for shot in page.found] == [0, 1, 4, 5]
    assert (page.after, page.too_large) == (None, 1)
    samples = ErrorSamples(files).of(job, services.jobs.failed_bitmap("j"), ["decode/corrupt"])
    assert [shot.row for shot in samples.found["decode/corrupt"]] == [1, 5]
    assert not samples.more


def test_a_chunk_that_is_too_large_is_not_waited_for(
    services: Services, job: JobSpec, large: int
) -> None:
    classes = Classes(services, JobFiles(services))
    done = services.jobs.done_bitmap("j")
    wait_until(lambda: not classes.of(job, done, 10).waiting, 10, "the others are counted")
    found = classes.of(job, done, 10)
    assert (found.top, found.too_large, found.away) == ([("cat", 2)], 1, False)
    classes.close()


def test_a_page_says_what_is_too_large(client: httpx.Client, job: JobSpec, large: int) -> None:
    wait_until(lambda: client.get("/jobs/j").text.count(SAID) == 2, 10, "classes and results do")
    assert SAID in client.get("/jobs/j/gallery?kind=errors").text
    image = client.get("/jobs/j/images/2").text
    assert SAID in image
    assert "Too large to show" in image
    assert "Not done yet" not in image


def test_a_page_that_can_show_nothing_does_not_say_that_there_is_nothing(
    client: httpx.Client, job: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "MOST_CHUNK_BYTES", 1)
    gallery = client.get("/jobs/j/gallery").text
    assert "The outcomes of 3 chunks are too large" in gallery
    assert "There are no results" not in gallery
