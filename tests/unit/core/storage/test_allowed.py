"""The places a job may name, if not all."""

from __future__ import annotations

import pytest

from millrace.core.errors import LocationNotAllowed, UsageError
from millrace.core.settings import StorageSettings
from millrace.core.storage import Stores
from millrace.core.storage.allowed import AllowedLocations

SOME = "s3://photos/2024 s3://results file:///data/a%20b /srv"


@pytest.mark.parametrize("none", [None, "", "  \n"])
def test_without_any_a_job_may_lie_anywhere(none: str | None) -> None:
    AllowedLocations(none).check("s3://anything/at/all", "/etc")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos/2024",
        "s3://photos/2024/",
        "s3://photos/2024/may/",
        "s3://results",
        "s3://results//odd",
        "file:///data/a%20b/c",
        "/srv/x/../y",
    ],
)
def test_a_place_at_or_below_one_of_them_is_allowed(uri: str) -> None:
    AllowedLocations(SOME).check(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos",
        "s3://photos/20245",
        "s3://photos/2023",
        "s3://results2/x",
        "gs://results/x",
        "file:///",
        "/data/a",
        "/data/a b2",
        "/srv/../etc",
        "/srv2",
        "results",
    ],
)
def test_any_other_place_is_not(uri: str) -> None:
    with pytest.raises(LocationNotAllowed, match="is under none of MILLRACE_ALLOWED_LOCATIONS"):
        AllowedLocations(SOME).check("s3://results/x", uri)


def test_what_is_no_place_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_ALLOWED_LOCATIONS", "s3://photos s3://key:secret@bucket/")
    with pytest.raises(UsageError, match=r"^MILLRACE_ALLOWED_LOCATIONS: ") as caught:
        Stores(StorageSettings.load())
    assert "secret" not in repr(caught.value)
