"""The URL that is told of a job's end, and what of it shows without asking anybody."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST = 2048

_EXPECTED = "expected https://HOST/PATH"
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_ODD_IPV4 = re.compile(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+)){0,3}")


def host_of(text: str) -> str:
    """A host as it is compared. Raises ValueError if it is none."""
    host = text.lower().strip("[]")
    if ":" in host:
        if "%" in host:
            raise ValueError(f"{host!r} is of one machine alone")
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{host!r} is no address") from None
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise ValueError(f"{host!r} is no host; {_EXPECTED}")
    return host.removesuffix(".")


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Target:
    """Where a notification goes. Its path and query may hold a token of the receiver's: they are
    shown nowhere."""

    scheme: str
    host: str
    """In lower case, without the dot that may end it, an IPv6 address without its brackets."""
    port: int
    path: str
    """With the query."""

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises ValueError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(f"no URL; {_EXPECTED}") from None
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"{parts.scheme or 'no'} scheme; {_EXPECTED}")
        if parts.username is not None or parts.password is not None:
            raise ValueError("user and password in a URL would be kept with the job")
        if len(url) > LONGEST or not re.fullmatch(r"[\x21-\x7e]+", url) or "\\" in url:
            raise ValueError(f"odd or over {LONGEST} characters; {_EXPECTED}")
        query = f"?{parts.query}" if parts.query else ""
        return cls(
            scheme=parts.scheme,
            host=host_of(parts.hostname or ""),
            port=port if port is not None else {"http": 80, "https": 443}[parts.scheme],
            path=(parts.path or "/") + query,
        )

    @property
    def origin(self) -> str:
        """`https://host:port`: all of it that is shown."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """As the `Host` header names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def address(self) -> IPAddress | None:
        """The address, if the host is one; also as `127.1`, `0x7f.1` or `2130706433`, for that is
        how it would be resolved. `localhost` is one."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return ipaddress.IPv4Address("127.0.0.1")
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            pass
        if _ODD_IPV4.fullmatch(self.host):
            try:
                return ipaddress.IPv4Address(socket.inet_aton(self.host))
            except OSError:
                return None
        return None
