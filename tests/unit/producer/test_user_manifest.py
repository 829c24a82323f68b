"""The user's own manifest: what it may say, and where it goes wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.core.errors import BadLocation, BadManifest, ObjectNotFound, SourceChanged
from millrace.core.manifest import ManifestRow
from millrace.core.settings import StorageSettings
from millrace.core.sizes import MAX_LINE_BYTES
from millrace.core.storage import Location, Stores
from millrace.core.storage.base import BLOCK_BYTES
from millrace.producer.user_manifest import read_user_manifest

BUCKET = Location.parse("s3://photos/2024")
FOLDER = Location.parse("/photos")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "list.txt"


def rows(file: Path, source: Location = FOLDER) -> list[ManifestRow]:
    return list(read_user_manifest(Stores(StorageSettings.load()), str(file), source))


def keys(file: Path, source: Location = FOLDER) -> list[str]:
    return [row.key for row in rows(file, source)]


def problem(file: Path, source: Location = FOLDER) -> BadManifest:
    with pytest.raises(BadManifest) as caught:
        rows(file, source)
    assert str(file) in str(caught.value)
    return caught.value


def test_a_line_is_a_key(file: Path) -> None:
    file.write_text("a.jpg\nx/b.jpg\n")
    assert rows(file) == [ManifestRow("a.jpg"), ManifestRow("x/b.jpg")]


def test_a_line_may_be_json(file: Path) -> None:
    file.write_text('{"key":"a.jpg"}\n{"key":"b.jpg","etag":"\\"1\\"","size":9}\n')
    assert rows(file) == [ManifestRow("a.jpg"), ManifestRow("b.jpg", '"1"', 9)]


def test_keys_and_json_may_be_mixed(file: Path) -> None:
    file.write_text('a.jpg\n  {"key": "b.jpg", "note": "ignored"}\nc.jpg')
    assert keys(file) == ["a.jpg", "b.jpg", "c.jpg"]


def test_blank_lines_are_skipped_and_spaces_are_part_of_a_key(file: Path) -> None:
    file.write_text("\n\na b .jpg\n   \n\t\n c.jpg\n\n")
    assert keys(file) == ["a b .jpg", " c.jpg"]


def test_a_file_from_windows_is_read(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbfa.jpg\r\n\r\n{"key":"b.jpg"}\r\nc.jpg')
    assert keys(file) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_byte_order_mark_may_stand_before_json(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"key":"b.jpg"}\n')
    assert keys(file) == ["b.jpg"]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf", b"\r\n \r\n"])
def test_a_manifest_may_name_nothing(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    assert rows(file) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=30)))
def test_any_key_can_be_named_in_json(file: Path, names: list[str]) -> None:
    file.write_bytes(b"\n".join(orjson.dumps({"key": name}) for name in names))
    assert keys(file) == names


names = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names.filter(lambda name: not name.startswith("{"))))
def test_plain_lines_are_taken_verbatim(file: Path, lines: list[str]) -> None:
    file.write_text("\n".join(lines), encoding="utf-8")
    assert keys(file) == lines


def test_lines_are_whole_where_blocks_meet(file: Path) -> None:
    names = [f"{'x' * 990}-{number}.jpg" for number in range(2 * BLOCK_BYTES // 1000)]
    file.write_text("\n".join(names))
    assert keys(file) == names


def test_the_manifest_may_lie_in_a_store() -> None:
    stores = Stores(StorageSettings.load())
    stores.open(Location.parse("memory://lists")).put("of/mine.txt", b"a.jpg\nb.jpg\n")
    found = read_user_manifest(stores, "memory://lists/of/mine.txt", FOLDER)
    assert [row.key for row in found] == ["a.jpg", "b.jpg"]


SECRET = "hunter2-3e8a"


@pytest.mark.parametrize("source", [FOLDER, BUCKET, Location.parse("s3://photos")])
@pytest.mark.parametrize(
    "url",
    [
        f"https://photos.s3.amazonaws.com/2024/a.png?X-Amz-Expires=60&X-Amz-Signature={SECRET}",
        f"s3://photos/2024/a.png?X-Amz-Credential=A&X-Amz-Signature={SECRET}",
        f"https://host/photos/a.png?AWSAccessKeyId=A&Signature={SECRET}",
        f"https://host/photos/a.png?sv=2026&sig={SECRET}",
        f"https://user:{SECRET}@host/a.png",
        f"s3://AKIAX:{SECRET}@photos/2024/a.png",
    ],
)
@pytest.mark.parametrize("form", ["{}", '{{"key": "{}"}}'])
def test_a_url_that_holds_a_secret_is_refused_and_not_repeated(
    file: Path, source: Location, url: str, form: str
) -> None:
    file.write_text("\n" + form.format(url))
    assert SECRET not in repr(problem(file, source))
    assert problem(file, source).line == 2


def test_a_key_that_looks_a_little_like_a_url_with_a_secret_is_a_key(file: Path) -> None:
    names = ["a?b&sig=c.png", "https://host/@me/a.png", "a://b?signature of=x", "a@b://c.png"]
    file.write_text("\n".join(names))
    assert keys(file) == names


def test_the_manifest_may_be_a_pipe(file: Path) -> None:
    os.mkfifo(file)
    writer = threading.Thread(target=file.write_bytes, args=(b"a.jpg\n" * 100_000,))
    writer.start()
    assert keys(file) == ["a.jpg"] * 100_000
    writer.join()


def test_a_manifest_that_is_written_while_it_is_read_is_refused(file: Path) -> None:
    file.write_text("a.jpg\n" * BLOCK_BYTES)
    found = read_user_manifest(Stores(StorageSettings.load()), str(file), FOLDER)
    next(found)
    with file.open("a") as again:
        again.write("b.jpg\n")
    with pytest.raises(SourceChanged):
        list(found)


@pytest.mark.parametrize("uri", ["s3://lists", "s3://lists/", "memory://lists"])
def test_a_bucket_is_no_manifest(uri: str) -> None:
    with pytest.raises(BadLocation, match="names no object"):
        next(read_user_manifest(Stores(StorageSettings.load()), uri, FOLDER))


def test_a_manifest_that_is_not_there_is_not_found(file: Path) -> None:
    with pytest.raises(ObjectNotFound):
        rows(file)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"key": "a.jpg"', "not JSON"),
        (b"{}", "expected a key"),
        (b'{"key": ""}', "expected a key"),
        (b'{"key": 5}', "expected a key"),
        (b'{"key": null}', "expected a key"),
        (b'{"Key": "a.jpg"}', "expected a key"),
        (b'{"key": "a", "etag": 5}', "etag is not a string"),
        (b'{"key": "a", "size": "big"}', "size is not"),
        (b'{"key": "a", "size": -1}', "size is not"),
        (b'{"key": "a", "size": 1.5}', "size is not"),
        (b'{"key": "a", "size": true}', "size is not"),
        (b'{"key": "a", "size": 99999999999999999999}', "size is not"),
        (b"caf\xe9.jpg", "not UTF-8"),
        (b'{"key": "caf\xe9.jpg"}', "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_its_number(file: Path, line: bytes, what: str) -> None:
    file.write_bytes(b"a.jpg\r\n\r\nb.jpg\n" + line + b"\nc.jpg\n")
    error = problem(file)
    assert error.line == 4
    assert what in str(error)


def test_rows_before_a_bad_line_are_streamed(file: Path) -> None:
    file.write_text("a.jpg\n{}\n")
    found = read_user_manifest(Stores(StorageSettings.load()), str(file), FOLDER)
    assert next(found).key == "a.jpg"
    with pytest.raises(BadManifest):
        next(found)


def test_a_line_that_never_ends_is_refused(file: Path) -> None:
    file.write_bytes(b"a.jpg\n" + b"x" * (2 * BLOCK_BYTES))
    error = problem(file)
    assert error.line == 2
    assert f"longer than {MAX_LINE_BYTES} bytes" in str(error)


def test_a_line_may_be_too_long_within_a_block(file: Path) -> None:
    file.write_bytes(b"a.jpg\n" + b"x" * (MAX_LINE_BYTES + 1) + b"\nb.jpg\n")
    assert problem(file).line == 2
    file.write_bytes(b"x" * MAX_LINE_BYTES)
    assert keys(file) == ["x" * MAX_LINE_BYTES]


def test_a_file_that_is_no_text_is_refused(file: Path) -> None:
    file.write_bytes(bytes(3 * BLOCK_BYTES))
    assert problem(file).line == 1


def test_the_keys_of_a_bucket_are_whole_keys(file: Path) -> None:
    file.write_text('2024/a.jpg\ns3://photos/2024/b.jpg\n{"key":"s3://photos/2024/c#d.jpg"}\n')
    assert keys(file, BUCKET) == ["2024/a.jpg", "2024/b.jpg", "2024/c#d.jpg"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a.jpg", "is not under s3://photos/2024"),
        ("2023/a.jpg", "is not under s3://photos/2024"),
        ("2024", "is not under s3://photos/2024"),
        ("/2024/a.jpg", "is not under s3://photos/2024"),
        ("s3://photos/2023/a.jpg", "is not under s3://photos/2024"),
        ("s3://other/2024/a.jpg", "is not in the bucket photos"),
        ("s3://photos", "is not under s3://photos/2024"),
        ("2024/" + "é" * 510, "longer than 1024 bytes"),
    ],
)
def test_a_key_outside_the_source_is_refused(file: Path, line: str, what: str) -> None:
    file.write_text(f"2024/a.jpg\n{line}\n")
    error = problem(file, BUCKET)
    assert error.line == 2
    assert what in str(error)


@pytest.mark.parametrize("line", ["s3://photos", "s3://photos/"])
def test_a_url_of_the_bucket_alone_names_no_key(file: Path, line: str) -> None:
    file.write_text(line)
    assert problem(file, Location.parse("s3://photos")).line == 1


def test_a_key_of_1024_bytes_will_do(file: Path) -> None:
    name = "2024/" + "x" * 1019
    file.write_text(name)
    assert keys(file, BUCKET) == [name]


def test_a_url_is_an_ordinary_key_of_a_directory(file: Path) -> None:
    file.write_text("s3://photos/a.jpg\n")
    assert keys(file) == ["s3://photos/a.jpg"]
