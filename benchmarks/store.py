"""A small S3 endpoint over a directory: reading only, cheap on CPU, with latency if wished.

`python -m benchmarks.store ROOT --port N [--latency-ms 20]`. The first path segment of a
request is the bucket, a folder of ROOT. moto's server spends some milliseconds of CPU on a GET,
on the very cores that are measured; this one answers from memory what it has read once. On
SIGTERM it prints {"requests", "cpu_seconds"}, so that its own share stays visible.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import resource
import signal
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

END = b"\r\n\r\n"
MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"
XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class Request:
    """What matters of a request; `headers` in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Request:
        first, *rest = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        parts = urlsplit(target)
        query = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
        headers = (line.partition(":") for line in rest)
        return cls(
            method,
            unquote(parts.path),
            query,
            {name.lower(): value.strip() for name, _, value in headers},
        )


class Bucketful:
    """Answers requests from the folders of a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bodies: dict[int, tuple[bytes, str]] = {}

    def answer(self, request: Request) -> tuple[bytes, bytes]:
        """Head and body of the response."""
        if request.method not in ("GET", "HEAD"):
            return response(405, b"")
        bucket, _, key = request.path.lstrip("/").partition("/")
        if not key:
            exists = (self._root / bucket).is_dir()
            if not exists or request.method == "HEAD":
                return response(200 if exists else 404, b"")
            return response(200, self._listing(bucket, request.query), {"Content-Type": "text/xml"})
        try:
            body, etag = self.read(f"{bucket}/{key}")
        except (OSError, ValueError):
            return response(404, b"<Error><Code>NoSuchKey</Code></Error>", head=request.method)
        headers = {"ETag": etag, "Last-Modified": MODIFIED, "Accept-Ranges": "bytes"}
        if request.headers.get("if-match", etag) != etag:
            return response(412, b"", headers)
        if asked := request.headers.get("range"):
            first, last = _range(asked, len(body))
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            return response(206, body[first : last + 1], headers, head=request.method)
        return response(200, body, headers, head=request.method)

    def read(self, name: str) -> tuple[bytes, str]:
        """An object's bytes and ETag. Many names may be links to one file, held once."""
        if ".." in name.split("/"):
            raise ValueError(name)
        path = self._root / name
        inode = path.stat().st_ino
        if inode not in self._bodies:
            body = path.read_bytes()
            digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
            self._bodies[inode] = body, f'"{digest}"'
        return self._bodies[inode]

    def _listing(self, bucket: str, query: dict[str, str]) -> bytes:
        """ListObjectsV2; keys in order, at most `max-keys` a page."""
        folder = self._root / bucket
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        after = max(after, query.get("start-after", ""))
        most = int(query.get("max-keys", "1000"))
        keys, folders = self._names(folder, prefix, query.get("delimiter", ""))
        keys = [key for key in keys if key > after]
        page = keys[:most]
        more = len(keys) > most
        rows = [
            f"<Contents><Key>{_shown(key, query)}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>{escape(self.read(f'{bucket}/{key}')[1])}</ETag>"
            f"<Size>{(folder / key).stat().st_size}</Size><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
            for key in page
        ]
        rows += [
            f"<CommonPrefixes><Prefix>{_shown(name, query)}</Prefix></CommonPrefixes>"
            for name in folders
        ]
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{XMLNS}">'
            f"<Name>{bucket}</Name><Prefix>{_shown(prefix, query)}</Prefix>"
            f"<KeyCount>{len(page)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{''.join(rows)}"
            "</ListBucketResult>"
        ).encode()

    def _names(self, folder: Path, prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
        found = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        keys = sorted(key for key in found if key.startswith(prefix))
        if not delimiter:
            return keys, []
        rest = {key: key[len(prefix) :].partition(delimiter) for key in keys}
        folders = {prefix + name + delimiter for name, cut, _ in rest.values() if cut}
        return [key for key in keys if not rest[key][1]], sorted(folders)


def _shown(name: str, query: dict[str, str]) -> str:
    return quote(name) if query.get("encoding-type") == "url" else escape(name)


def _range(asked: str, size: int) -> tuple[int, int]:
    """First and last byte of `bytes=A-B`, `bytes=A-` or `bytes=-N`."""
    first, _, last = asked.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last) if last else size, size - 1)


def response(
    status: int, body: bytes, headers: dict[str, str] | None = None, *, head: str = "GET"
) -> tuple[bytes, bytes]:
    """A response's head and body; none goes out for HEAD, though its length is told."""
    lines = [f"HTTP/1.1 {status} -", f"Content-Length: {len(body)}", "x-amz-request-id: 0"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + END, b"" if head == "HEAD" else body


class Connection(asyncio.Protocol):
    """One client's connection, kept alive; requests are answered one after another."""

    def __init__(self, store: Bucketful, latency_s: float, served: list[int]) -> None:
        self._store = store
        self._latency_s = latency_s
        self._served = served
        self._unread = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while END in self._unread:
            head, _, self._unread = self._unread.partition(END)
            self._served[0] += 1
            answer = self._store.answer(Request.parse(head))
            if self._latency_s:
                asyncio.get_running_loop().call_later(self._latency_s, self._send, answer)
            else:
                self._send(answer)

    def _send(self, answer: tuple[bytes, bytes]) -> None:
        if not self._transport.is_closing():
            self._transport.writelines(answer)


async def serve(root: Path, port: int, latency_s: float) -> int:
    """Serve until SIGTERM; returns how many requests were answered."""
    loop = asyncio.get_running_loop()
    store, served, stopped = Bucketful(root), [0], asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(
        lambda: Connection(store, latency_s, served), "127.0.0.1", port
    )
    await stopped.wait()
    server.close()
    return served[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-ms", type=float, default=0)
    asked = parser.parse_args()
    requests = asyncio.run(serve(asked.root, asked.port, asked.latency_ms / 1000))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"requests": requests, "cpu_seconds": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
