"""Which addresses may be notified: whoever names the URL must not reach what only we can reach."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import StrEnum

from millrace.core.errors import UsageError
from millrace.core.log import get_logger
from millrace.core.notify.target import IPAddress, Target, host_of
from millrace.core.settings import NotifySettings

log = get_logger(__name__)

_HINT = "MILLRACE_NOTIFY_HOSTS or MILLRACE_NOTIFY_ALLOW_PRIVATE allow it"


class Reach(StrEnum):
    """Who can reach an address."""

    PUBLIC = "public"
    PRIVATE = "private"
    """This machine or network: refused unless it is allowed."""
    NEVER = "reserved"
    """Link-local, where clouds keep credentials, multicast, reserved."""


_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8"),
        *("::1/128", "fc00::/7"),
    )
]
_METADATA = [
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
]
"""Where clouds answer their machines' questions; some lie among private addresses."""
_ODD = [ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10")]
"""Of protocols and times gone by; Python takes some of them for public."""
_TRANSLATED = [ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48")]
"""NAT64: the last four bytes are an IPv4 address."""


def reach_of(address: IPAddress) -> Reach:
    """An IPv6 address that stands for an IPv4 one is judged as that."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return reach_of(address.ipv4_mapped)
        inner = _carried(address)
        if inner is not None:
            return Reach.PUBLIC if reach_of(inner) is Reach.PUBLIC else Reach.NEVER
    if address in _METADATA or any(address in network for network in _ODD):
        return Reach.NEVER
    if any(address in network for network in _PRIVATE):
        return Reach.PRIVATE
    if not address.is_global or address.is_multicast or address.is_reserved:
        return Reach.NEVER
    return Reach.PUBLIC


def _carried(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that a gateway would make of it."""
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if any(address in network for network in _TRANSLATED):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may be notified. Each method raises UsageError."""

    hosts: frozenset[str]
    """No others are, and these may be private and take plain `http`; empty for any public one."""
    allow_private: bool

    @classmethod
    def of(cls, settings: NotifySettings) -> Rules:
        hosts = (settings.notify_hosts or "").split()
        return cls(frozenset(map(host_of, hosts)), settings.notify_allow_private)

    def check(self, target: Target) -> None:
        """What the URL says by itself."""
        if self.hosts and target.host not in self.hosts:
            raise UsageError(f"{target.origin} is not among MILLRACE_NOTIFY_HOSTS")
        if target.address is not None:
            self.check_address(target, target.address)
        elif target.scheme == "http" and not self._may_be_private(target):
            raise UsageError(f"{target.origin} would be notified in the clear: use https")

    def check_address(self, target: Target, address: IPAddress) -> None:
        """An address that the target's host stands for."""
        reach = reach_of(address)
        never = reach is Reach.NEVER
        if never or (reach is Reach.PRIVATE and not self._may_be_private(target)):
            # Whoever reads a job's status is not told what names of our network stand for.
            log.info("not notified", to=target.origin, address=str(address))
            what = f"{target.origin} stands for a {reach} address"
            if never:
                raise UsageError(f"{what}; it is not notified")
            raise UsageError(what, hint=_HINT)
        if reach is Reach.PUBLIC and target.scheme == "http" and target.host not in self.hosts:
            raise UsageError(f"{target.origin} would be notified in the clear: use https")

    def _may_be_private(self, target: Target) -> bool:
        return self.allow_private or target.host in self.hosts


def check_notify(settings: NotifySettings, url: str) -> None:
    """Raise UsageError for a URL that is never notified, as far as it shows by itself."""
    try:
        target = Target.parse(url)
    except ValueError as error:
        raise UsageError(f"notify: {error}") from None
    Rules.of(settings).check(target)
