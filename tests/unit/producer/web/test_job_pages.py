"""The page of one job: how far it is said to be, and where one stands after an action."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from millrace.core.job import JobSpec
from millrace.core.services import Services
from tests.support import wait_until
from tests.unit.producer.support import listed_job, work
from tests.unit.producer.web.test_pages import tags


@pytest.fixture
def job(services: Services, tmp_path: Path) -> JobSpec:
    """Six images, of which four are done."""
    spec = listed_job(services, tmp_path / "out", images=6)
    work(services, spec, 0, 1)
    return spec


def test_what_was_done_has_the_focus_and_what_may_be_done_next_comes_after_it(
    client: httpx.Client, job: JobSpec
) -> None:
    found = tags(client.post("/jobs/j/pause").text)
    focused = [n for n, (_, attributes) in enumerate(found) if "autofocus" in attributes]
    assert found[focused[0]][1]["role"] == "status"
    order = [attributes.get("id") for _, attributes in found]
    assert focused[0] < order.index("do-resume") < order.index("progress")


def test_what_was_cancelled_is_not_done(
    client: httpx.Client, job: JobSpec, services: Services
) -> None:
    client.post("/jobs/j/cancel")
    wait_until(lambda: services.jobs.record("j").state.terminal, 10, "it is cancelled")
    for path in ("/", "/jobs/j"):
        page = client.get(path).text
        assert 'max="6" value="4" aria-label="Images done of j">67%</progress>' in page
        assert "4 of 6" in page
        assert "100%" not in page


def test_a_job_without_images_has_no_share_of_them(
    client: httpx.Client, services: Services, tmp_path: Path
) -> None:
    listed_job(services, tmp_path / "out", images=0)
    services.finalizer.finalize("j")
    assert services.jobs.record("j").state.terminal
    for path in ("/", "/jobs/j"):
        page = client.get(path).text
        assert 'value="0" aria-label="Images done of j">no images</progress>' in page
        assert "%" not in page.partition("<main")[2]
    assert "Too few chunks were done" in page
    assert "so far" not in page.partition('id="gallery"')[0]
