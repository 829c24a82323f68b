"""The same from afar: jobs over the HTTP API, without Redis or storage in reach.

    from millrace.producer.client import Client

    with Client("https://millrace.example", token) as client:
        job = client.submit("s3://photos", model="resnet50", output="s3://predictions")
        status = job.wait(progress=lambda s: print(s.progress))
        for outcome in job.results():
            ...

A job has the methods of `millrace.producer.Job`, and raises the same errors. Needs the extra
`millrace[client]`.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import orjson

from millrace.core.chunks import DEFAULT_CHUNK_SIZE
from millrace.core.errors import CorruptRecord, MissingExtra, ServerUnavailable, UsageError
from millrace.core.job import JobState, Layout, Priority
from millrace.core.lines import split_lines
from millrace.core.outcome import decode_outcome
from millrace.core.record import no_job
from millrace.core.sizes import MAX_CHUNK_BYTES
from millrace.core.status import JobStatus
from millrace.core.topology import JOB_ID_PATTERN
from millrace.producer.remote_errors import error_of
from millrace.producer.waiting import LONGEST_PREDICTION_S, PATIENCE_S, wait_for

if TYPE_CHECKING:
    import httpx

TRIES = 4
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 30.0
NOT_NOW = 503
_JSON_LINES = {"accept": "application/x-ndjson"}


class Client:
    """One server, and the token it is asked with. Safe to use from several threads."""

    def __init__(self, url: str, token: str | None = None, *, timeout_s: float = 30.0) -> None:
        """`timeout_s` is for one answer, or the next piece of one. Raises UsageError."""
        try:
            import httpx
        except ModuleNotFoundError:
            raise MissingExtra("httpx", "client") from None
        wrong = UsageError("the server is http://HOST[:PORT] or https://…, without the token")
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises ValueError for what is none
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
                raise wrong
            self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)
        except (ValueError, httpx.InvalidURL):
            raise wrong from None
        self._where = f"{parts.scheme}://{parts.netloc}"
        self._timeout_s = timeout_s

    def __repr__(self) -> str:
        return f"Client({self._where!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(
        self,
        source: str,
        *,
        model: str,
        output: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        manifest: str | None = None,
        chunk_size: int = DEFAULT_CHUNK_SIZE,
        priority: Priority | str = Priority.NORMAL,
        top_k: int | None = None,
        layout: Layout | str = Layout.CHUNKS,
        job_id: str | None = None,
        error_threshold: str | None = None,
        deadline: str | None = None,
        notify: str | None = None,
        labels: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> RemoteJob:
        """Submit a job as `millrace.producer.submit` does; the server lists the input. Returns as
        soon as the job stands. Raises what `submit` raises; ServerUnavailable. A `job_id` is an
        idempotency key already: one of the two."""
        if job_id is not None and idempotency_key is not None:
            raise UsageError("a job_id makes it idempotent already; leave idempotency_key out")
        asked = {
            "source": source,
            "model": model,
            "output": output,
            "include": [*include],
            "exclude": [*exclude],
            "manifest": manifest,
            "chunk_size": chunk_size,
            "priority": priority,
            "top_k": top_k,
            "layout": layout,
            "job_id": job_id,
            "error_threshold": error_threshold,
            "deadline": deadline,
            "notify": notify,
            "labels": dict(labels or {}),
        }
        return self.begin("/v1/jobs", asked, job_id, idempotency_key)

    def job(self, job_id: str) -> RemoteJob:
        """A handle on a job submitted earlier, by whomever."""
        return RemoteJob(self, job_id)

    def jobs(
        self,
        *,
        states: Sequence[JobState | str] = (),
        model: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Iterator[JobStatus]:
        """The status of every job that is so, newest first, asked for a page at a time."""
        query: dict[str, Any] = {
            "state": [str(state) for state in states],
            "label": [f"{name}={value}" for name, value in (labels or {}).items()],
            "limit": 100,
        }
        if model is not None:
            query["model"] = model
        while True:
            page = self.ask("GET", "/v1/jobs", params=query).json()
            yield from map(JobStatus.model_validate, page["jobs"])
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def models(self) -> list[dict[str, Any]]:
        """What the repository holds, and what workers serve beside it."""
        found: list[dict[str, Any]] = self.ask("GET", "/v1/models").json()["models"]
        return found

    def workers(self) -> list[dict[str, Any]]:
        """The worker processes heard of lately."""
        found: list[dict[str, Any]] = self.ask("GET", "/v1/workers").json()["workers"]
        return found

    def predict(
        self,
        picture: bytes | Path,
        *,
        model: str,
        top_k: int | None = None,
        timeout_s: float | None = None,
    ) -> list[dict[str, Any]]:
        """The model's predictions for one picture, best first. Raises ItemError for one that cannot
        be read; ModelNotFound, NoWorkers, WaitTimeout. Without `timeout_s` the server says how long
        it waits."""
        import httpx

        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        asked = {"model": model, "top_k": top_k, "timeout_s": timeout_s}
        given = {name: str(value) for name, value in asked.items() if value is not None}
        # The answer comes when the server has waited, so the wait for it is longer.
        waits_s = LONGEST_PREDICTION_S if timeout_s is None else timeout_s
        limits = httpx.Timeout(self._timeout_s, read=waits_s + self._timeout_s)
        answer = self.ask(
            "POST", "/v1/predict", data=given, files={"picture": content}, timeout=limits
        )
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions

    def ask(self, method: str, path: str, *, again: bool = False, **given: Any) -> httpx.Response:
        """One request and its answer, tried again if that is harmless. Raises the error that the
        server tells of; ServerUnavailable."""
        import httpx

        again = again or method == "GET"
        for attempt in range(TRIES):
            last = attempt == TRIES - 1 or not again
            pause_s = FIRST_PAUSE_S * 2**attempt
            try:
                answer = self._http.request(method, path, **given)
            except httpx.HTTPError as error:
                if last or isinstance(error, httpx.TimeoutException):
                    raise self._unavailable(error) from error
            else:
                if answer.status_code != NOT_NOW or last:
                    if answer.is_success:
                        return answer
                    raise error_of(answer.status_code, answer.content)
                pause_s = max(pause_s, _retry_after(answer))
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def lines(self, path: str) -> Iterator[bytes]:
        """The lines of a streamed answer. Raises as `ask` does, also in the middle."""
        import httpx

        try:
            with self._http.stream("GET", path, headers=_JSON_LINES) as answer:
                if not answer.is_success:
                    raise error_of(answer.status_code, answer.read())
                yield from split_lines(answer.iter_bytes(), MAX_CHUNK_BYTES, _too_long)
        except httpx.HTTPError as error:
            raise self._unavailable(error) from error

    def begin(
        self, path: str, asked: Mapping[str, Any], job_id: str | None, key: str | None
    ) -> RemoteJob:
        """Post what makes a job; with a key of its own, so that a lost answer may be asked for
        again."""
        headers = {} if job_id else {"idempotency-key": key or str(uuid.uuid4())}
        body = orjson.dumps(asked)
        headers["content-type"] = "application/json"
        answer = self.ask("POST", path, again=True, content=body, headers=headers)
        return RemoteJob(self, answer.json()["job_id"])

    def _unavailable(self, error: Exception) -> ServerUnavailable:
        return ServerUnavailable(
            f"no answer from {self._where}: {error or type(error).__name__}",
            hint="is `millrace serve` running there?",
        )


class RemoteJob:
    """A handle on one job. Cheap to make; every method asks the server afresh."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = client
        self.id = job_id

    def __repr__(self) -> str:
        return f"RemoteJob({self.id!r})"

    def status(self) -> JobStatus:
        """Where the job stands, at most a moment ago. Raises JobNotFound, ServerUnavailable."""
        return JobStatus.model_validate_json(self._client.ask("GET", self._path()).content)

    def cancel(self) -> None:
        """Take no more chunks; those in hand end, and what there is is published.

        Raises JobNotFound; JobConflict if the job has ended.
        """
        self._client.ask("POST", self._path("cancel"))

    def pause(self) -> None:
        """Take no more chunks until `resume`. Raises as `cancel` does."""
        self._client.ask("POST", self._path("pause"))

    def resume(self) -> None:
        """Let a paused job go on. Raises as `cancel` does."""
        self._client.ask("POST", self._path("resume"))

    def wait(
        self,
        timeout: float | None = None,
        *,
        progress: Callable[[JobStatus], None] | None = None,
        poll_s: float = 0.5,
        patience_s: float = PATIENCE_S,
    ) -> JobStatus:
        """Poll until the job has ended, and return its last status.

        `timeout` and `poll_s` are seconds; `progress` is called with every status. Once the server
        has answered, it may be away for `patience_s` at a time. Raises JobNotFound;
        ServerUnavailable; WaitTimeout. The job goes on regardless.
        """
        return wait_for(
            self.id,
            self.status,
            timeout,
            progress=progress,
            poll_s=poll_s,
            patience_s=patience_s,
        )

    def results(self) -> Iterator[dict[str, Any]]:
        """Stream the outcomes committed so far, in manifest order: one dictionary per image,
        with `key`, `etag` and either `predictions` or `error`."""
        return map(decode_outcome, self._client.lines(self._path("results")))

    def errors(self) -> Iterator[dict[str, Any]]:
        """Stream the error outcomes committed so far."""
        return map(decode_outcome, self._client.lines(self._path("errors")))

    def retry(self, *, codes: Sequence[str] = (), job_id: str | None = None) -> RemoteJob:
        """Submit its failed images again, as a job of its own. Raises JobConflict if it has not
        ended."""
        asked = {"codes": [*codes], "job_id": job_id}
        return self._client.begin(self._path("retry"), asked, job_id, None)

    def _path(self, what: str = "") -> str:
        if not re.fullmatch(JOB_ID_PATTERN, self.id):
            raise no_job(self.id)  # nor may it lead to another page
        path = f"/v1/jobs/{self.id}"
        return f"{path}/{what}" if what else path


def _retry_after(answer: httpx.Response) -> float:
    """Seconds to wait until asking again, as the server says; 0 if it does not."""
    said = answer.headers.get("retry-after", "")
    return min(float(said), LONGEST_PAUSE_S) if said.isascii() and said.isdigit() else 0.0


def _too_long(number: int) -> CorruptRecord:
    return CorruptRecord(f"line {number} of the answer is too long")
