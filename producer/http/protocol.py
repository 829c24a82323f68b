"""HTTP/1.1 as uvicorn speaks it, with a limit to what it leaves to whoever sends it."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024
"""Of a request's line and headers. Those of browsers with all their cookies have a few thousand."""


class LimitedProtocol(HttpToolsProtocol):
    """Ends a connection whose head, or whatever else is neither a whole head nor a body, does not
    end within `MOST_HEAD_BYTES` and two reads: httptools keeps all of it, and takes the longer for
    each read the more there is already."""

    _undecided = 0
    _moved = False

    def data_received(self, data: bytes) -> None:
        self._moved = False
        super().data_received(data)
        self._undecided = 0 if self._moved else self._undecided + len(data)
        if self._undecided > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Request head is too large.")

    def on_headers_complete(self) -> None:
        self._moved = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        super().on_message_complete()
