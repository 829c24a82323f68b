"""The client over a server that answers badly: what is asked again, and what is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import orjson
import pytest

from millrace.core.errors import (
    JobNotFound,
    MillraceError,
    ServerUnavailable,
    UsageError,
    WaitTimeout,
)
from millrace.producer import client as module
from millrace.producer.client import Client

JOB = orjson.dumps({"job_id": "j"})
BUSY = orjson.dumps({"code": "busy", "detail": "later"})


class Server:
    """Answers with what it is told to, in turn: a status and body, or None to hang up."""

    def __init__(self, *answers: tuple[int, bytes] | None) -> None:
        self.answers = [*answers]
        self.headers: dict[str, str] = {}
        self.delay_s = 0.0
        self.asked: list[tuple[str, str, str | None]] = []
        self.url = ""


@contextmanager
def serving(*answers: tuple[int, bytes] | None) -> Iterator[Server]:
    server = Server(*answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append((self.command, self.path, self.headers["idempotency-key"]))
            self.rfile.read(int(self.headers["content-length"] or 0))
            answer = server.answers.pop(0)
            if answer is None:
                self.close_connection = True
                return
            status, body = answer
            time.sleep(server.delay_s)
            self.send_response(status)
            for name, text in server.headers.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        server.url = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)


def submit(client: Client) -> str:
    return client.submit("s3://b/in", model="tiny", output="s3://b/out").id


def test_submitting_is_asked_again_under_the_same_key() -> None:
    with serving(None, (503, BUSY), (202, JOB)) as server, Client(server.url) as client:
        assert submit(client) == "j"
    keys = {key for _, _, key in server.asked}
    assert len(server.asked) == 3
    assert len(keys) == 1
    assert keys != {None}


def test_two_submissions_are_two_keys() -> None:
    with serving((202, JOB), (202, JOB)) as server, Client(server.url) as client:
        submit(client)
        submit(client)
    assert len({key for _, _, key in server.asked}) == 2


def test_a_key_or_an_id_of_one_s_own_is_used() -> None:
    with serving((202, JOB), (202, JOB)) as server, Client(server.url) as client:
        client.submit("s3://b", model="m", output="s3://o", idempotency_key="mine")
        client.submit("s3://b", model="m", output="s3://o", job_id="j")
    assert [key for _, _, key in server.asked] == ["mine", None]


def test_what_may_have_been_done_is_not_asked_for_twice() -> None:
    with serving(None) as server, Client(server.url) as client:
        with pytest.raises(ServerUnavailable):
            client.job("j").cancel()
        assert len(server.asked) == 1


def test_in_the_end_it_is_given_up() -> None:
    with serving(*[(503, BUSY)] * module.TRIES) as server, Client(server.url) as client:
        with pytest.raises(MillraceError) as refused:
            client.job("j").status()
        assert (refused.value.code, refused.value.message) == ("busy", "later")


def test_a_name_that_is_no_job_s_is_not_even_asked_for() -> None:
    with serving() as server, Client(server.url) as client:
        for name in ("..", "a/b", "", "a?b", "a#b"):
            with pytest.raises(JobNotFound):
                client.job(name).status()
        assert server.asked == []


def test_a_server_says_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("millrace.producer.client.time.sleep", pauses.append)
    with serving(*[(503, BUSY)] * 2, (202, JOB)) as server, Client(server.url) as client:
        server.headers = {"retry-after": "5"}
        submit(client)
    assert [pause for pause in pauses if pause] == [5.0, 5.0]


@pytest.mark.parametrize(("said", "pause_s"), [("", 0), ("soon", 0), ("-1", 0), ("²", 0), ("7", 7)])
def test_what_is_no_number_of_seconds_is_passed_over(said: str, pause_s: float) -> None:
    headers = {b"retry-after": said.encode()}
    assert module._retry_after(httpx.Response(503, headers=headers)) == pause_s
    assert module._retry_after(httpx.Response(503)) == 0
    long = {"retry-after": "86400"}
    assert module._retry_after(httpx.Response(503, headers=long)) == module.LONGEST_PAUSE_S


def test_a_key_beside_an_id_is_refused() -> None:
    with serving() as server, Client(server.url) as client:
        with pytest.raises(UsageError, match="idempotency_key"):
            client.submit("s3://b", model="m", output="s3://o", job_id="j", idempotency_key="k")
        assert server.asked == []


@pytest.mark.parametrize("timeout_s", [30, None])
def test_a_prediction_is_waited_for_as_long_as_the_server_waits(timeout_s: float | None) -> None:
    late = orjson.dumps({"code": "timeout", "detail": "no answer"})
    with serving((504, late)) as server, Client(server.url, timeout_s=0.3) as client:
        server.delay_s = 0.4
        with pytest.raises(WaitTimeout):
            client.predict(b"x", model="m", timeout_s=timeout_s)


@pytest.mark.parametrize(
    "url",
    [
        *("", "host:8000", "ftp://host", "http://", "http://me:secret@host"),
        *("http://[", "http://host:port", "http://host:99999"),
    ],
)
def test_a_url_that_is_none_is_refused_and_its_secret_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Client(url)
    assert "secret" not in refused.value.message


def test_a_token_is_never_shown() -> None:
    with Client("http://host", "a-very-secret-token") as client:
        assert "secret" not in repr(client) + repr(client.job("j"))
