"""Who asks, and what they may do: bearer tokens, browser sessions, two roles.

A route says what it wants as a dependency: `Depends(viewer)` or `Depends(operator)`. A session is
a signed cookie that names its token, which is its key: a token that is taken away takes its
sessions with it, and nothing is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import SplitResult, quote, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request

from millrace.core.errors import Forbidden, Unauthenticated, UsageError
from millrace.producer.http.settings import LOCAL_NAMES, HttpSettings

COOKIE = "millrace_session"
SESSION_S = 12 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SHORTEST_TOKEN = 16


class Role(IntEnum):
    """Each may do what the ones before it may."""

    VIEWER = 1
    """Reads: jobs, results, models, workers."""
    OPERATOR = 2
    """Also acts: submits, cancels, retries, predicts."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request. `name` is for logs, `id` never says the token."""

    name: str
    role: Role
    id: str


NOBODY_IN_PARTICULAR = Caller("local", Role.OPERATOR, "local")


class Access:
    """Knows the tokens. Raises UsageError for settings that would leave the server open."""

    def __init__(self, settings: HttpSettings) -> None:
        self.open = settings.no_auth
        self._hosts = LOCAL_NAMES | {settings.http_host}
        self._by_digest: dict[bytes, Caller] = {}
        self._keys: dict[str, tuple[Caller, bytes]] = {}
        for role, secret in (
            (Role.VIEWER, settings.viewer_token),
            (Role.OPERATOR, settings.operator_token),
        ):
            if secret is not None:
                self._add(role, role.name.lower(), secret.get_secret_value())
        if settings.tokens_file:
            self._read(settings.tokens_file)
        if self.open and not settings.loopback:
            raise UsageError(
                f"without tokens it is for this machine alone, not for {settings.http_host}",
                hint="leave --no-auth out, or --host",
            )
        if self.open and self._keys:
            raise UsageError("there are tokens, but --no-auth lets everybody in: one of the two")
        if not self.open and not self._keys:
            raise UsageError(
                "there is no token that would let anybody in",
                hint="MILLRACE_OPERATOR_TOKEN=$(openssl rand -hex 16), or --no-auth on loopback",
            )

    def caller(self, request: Request) -> Caller:
        """Who sent a request. Raises Unauthenticated; Forbidden if a browser sent what a page of
        another site made it send."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and not self.open:
            return self.by_token(token.strip())
        if self.open:
            self._refuse_other_names(request)
            self._refuse_other_sites(request, browser=False)
            return NOBODY_IN_PARTICULAR
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            raise Unauthenticated("this needs a token", hint="Authorization: Bearer TOKEN")
        caller = self._by_session(cookie)
        self._refuse_other_sites(request, browser=True)
        return caller

    def by_token(self, token: str) -> Caller:
        """Whose token it is. Raises Unauthenticated."""
        caller = self._by_digest.get(_digest(token))
        if caller is None:
            raise Unauthenticated("the server knows no such token")
        return caller

    def session(self, caller: Caller) -> str:
        """The value of a cookie that stands for the caller's token for `SESSION_S` seconds."""
        said = f"{int(time.time()) + SESSION_S}.{caller.id}"
        return f"{said}.{_sign(self._keys[caller.id][1], said)}"

    def _by_session(self, cookie: str) -> Caller:
        said, _, signature = cookie.rpartition(".")
        until, _, token_id = said.partition(".")
        caller, key = self._keys.get(token_id, (None, b""))
        if (
            caller is None
            or not hmac.compare_digest(_sign(key, said).encode(), signature.encode())
            or int(until) < time.time()
        ):
            raise Unauthenticated("the session has ended", hint="log in again")
        return caller

    def _refuse_other_names(self, request: Request) -> None:
        """A page of another site may have a name of its own point at this machine."""
        name = _parts(f"//{request.headers.get('host', '')}").hostname
        if name not in self._hosts:
            raise Forbidden(f"without tokens the server answers to localhost, not to {name!r}")

    def _refuse_other_sites(self, request: Request, *, browser: bool) -> None:
        """A browser sends its cookies, and reaches this machine, whoever's page asks it to."""
        if request.method in SAFE_METHODS:
            return
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site is not None:
            ours = site in ("same-origin", "none")
        elif origin is not None:
            ours = _parts(origin).netloc == request.headers.get("host", "")
        else:
            ours = not browser
        if not ours:
            raise Forbidden("the request comes from a page of another site")

    def refuse_other_sites(self, request: Request) -> None:
        """Raise Forbidden for what a page of another site sent, whoever is logged in."""
        self._refuse_other_sites(request, browser=False)

    def _add(self, role: Role, name: str, token: str) -> None:
        digest = _digest(token)
        caller = Caller(name, role, digest.hex()[:16])
        if digest in self._by_digest:
            raise UsageError(f"the token of {name!r} is also {self._by_digest[digest].name!r}'s")
        self._by_digest[digest] = caller
        self._keys[caller.id] = (caller, hashlib.sha256(b"session" + token.encode()).digest())

    def _read(self, file: str) -> None:
        try:
            with open(file, encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    self._read_line(line.split(), f"{file}, line {number}")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"MILLRACE_TOKENS_FILE: cannot read {file}: {error}") from None

    def _read_line(self, words: list[str], where: str) -> None:
        if not words or words[0].startswith("#"):
            return
        roles = {role.name.lower(): role for role in Role}
        if len(words) != 3 or words[0] not in roles:
            raise UsageError(f"{where}: expected viewer or operator, a name and a token")
        role, name, token = words
        if len(token) < SHORTEST_TOKEN:
            raise UsageError(f"{where}: the token is shorter than {SHORTEST_TOKEN} characters")
        self._add(roles[role], name, token)


async def viewer(request: Request) -> Caller:
    """Dependency: somebody who may look. Raises Unauthenticated, Forbidden."""
    access: Access = request.app.state.access
    return access.caller(request)


async def operator(request: Request) -> Caller:
    """Dependency: somebody who may act. Raises Unauthenticated, Forbidden."""
    caller = await viewer(request)
    if caller.role < Role.OPERATOR:
        raise Forbidden("this takes an operator's token")
    return caller


async def page_viewer(request: Request) -> Caller:
    """`viewer` of a page for people: who is not logged in is led to where they can be."""
    try:
        return await viewer(request)
    except Unauthenticated:
        raise _to_login(request) from None


async def page_operator(request: Request) -> Caller:
    """`operator` of a page for people."""
    try:
        return await operator(request)
    except Unauthenticated:
        raise _to_login(request) from None


def _to_login(request: Request) -> HTTPException:
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if "hx-request" in request.headers:
        return HTTPException(401, "this needs a login", {"hx-redirect": "/login"})
    target = f"/login?next={quote(path, safe='/')}"
    return HTTPException(303, "this needs a login", {"location": target})


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise Forbidden(f"{url!r} leads nowhere") from None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _sign(key: bytes, said: str) -> str:
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()
