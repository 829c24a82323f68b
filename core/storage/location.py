"""Where something lies: a storage URL or a path, parsed once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from millrace.core.errors import BadLocation

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PRESIGNED = re.compile(r"(?i)[?&](x-(amz|goog)-[a-z-]+|awsaccesskeyid|signature|sig)=")

_CREDENTIALS = "storage credentials are read from the environment: docs/configuration.md"


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a store: the store's root and a prefix below it.

    `scheme` is `file`, `s3` or another that obstore knows. `root` is an absolute directory
    for files, the bucket for `s3`, a URL otherwise. `prefix` is empty or ends with a slash,
    and is always empty for files: there the directory is the root.
    """

    scheme: str
    root: str
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Read `photos/`, `/data/photos`, `file:///data/photos` or `s3://bucket/photos/`.

        A path in an `s3://` URL is a directory-like prefix, taken verbatim: `%`, `#` and `?`
        are ordinary characters of a key. But credentials are never part of a location, which
        is written into jobs and logs: userinfo and presigned queries are refused. Raises
        BadLocation, which does not repeat them.
        """
        if not text:
            raise BadLocation("an empty string is not a place")
        if "\x00" in text:
            raise BadLocation("a location cannot hold a NUL character")
        scheme, separator, rest = text.partition("://")
        if not separator or "/" in scheme:
            return cls("file", os.path.abspath(os.path.expanduser(text)))
        shown = without_secrets(text)
        if _PRESIGNED.search(text):
            raise BadLocation(f"{shown}: presigned URLs are not taken", hint=_CREDENTIALS)
        if scheme == "file":
            parts = urlsplit(text)
            if parts.netloc not in ("", "localhost"):
                raise BadLocation(f"{shown}: file URLs name local paths: file:///absolute/path")
            if parts.query or parts.fragment:
                raise BadLocation(f"{shown}: write '?' as %3F and '#' as %23 in a file URL")
            path = os.fsdecode(unquote_to_bytes(parts.path))
            if not path.startswith("/"):
                raise BadLocation(f"{shown}: expected file:///absolute/path")
            return cls("file", os.path.abspath(path))
        bucket, _, prefix = rest.partition("/")
        if "@" in bucket:
            raise BadLocation(f"{shown}: credentials are not part of a URL", hint=_CREDENTIALS)
        if not _BUCKET.fullmatch(bucket):
            raise BadLocation(f"{shown}: that is not a bucket's name")
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        if scheme == "s3":
            return cls("s3", bucket, prefix)
        if scheme in ("gs", "az", "memory"):
            return cls(scheme, f"{scheme}://{bucket}", prefix)
        raise BadLocation(
            f"{shown}: unknown scheme {scheme!r}",
            hint="use a directory, file:///path or s3://bucket/prefix",
        )

    @property
    def uri(self) -> str:
        """The location as a URL that parses back to it (`s3://bucket` for a whole bucket)."""
        if self.scheme == "file":
            return Path(self.root).as_uri()
        base = f"s3://{self.root}" if self.scheme == "s3" else self.root
        url = f"{base}/{self.prefix}"
        return url if url.endswith("//") else url.removesuffix("/")

    def child(self, name: str) -> Location:
        """The directory-like place `name` below this one."""
        if self.scheme == "file":
            return Location("file", os.path.join(self.root, name))
        return Location(self.scheme, self.root, f"{self.prefix}{name}/")

    def split(self) -> tuple[Location, str]:
        """The place this one is a child of, and the name it has there."""
        if self.scheme == "file":
            above, name = os.path.split(self.root)
            return Location("file", above), name
        above, slash, name = self.prefix.removesuffix("/").rpartition("/")
        return Location(self.scheme, self.root, above + slash), name

    def contains(self, other: Location) -> bool:
        """Whether `other` is this place or lies below it."""
        if self.scheme != other.scheme:
            return False
        if self.scheme == "file":
            return Path(other.root).is_relative_to(self.root)
        return self.root == other.root and other.prefix.startswith(self.prefix)

    def __str__(self) -> str:
        return self.uri


def holds_secrets(text: str) -> bool:
    """Whether it is a URL with userinfo or a presigned query."""
    _, separator, rest = text.partition("://")
    return bool(separator) and ("@" in re.split("[/?#]", rest)[0] or bool(_PRESIGNED.search(rest)))


def without_secrets(text: str) -> str:
    """A URL as it may be shown: without userinfo, port or query. Paths stay as they are."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    # A secret key may hold a slash: everything up to the last `@` may be one.
    rest = re.sub(r"(?s)^.*@", "…@", rest)
    rest = re.sub(r"(?s)\?.*", "?…", rest)
    return f"{scheme}://" + re.sub(r"^(…@)?[^/]*:[^/]*", "…", rest)
