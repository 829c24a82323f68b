"""One POST to somebody else's server: to the address that was checked, in bounded time.

Nothing is read but the status and the headers, and no redirect is followed: what a URL leads to
is neither told to whoever named it, nor a way to another address.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from email.utils import parsedate_to_datetime

from millrace.core.errors import UsageError
from millrace.core.notify.rules import Rules
from millrace.core.notify.target import IPAddress, Target
from millrace.core.storage.deadline import within


class NotTakenError(Exception):
    """The receiver did not answer with success, or not in time."""

    def __init__(self, message: str, *, not_before_s: float = 0, final: bool = False) -> None:
        """It wants to be left alone so long; `final`: another try would come to the same."""
        super().__init__(message)
        self.not_before_s, self.final = not_before_s, final


class OutOfReachError(NotTakenError):
    """The receiver could not be reached at all, whatever is asked of it."""


GONE = 410
"""What a receiver answers that wants no more."""


def post(
    target: Target, body: bytes, headers: Mapping[str, str], rules: Rules, timeout_s: float
) -> None:
    """All of it within `timeout_s`. Raises NotTakenError; UsageError if no address of the host may
    be notified."""
    until = time.monotonic() + timeout_s
    addresses = _allowed(target, rules, timeout_s)
    with _connected(target, addresses, until) as (connection, cut_off):
        try:
            connection.request("POST", target.path, body, {**headers, "Host": target.authority})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = TimeoutError() if cut_off.is_set() else error
            raise NotTakenError(f"no answer: {_in_words(why)}") from None
        if cut_off.is_set():  # amid its headers
            raise NotTakenError(f"no answer: {_in_words(TimeoutError())}")
        if not 200 <= answer.status < 300:
            raise NotTakenError(
                f"answered {answer.status}",
                not_before_s=_seconds(answer.getheader("Retry-After")),
                final=answer.status == GONE,
            )


def _allowed(target: Target, rules: Rules, timeout_s: float) -> list[IPAddress]:
    """Addresses of the host that may be notified."""
    rules.check(target)
    try:
        found = within(timeout_s, lambda: _resolved(target))
    except (OSError, UnicodeError):
        raise OutOfReachError(f"there is no address of {target.host}") from None
    allowed, refusal = list[IPAddress](), UsageError(f"there is no address of {target.host}")
    for address in found:
        try:
            rules.check_address(target, address)
            allowed.append(address)
        except UsageError as error:
            refusal = error
    if not allowed:
        raise refusal
    return allowed


def _resolved(target: Target) -> list[IPAddress]:
    if target.address is not None:
        return [target.address]
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


@contextmanager
def _connected(
    target: Target, addresses: list[IPAddress], until: float
) -> Iterator[tuple[http.client.HTTPConnection, threading.Event]]:
    """A connection to the first address that takes one; it is cut when the time is over, for a
    server that answers a byte now and then keeps every time-out of a single read. The event tells
    whether it was."""
    raw = _reached(target, addresses, until)
    also, cut_off = raw.dup(), threading.Event()
    alarm = threading.Timer(_left(until), _shut, [also, cut_off])
    alarm.daemon = True
    alarm.start()
    try:
        raw.settimeout(_left(until))
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.auto_open = 0  # it never connects by itself, to what was not checked
        connection.sock = _secured(target, raw) if target.scheme == "https" else raw
        with closing(connection):
            yield connection, cut_off
    finally:
        alarm.cancel()
        raw.close()
        also.close()


def _reached(target: Target, addresses: list[IPAddress], until: float) -> socket.socket:
    failure: OSError = OSError("no address")
    for number, address in enumerate(addresses):
        raw = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
        try:
            raw.settimeout(_left(until) / (len(addresses) - number))
            raw.connect((str(address), target.port))
        except OSError as error:
            failure = error
            raw.close()
        else:
            return raw
    raise OutOfReachError(f"cannot be reached: {_in_words(failure)}")


def _left(until: float) -> float:
    """Seconds, and never none: a socket would take that for "do not wait at all"."""
    return max(0.001, until - time.monotonic())


def _secured(target: Target, raw: socket.socket) -> ssl.SSLSocket:
    try:
        return ssl.create_default_context().wrap_socket(raw, server_hostname=target.host)
    except (OSError, ValueError) as error:
        raise OutOfReachError(f"no secure connection: {_in_words(error)}") from None


def _shut(connection: socket.socket, cut_off: threading.Event) -> None:
    cut_off.set()
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _in_words(error: Exception) -> str:
    """Nothing that the other side says."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, TimeoutError):
        return "it takes too long"
    if isinstance(error, OSError) and error.strerror and not isinstance(error, ssl.SSLError):
        return error.strerror
    return type(error).__name__


def _seconds(text: str | None) -> float:
    """Of a `Retry-After` header: a number, or a date; none if it is neither."""
    if text is None:
        return 0.0
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
