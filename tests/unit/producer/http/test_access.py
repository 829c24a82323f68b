"""Who is let in, as what, and from where."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from starlette.requests import Request

from millrace.core.errors import Forbidden, Unauthenticated, UsageError
from millrace.producer.http import access
from millrace.producer.http.access import COOKIE, Access, Role
from millrace.producer.http.settings import HttpSettings
from tests.unit.producer.http.conftest import Serve

VIEWER, OPERATOR = "v" * 20, "o" * 20


def settings(**given: object) -> HttpSettings:
    return HttpSettings.load(**given)


def made(**given: object) -> Access:
    return Access(settings(**({"viewer_token": VIEWER, "operator_token": OPERATOR} | given)))


def request(method: str = "GET", host: str = "millrace.example", **headers: str) -> Request:
    given = {"host": host} | {name.replace("_", "-"): text for name, text in headers.items()}
    raw = [(name.encode(), text.encode()) for name, text in given.items()]
    return Request({"type": "http", "method": method, "path": "/", "headers": raw})


def test_a_token_says_who_it_is() -> None:
    it = made()
    assert it.caller(request(authorization=f"Bearer {VIEWER}")).role is Role.VIEWER
    assert it.caller(request(authorization=f"bearer {OPERATOR}")).role is Role.OPERATOR


@pytest.mark.parametrize("word", ["", "Bearer", "Bearer x", f"Basic {VIEWER}", f"Bearer {VIEWER}x"])
def test_any_other_word_lets_nobody_in(word: str) -> None:
    with pytest.raises(Unauthenticated):
        made().caller(request(authorization=word))


def test_a_name_stands_for_a_token_and_never_says_it() -> None:
    caller = made().by_token(OPERATOR)
    assert OPERATOR not in repr(caller)


def test_a_session_is_the_token_it_was_given_for() -> None:
    it = made()
    cookie = it.session(it.by_token(VIEWER))
    assert it.caller(request(cookie=f"{COOKIE}={cookie}")).role is Role.VIEWER
    assert VIEWER not in cookie


def test_a_session_ends_with_its_token() -> None:
    cookie = made().session(made().by_token(VIEWER))
    with pytest.raises(Unauthenticated):
        made(viewer_token="w" * 20).caller(request(cookie=f"{COOKIE}={cookie}"))


def test_a_session_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    it = made()
    monkeypatch.setattr(access, "SESSION_S", -1)
    cookie = it.session(it.by_token(VIEWER))
    with pytest.raises(Unauthenticated):
        it.caller(request(cookie=f"{COOKIE}={cookie}"))


@pytest.mark.parametrize("forged", ["role", "time", "signature", "empty", "shape"])
def test_a_forged_session_is_none(forged: str) -> None:
    it = made()
    cookie = it.session(it.by_token(VIEWER))
    until, token_id, signature = cookie.split(".")
    other = it.by_token(OPERATOR).id
    changed = {
        "role": f"{until}.{other}.{signature}",
        "time": f"{int(until) + 1}.{token_id}.{signature}",
        "signature": f"{until}.{token_id}.{'0' * 64}",
        "empty": "",
        "shape": "a.b.c.d.é",
    }[forged]
    with pytest.raises(Unauthenticated):
        it.caller(request(cookie=f"{COOKIE}={changed}"))


def session_of(it: Access) -> str:
    return f"{COOKIE}={it.session(it.by_token(OPERATOR))}"


@pytest.mark.parametrize(
    "told",
    [{"sec_fetch_site": "same-origin"}, {"origin": "https://millrace.example"}],
)
def test_a_browser_acts_for_our_own_pages(told: dict[str, str]) -> None:
    it = made()
    assert it.caller(request("POST", cookie=session_of(it), **told)).role is Role.OPERATOR


@pytest.mark.parametrize(
    "told",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "cross-site", "origin": "https://millrace.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {},
    ],
)
def test_a_browser_does_not_act_for_another_site_s(told: dict[str, str]) -> None:
    it = made()
    with pytest.raises(Forbidden):
        it.caller(request("POST", cookie=session_of(it), **told))


def test_a_page_of_another_site_cannot_use_a_token_it_does_not_have() -> None:
    asked = request("POST", authorization=f"Bearer {OPERATOR}", sec_fetch_site="cross-site")
    assert made().caller(asked).role is Role.OPERATOR


def test_a_host_and_an_origin_that_are_none_are_refused(serve: Serve) -> None:
    origin = {"origin": "http://["}
    answer = serve().anybody.post("/login", data={"token": OPERATOR}, headers=origin)
    assert answer.status_code == 403
    open_api = serve(no_auth=True, viewer_token=None, operator_token=None)
    assert open_api.anybody.get("/v1/jobs", headers={"host": "["}).json()["code"] == "forbidden"


def open_to_all(**given: object) -> Access:
    return Access(settings(no_auth=True, **given))


def test_without_tokens_this_machine_may_do_everything() -> None:
    assert open_to_all().caller(request("POST", "localhost:8000")).role is Role.OPERATOR


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "", "localhost.evil.example", "[", "[::1"]
)
def test_without_tokens_no_other_name_leads_here(host: str) -> None:
    """A page whose name was changed to mean this machine asks under its own name."""
    with pytest.raises(Forbidden):
        open_to_all().caller(request(host=host))


def test_without_tokens_no_other_site_s_page_acts() -> None:
    with pytest.raises(Forbidden):
        open_to_all().caller(request("POST", "localhost", origin="https://evil.example"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "millrace.example"])
def test_without_tokens_it_is_for_loopback_alone(host: str) -> None:
    with pytest.raises(UsageError, match="this machine alone"):
        open_to_all(http_host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_these_are_loopback(host: str) -> None:
    open_to_all(http_host=host)


def test_nobody_is_let_in_by_mistake() -> None:
    with pytest.raises(UsageError, match="no token"):
        Access(settings())
    with pytest.raises(UsageError, match="one of the two"):
        made(no_auth=True)


def test_a_short_token_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as refused:
        settings(operator_token="hunter2")
    assert "hunter2" not in refused.value.message


def test_more_tokens_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\n\nviewer grafana {'g' * 16}\noperator  ci\t{'c' * 16}\n")
    it = made(tokens_file=str(file))
    assert it.by_token("g" * 16).name == "grafana"
    assert it.by_token("c" * 16).role is Role.OPERATOR


@pytest.mark.parametrize(
    "line", ["admin ci 0123456789abcdef", "viewer 0123456789abcdef", "viewer ci tooshort7"]
)
def test_a_line_that_makes_no_sense_is_told_by_number(tmp_path: Path, line: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"\n{line}\n")
    with pytest.raises(UsageError, match="line 2") as refused:
        made(tokens_file=str(file))
    assert line.split()[-1] not in refused.value.message


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        made(tokens_file=str(tmp_path / "none"))


def test_one_token_is_not_two_people_s() -> None:
    with pytest.raises(UsageError, match="also"):
        made(operator_token=VIEWER)


def test_a_session_lasts_for_hours() -> None:
    it = made()
    until = int(it.session(it.by_token(VIEWER)).split(".")[0])
    assert 3600 < until - time.time() <= access.SESSION_S
