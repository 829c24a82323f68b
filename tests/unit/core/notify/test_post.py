"""One POST against real servers that fail, hang, drip and redirect."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme

from millrace.core.errors import UsageError
from millrace.core.notify.post import NotTakenError, post
from millrace.core.notify.rules import Rules
from millrace.core.notify.target import Target
from tests.faults.receiver import Drips, Hangs, Says, receiver

HERE = Rules(frozenset({"127.0.0.1", "hooks.test", "localhost"}), allow_private=True)
SHORT_S = 0.5


def send(url: str, rules: Rules = HERE, timeout_s: float = 5) -> None:
    post(Target.parse(url), b'{"a": 1}', {"X-A": "b"}, rules, timeout_s)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names resolve to these addresses, one list after the other; returns who was asked for."""
    asked, left = list[str](), list(answers)

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_it_arrives_whole() -> None:
    with receiver(200) as there:
        send(there.url)
    (came,) = there.received
    assert came.path == "/hook?token=t0p-s3cret"
    assert came.body == b'{"a": 1}'
    assert came.headers["x-a"] == "b"
    assert came.headers["host"] == f"127.0.0.1:{there.port}"
    assert came.headers["content-length"] == "8"


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 304])
def test_any_other_answer_than_success_is_none(status: int) -> None:
    with (
        receiver(status) as there,
        pytest.raises(NotTakenError, match=f"answered {status}") as told,
    ):
        send(there.url)
    assert not told.value.final
    assert told.value.not_before_s == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with receiver() as elsewhere, receiver(Says(status, {"Location": elsewhere.url})) as there:
        with pytest.raises(NotTakenError, match=f"answered {status}"):
            send(there.url)
        assert len(there.received) == 1
        assert elsewhere.received == []


def test_a_receiver_says_when_it_wants_to_be_asked_again_or_never() -> None:
    with receiver(Says(503, {"Retry-After": "120"}), 410) as there:
        with pytest.raises(NotTakenError) as later:
            send(there.url)
        with pytest.raises(NotTakenError) as never:
            send(there.url)
    assert later.value.not_before_s == 120
    assert never.value.final


def test_the_time_may_be_a_date_and_what_is_neither_is_none() -> None:
    said = formatdate(time.time() + 3600, usegmt=True)
    answers = [Says(429, {"Retry-After": each}) for each in (said, "soon")]
    with receiver(*answers) as there:
        for seconds in (3600, 0):
            with pytest.raises(NotTakenError) as told:
                send(there.url)
            assert told.value.not_before_s == pytest.approx(seconds, abs=60)


@pytest.mark.parametrize("answer", [Hangs(), Drips()], ids=["hangs", "drips"])
def test_no_answer_is_waited_for_longer_than_the_time_out(answer: Hangs | Drips) -> None:
    with receiver(answer) as there:
        started = time.monotonic()
        with pytest.raises(NotTakenError, match="no answer"):
            send(there.url, timeout_s=SHORT_S)
        assert SHORT_S <= time.monotonic() - started < SHORT_S + 3


def test_finding_the_address_connecting_and_waiting_share_one_time_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed = [0.0]

    def slowly(*_: Any, **__: Any) -> list[Any]:
        passed[0] += 60
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0])
    monkeypatch.setattr("millrace.core.notify.post.time", clock)
    with receiver(Hangs()) as there:
        started = time.monotonic()
        with pytest.raises(NotTakenError, match="it takes too long"):
            send(f"http://hooks.test:{there.port}/", timeout_s=61.5)
        assert time.monotonic() - started < 30
        assert len(there.received) == 1


def test_nobody_there_is_told_in_words() -> None:
    with receiver() as there:
        url = there.url
    with pytest.raises(NotTakenError, match="cannot be reached: Connection refused"):
        send(url)
    with pytest.raises(NotTakenError, match="there is no address of"):
        send("https://no-such-host.invalid/", Rules(frozenset(), allow_private=False))


def test_the_address_that_was_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name that is public when it is looked at and ours when it is connected to (rebinding)."""
    with receiver() as there:
        asked = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
        send(f"http://hooks.test:{there.port}/x")
        assert asked == ["hooks.test"]  # and never again
        assert there.received[0].headers["host"] == f"hooks.test:{there.port}"


def test_a_name_that_stands_for_private_addresses_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiver() as there:
        resolving(monkeypatch, ["127.0.0.1", "10.0.0.1"])
        with pytest.raises(UsageError, match="private address"):
            send(f"https://rebound.test:{there.port}/", Rules(frozenset(), allow_private=False))
        resolving(monkeypatch, ["169.254.169.254"])
        with pytest.raises(UsageError, match="reserved address"):
            send(f"http://hooks.test:{there.port}/")
        assert there.received == []


def a_server_of(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_https_verifies_who_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with receiver(tls=a_server_of(authority, "hooks.test")) as there:
        resolving(monkeypatch, ["127.0.0.1"])
        url = f"https://hooks.test:{there.port}/"
        with pytest.raises(NotTakenError, match="no secure connection"):
            send(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        send(url)
        with pytest.raises(NotTakenError, match="no secure connection"):
            send(f"https://localhost:{there.port}/")
    assert len(there.received) == 1
