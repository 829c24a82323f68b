"""Which addresses may be notified."""

from __future__ import annotations

import ipaddress

import pytest

from millrace.core.errors import UsageError
from millrace.core.notify.rules import Reach, Rules, check_notify, reach_of
from millrace.core.notify.target import Target
from millrace.core.settings import Settings

pytestmark = pytest.mark.usefixtures("no_environment")

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
PRIVATE = [
    *("127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("100.64.0.1", "::1", "fd12:3456::1", "::ffff:127.0.0.1", "::ffff:192.168.0.1"),
]
NEVER = [
    *("169.254.169.254", "169.254.0.1", "100.100.100.200", "192.0.0.192", "0.0.0.0", "0.1.2.3"),
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
    *("::", "fe80::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254", "2001:db8::1"),
    *("168.63.129.16", "192.0.0.8", "192.88.99.1", "fec0::1"),
    *("::ffff:169.254.169.254", "64:ff9b::169.254.169.254", "64:ff9b::127.0.0.1"),
    *("64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
]


@pytest.mark.parametrize(
    ("reach", "address"),
    [
        *((Reach.PUBLIC, address) for address in PUBLIC),
        *((Reach.PRIVATE, address) for address in PRIVATE),
        *((Reach.NEVER, address) for address in NEVER),
    ],
)
def test_an_address_is_known_by_who_can_reach_it(reach: Reach, address: str) -> None:
    assert reach_of(ipaddress.ip_address(address)) is reach


def url_of(address: str) -> str:
    return f"https://[{address}]/" if ":" in address else f"https://{address}/"


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
def test_none_but_public_ones_are_notified(address: str) -> None:
    with pytest.raises(UsageError, match="address"):
        check_notify(Settings.load(), url_of(address))


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "0x7f000001", "a.localhost"])
def test_a_private_address_in_disguise_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="private address"):
        check_notify(Settings.load(), f"https://{host}/")


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_may_be_allowed(address: str) -> None:
    check_notify(Settings.load(notify_allow_private=True), url_of(address))
    check_notify(Settings.load(notify_hosts=f"a.org [{address}]"), url_of(address))


@pytest.mark.parametrize("address", NEVER)
def test_nothing_allows_the_others(address: str) -> None:
    for settings in (
        Settings.load(notify_allow_private=True),
        Settings.load(notify_hosts=str(ipaddress.ip_address(address))),
    ):
        with pytest.raises(UsageError, match="reserved address"):
            check_notify(settings, url_of(address))


def test_no_hosts_but_the_listed_are_notified() -> None:
    settings = Settings.load(notify_hosts="Hooks.example.org. other.org", notify_allow_private=True)
    check_notify(settings, "https://hooks.example.org/x")
    for url in ("https://example.org/", "https://x.hooks.example.org/", "https://8.8.8.8/"):
        with pytest.raises(UsageError, match="NOTIFY_HOSTS"):
            check_notify(settings, url)


def test_nothing_public_is_notified_in_the_clear() -> None:
    for settings in (Settings.load(), Settings.load(notify_allow_private=True)):
        with pytest.raises(UsageError, match="https"):
            check_notify(settings, "http://8.8.8.8/")
    with pytest.raises(UsageError, match="https"):
        check_notify(Settings.load(), "http://example.org/")
    rules, target = (
        Rules.of(Settings.load(notify_allow_private=True)),
        Target.parse("http://a.org/"),
    )
    rules.check(target)  # it may turn out to be private
    rules.check_address(target, ipaddress.ip_address("10.0.0.1"))
    with pytest.raises(UsageError, match="https"):
        rules.check_address(target, ipaddress.ip_address("8.8.8.8"))


def test_a_host_that_is_named_takes_plain_http_wherever_it_is() -> None:
    """Whether its address is public shows only when it is told: then it is too late to refuse."""
    settings = Settings.load(notify_hosts="a.org 8.8.8.8")
    for url in ("http://a.org/", "http://8.8.8.8/"):
        check_notify(settings, url)
        for address in ("8.8.8.8", "10.0.0.1"):
            Rules.of(settings).check_address(Target.parse(url), ipaddress.ip_address(address))


def test_a_refusal_tells_no_path() -> None:
    with pytest.raises(UsageError) as refused:
        check_notify(Settings.load(), "https://127.0.0.1/t0p-s3cret?t0p-s3cret")
    assert "t0p-s3cret" not in str(refused.value)


def test_what_is_no_url_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"^notify: ftp scheme"):
        check_notify(Settings.load(), "ftp://example.org/")
