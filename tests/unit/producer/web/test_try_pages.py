"""Try a picture: what a browser without scripts gets, and what goes wrong."""

from __future__ import annotations

import httpx
import pytest
from starlette.datastructures import UploadFile

from millrace.core.services import Services
from millrace.producer.http import predictions
from tests.unit.core.test_fleet import ONE

PICTURE = {"picture": ("<b>.png", b"no picture", "image/png")}


def test_models_that_workers_serve_may_be_asked(client: httpx.Client, services: Services) -> None:
    assert "No worker is up" in client.get("/try").text
    services.fleet.announce(ONE)
    page = client.get("/try").text
    assert "No worker is up" not in page
    assert '<option value="tiny"' in page


@pytest.mark.parametrize("fragment", [True, False])
def test_what_goes_wrong_stands_where_the_answer_would(
    fragment: bool, client: httpx.Client
) -> None:
    headers = {"hx-request": "true"} if fragment else {}
    answer = client.post("/try", data={"model": "tiny"}, files=PICTURE, headers=headers)
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert "no worker serves tiny" in answer.text
    assert ("<h1>" in answer.text) is not fragment


def test_no_picture_and_too_large_a_picture(client: httpx.Client) -> None:
    empty = {"picture": ("a.png", b"", "image/png")}
    assert "choose a picture first" in client.post("/try", data={"model": "tiny"}, files=empty).text
    large = {"picture": ("a.png", b"x" * (33 * 2**20), "image/png")}
    for headers, begins in (
        ({}, "<!doctype html>"),
        ({"hx-request": "true"}, '<p class="note bad"'),
    ):
        answer = client.post("/try", data={"model": "tiny"}, files=large, headers=headers)
        assert answer.status_code == 413
        assert answer.text.startswith(begins)
        assert "body is larger than" in answer.text


def test_a_crowd_is_refused_before_the_picture_is_read(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> bytes:
        raise AssertionError("it is read")

    monkeypatch.setattr(predictions, "AT_ONCE", 0)
    monkeypatch.setattr(UploadFile, "read", read)
    answer = client.post("/try", data={"model": "tiny"}, files=PICTURE)
    assert answer.status_code == 200
    assert "pictures are being predicted already" in answer.text


def test_a_viewer_may_not_ask(looker: httpx.Client) -> None:
    assert looker.post("/try", data={"model": "tiny"}, files=PICTURE).status_code == 403
