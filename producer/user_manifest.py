"""The user's own manifest: one key or `{"key": …}` a line, instead of listing."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import orjson

from millrace.core.errors import BadLocation, BadManifest
from millrace.core.lines import split_lines
from millrace.core.manifest import ManifestRow
from millrace.core.sizes import MAX_LINE_BYTES
from millrace.core.storage import Location, Stores
from millrace.core.storage.location import holds_secrets, without_secrets

MAX_KEY_BYTES = 1024


def read_user_manifest(stores: Stores, uri: str, source: Location) -> Iterator[ManifestRow]:
    """Stream the rows of a manifest, a local file or pipe or at a URL.

    A line is a key of the source, or a JSON object with `key` and optionally `etag` and
    `size`; blank lines are skipped. Keys of an `s3://` source are whole keys of the bucket
    (or `s3://bucket/key` URLs), those of a directory are relative to it. URLs that hold
    credentials are refused, for keys are written into jobs and logs. Raises BadManifest with
    the line's number, and the store's errors.
    """

    def too_long(number: int) -> BadManifest:
        return BadManifest(uri, number, f"longer than {MAX_LINE_BYTES} bytes")

    lines = split_lines(_blocks(stores, uri), MAX_LINE_BYTES, too_long)
    for number, raw in enumerate(lines, start=1):
        line = raw.removesuffix(b"\r")
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield _row(line, uri, number, source)


def _blocks(stores: Stores, uri: str) -> Iterator[bytes]:
    location = Location.parse(uri)
    if location.scheme == "file":
        from millrace.core.storage.local import stream

        return stream(location.root)
    if not location.prefix:
        raise BadLocation(f"{uri} names no object")
    return stores.open(location).blocks(location.prefix.removesuffix("/"))


def _row(line: bytes, uri: str, number: int, source: Location) -> ManifestRow:
    etag = size = None
    try:
        if line.lstrip().startswith(b"{"):
            fields = orjson.loads(line)
            key, etag, size = fields.get("key"), fields.get("etag"), fields.get("size")
        else:
            key = line.decode("utf-8")
    except orjson.JSONDecodeError as error:
        raise BadManifest(uri, number, f"not JSON: {error}") from None
    except UnicodeDecodeError:
        raise BadManifest(uri, number, "not UTF-8") from None
    if not isinstance(key, str) or not key:
        raise BadManifest(uri, number, 'expected a key or {"key": "…"}')
    if not (etag is None or isinstance(etag, str)):
        raise BadManifest(uri, number, "etag is not a string")
    if not (size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0)):
        raise BadManifest(uri, number, "size is not a number of bytes")
    return ManifestRow(_key_in(source, key, uri, number), etag, size)


def _key_in(source: Location, key: str, uri: str, number: int) -> str:
    """The key within the source's store. Raises BadManifest if it lies outside the source."""
    if holds_secrets(key):
        raise BadManifest(uri, number, f"{without_secrets(key)} holds credentials")
    if source.scheme == "s3" and key.startswith("s3://"):
        bucket, _, rest = key.removeprefix("s3://").partition("/")
        if bucket != source.root:
            raise BadManifest(
                uri, number, f"{without_secrets(key)} is not in the bucket {source.root}"
            )
        key = rest
    if not key or not key.startswith(source.prefix):
        raise BadManifest(uri, number, f"{without_secrets(key)!r} is not under {source}")
    if len(key.encode("utf-8", "replace")) > MAX_KEY_BYTES and source.scheme != "file":
        raise BadManifest(uri, number, f"the key is longer than {MAX_KEY_BYTES} bytes")
    return key
