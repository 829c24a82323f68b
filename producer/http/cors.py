"""Pages of other sites that may read what we answer: none, but those that are named."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from millrace.producer.http.problems import Problem

ASKED_WITH = ["authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id"]
TOLD = ["link", "location", "millrace-next-cursor", "retry-after", "x-request-id"]


class Cors(CORSMiddleware):
    """Says no in the words of every other error."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        said = bytes(answer.body).decode()
        kept = {
            name: value for name, value in answer.headers.items() if not name.startswith("content")
        }
        return Problem(403, "forbidden", said, headers=kept).response(None)
