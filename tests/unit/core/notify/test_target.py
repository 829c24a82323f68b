"""URLs that may be notified, as they are read."""

from __future__ import annotations

import ipaddress

import pytest

from millrace.core.notify.target import LONGEST, Target


@pytest.mark.parametrize(
    ("url", "target", "origin"),
    [
        ("https://a.org", Target("https", "a.org", 443, "/"), "https://a.org"),
        (
            "https://A.ORG.:8443/x?y=z#f",
            Target("https", "a.org", 8443, "/x?y=z"),
            "https://a.org:8443",
        ),
        ("http://a.org:80/", Target("http", "a.org", 80, "/"), "http://a.org"),
        (
            "https://[2001:DB8::0:1]/p",
            Target("https", "2001:db8::1", 443, "/p"),
            "https://[2001:db8::1]",
        ),
    ],
)
def test_a_url_is_read_and_shown_without_its_path(url: str, target: Target, origin: str) -> None:
    assert Target.parse(url) == target
    assert target.origin == origin


@pytest.mark.parametrize(
    "url",
    [
        *("", "a.org", "//a.org", "ftp://a.org", "file:///etc/passwd", "javascript:alert(1)"),
        *("https://", "https:///path", "https://a b.org", "https://a.org/\n", "https://a..org"),
        *("https://user@a.org", "https://user:pw@a.org", "https://:@a.org", "https://ä.org"),
        *("https://a.org:99999", "https://a.org:x", "https://[::1", "https://[fe80::1%25eth0]"),
        *("https://a.org\\@b.org", "https://a.org/\r\nHost: b", f"https://a.org/{'x' * LONGEST}"),
    ],
)
def test_what_is_no_url_of_a_web_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Target.parse(url)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("localhost", "127.0.0.1"),
        ("LOCALHOST.", "127.0.0.1"),
        ("api.localhost", "127.0.0.1"),
        ("[::ffff:10.0.0.1]", "::ffff:10.0.0.1"),
        ("a.org", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("10.example", None),
    ],
)
def test_a_host_that_is_an_address_in_any_spelling_is_one(host: str, address: str | None) -> None:
    found = Target.parse(f"https://{host}/").address
    assert found == (None if address is None else ipaddress.ip_address(address))
