"""Thumbnails: safe, small, kept, and never the original's bytes."""

from __future__ import annotations

import io
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from millrace.core import pictures
from millrace.core.errors import ItemError, ObjectNotFound, SpecMismatch
from millrace.core.job import JobSpec
from millrace.core.manifest import ManifestRow
from millrace.core.services import Services
from millrace.core.storage import Store
from millrace.producer.enqueue import enqueue
from millrace.producer.web import thumbnails
from millrace.producer.web.job_files import JobFiles
from millrace.producer.web.thumbnail_cache import ThumbnailCache
from millrace.producer.web.thumbnails import AT_ONCE, Thumbnails
from tests.support import wait_until
from tests.unit.core.support import a_spec, created


@pytest.fixture(autouse=True)
def pillows_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making one sets Pillow's global limit; the next test starts from Pillow's own."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)


@pytest.fixture
def made(services: Services, tmp_path: Path) -> Thumbnails:
    return Thumbnails(JobFiles(services), ThumbnailCache(tmp_path / "cache", 10**7))


def photo(path: Path, size: tuple[int, int] = (640, 480), **options: Any) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").resize(size).convert("RGB").save(path, **options)
    return path.read_bytes()


def job_over(services: Services, root: Path, *rows: ManifestRow, job_id: str = "j") -> JobSpec:
    """A job whose manifest holds these rows, whatever lies in `root/in`."""
    (root / "in").mkdir(exist_ok=True)
    spec = a_spec(
        job_id, input={"uri": (root / "in").as_uri()}, output=str(root / "out"), chunk_size=2
    )
    created(services, spec)
    enqueue(services, spec, iter(rows))
    return spec


def listed(root: Path, key: str) -> ManifestRow:
    """The row that listing a directory gives."""
    from millrace.core.settings import Settings
    from millrace.core.storage import Location, Stores

    info = Stores(Settings.load()).open(Location.parse(str(root / "in"))).head(key)
    return ManifestRow(info.key, info.etag, info.size)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_a_photograph_becomes_a_small_webp_without_its_metadata(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home, 52.5 N"
    data = photo(tmp_path / "in" / "a.jpg", exif=exif)
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    found = made.of(spec, 0, 192)
    image = opened(found.data)
    assert (image.format, image.size, found.problem, found.lasting) == (
        "WEBP",
        (192, 144),
        "",
        True,
    )
    assert not image.getexif()
    assert b"at home" in data
    assert b"at home" not in found.data


def test_it_stands_upright(services: Services, made: Thumbnails, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "in" / "a.jpg", exif=exif)
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.jpg")), 0, 192)
    assert opened(found.data).size == (144, 192)


def test_a_tiny_picture_is_enlarged_with_sharp_pixels(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").resize((8, 8)).save(tmp_path / "in" / "a.png")
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.png")), 0, 192)
    assert opened(found.data).size == (192, 192)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_picture(
    mode: str, services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").resize((900, 600)).convert(mode).save(tmp_path / "in" / "a.tif")
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.tif")), 0, 192)
    assert (opened(found.data).mode, opened(found.data).size) == ("RGB", (192, 128))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"<script>alert(1)</script>", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
)
def test_what_is_no_picture_is_a_word(
    content: bytes, problem: str, services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(content)
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.jpg")), 0, 192)
    assert (found.data, found.problem) == (b"", problem)


def test_a_bomb_is_refused_by_its_header(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    Image.new("1", (20_000, 20_000)).save(tmp_path / "in" / "a.png")
    assert (tmp_path / "in" / "a.png").stat().st_size < 100_000
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.png")), 0, 192)
    assert found.problem == "decompression_bomb"


@pytest.mark.parametrize("mode", ["1", "P", "I", "I;16", "F", "L", "RGBA", "CMYK"])
def test_what_makes_copies_is_given_a_small_picture(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def noted(image: Image.Image, into: str) -> Image.Image:
        sizes.append(image.size)
        return flatten(image, into)

    flatten = pictures.flatten
    monkeypatch.setattr(pictures, "flatten", noted)
    Image.linear_gradient("L").resize((3000, 2000)).convert(mode).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    assert opened(pictures.thumbnail(data, side=192, max_pixels=10**7)).size == (192, 128)
    assert sizes[0] <= (430, 290)


def test_a_palette_with_clear_colours_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (1000, 1000), 1)
    image.putpalette([0, 0, 0] * 256)
    image.save(tmp_path / "a.png", transparency=1)
    made = opened(pictures.thumbnail((tmp_path / "a.png").read_bytes(), side=192, max_pixels=10**7))
    assert made.getpixel((9, 9)) == (255, 255, 255)


@pytest.mark.parametrize(("format", "pixels"), [("PNG", 10_000), ("WEBP", 20_000)])
def test_greedy_formats_may_have_half_as_many_pixels(format: str, pixels: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, format)
    assert pictures.thumbnail(file.getvalue(), side=192, max_pixels=pixels)
    with pytest.raises(ItemError, match="over the limit"):
        pictures.thumbnail(file.getvalue(), side=192, max_pixels=pixels - 2)


def test_what_lies_in_an_icon_is_held_to_the_limit_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoded = list[tuple[int, int]]()
    load = PngImageFile.load

    def noted(image: PngImageFile) -> Any:
        decoded.append(image.size)
        return load(image)

    file = io.BytesIO()
    Image.new("RGB", (300, 300)).save(file, "PNG")
    said = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(file.getvalue()), 22)
    monkeypatch.setattr(PngImageFile, "load", noted)
    with pytest.raises(ItemError) as refused:
        pictures.thumbnail(said + file.getvalue(), side=192, max_pixels=10_000)
    assert (refused.value.code, decoded) == ("decompression_bomb", [])
    found = pictures.thumbnail(said + file.getvalue(), side=192, max_pixels=90_000)
    assert (opened(found).size, decoded[0]) == ((192, 192), (300, 300))


@pytest.mark.parametrize("format", ["ICNS", "AVIF"])
def test_what_hides_its_size_until_it_is_decoded_is_not_shown(format: str) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(file, format)
    with pytest.raises(ItemError) as refused:
        pictures.thumbnail(file.getvalue(), side=192, max_pixels=10**7)
    assert refused.value.code == "not_an_image"


def test_an_object_over_the_limit_is_not_read(
    services: Services, made: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thumbnails, "MAX_BYTES", 1000)
    photo(tmp_path / "in" / "a.jpg")
    found = made.of(job_over(services, tmp_path, listed(tmp_path, "a.jpg")), 0, 192)
    assert found.problem == "too_large"


def test_what_a_manifest_names_outside_the_input_is_not_read(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "secret.jpg")
    outside = ("../secret.jpg", "x/../../secret.jpg", str(tmp_path / "secret.jpg"))
    spec = job_over(services, tmp_path, *map(ManifestRow, outside))
    for row in range(3):
        found = made.of(spec, row, 192)
        assert found.data == b""
        assert found.problem in ("outside_root", "object_not_found", "access_denied")


def test_a_link_is_followed_as_a_worker_does(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    """Wherever it leads: it is the word of whoever may write to the directory."""
    photo(tmp_path / "elsewhere.jpg", (300, 300))
    photo(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "inside.jpg").symlink_to("a.jpg")
    (tmp_path / "in" / "out.jpg").symlink_to("../elsewhere.jpg")
    spec = job_over(services, tmp_path, ManifestRow("inside.jpg"), ManifestRow("out.jpg"))
    for row, size in enumerate([(192, 144), (192, 192)]):
        found = made.of(spec, row, 192)
        assert opened(found.data).size == size


def test_nothing_is_read_for_a_forged_job(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "private" / "a.jpg")
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    elsewhere = spec.input.model_copy(update={"uri": (tmp_path / "private").as_uri()})
    forged = spec.model_copy(update={"input": elsewhere})
    with pytest.raises(SpecMismatch):
        made.of(forged, 0, 192)


def test_a_row_that_is_not_there_is_not_found(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    for row in (1, 8191, 8192, 2**40):
        with pytest.raises(ObjectNotFound):
            made.of(spec, row, 192)


def test_it_is_made_once_and_then_kept(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    first = made.of(spec, 0, 192)
    (tmp_path / "in" / "a.jpg").unlink()
    assert made.of(spec, 0, 192) == first
    assert made.kept(spec, 0, 192) == first
    assert made.kept(spec, 0, 192, known=first.etag) == replace(first, data=b"")
    assert made.kept(spec, 0, 512) is None
    larger = made.of(spec, 0, 512)
    assert larger.problem == "object_not_found"


def test_objects_that_are_slow_to_come_hold_up_no_other(
    services: Services, made: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, gate, came = JobFiles.source, threading.Event(), list[str]()
    keys = ("slow-0.jpg", "slow-1.jpg", "a.jpg")
    for key in keys:
        photo(tmp_path / "in" / key)
    spec = job_over(services, tmp_path, *(listed(tmp_path, key) for key in keys))

    def slowly(files: JobFiles, spec: JobSpec, row: ManifestRow) -> Store:
        if row.key.startswith("slow"):
            came.append(row.key)
            gate.wait(30)
        return source(files, spec, row)

    monkeypatch.setattr(JobFiles, "source", slowly)
    with ThreadPoolExecutor(3) as pool:
        try:
            slow = [pool.submit(made.of, spec, row, 192) for row in range(AT_ONCE)]
            wait_until(lambda: len(came) == AT_ONCE, what="both wait for storage")
            assert pool.submit(made.of, spec, 2, 192).result(10).data
        finally:
            gate.set()
        assert all(one.result().data for one in slow)


def test_who_waited_for_the_same_does_not_decode_it_again(
    services: Services, made: Thumbnails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    decoded, thumbnail = list[int](), pictures.thumbnail
    fetched, source = Barrier(4), JobFiles.source

    def together(files: JobFiles, spec: JobSpec, row: ManifestRow) -> Store:
        fetched.wait(10)
        return source(files, spec, row)

    def noted(data: bytes, **how: int) -> bytes:
        decoded.append(len(data))
        return thumbnail(data, **how)

    monkeypatch.setattr(JobFiles, "source", together)
    monkeypatch.setattr(pictures, "thumbnail", noted)
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: made.of(spec, 0, 192).data, range(4))]
    assert len(set(found)) == 1
    assert len(decoded) <= AT_ONCE


def test_an_image_that_changed_is_not_passed_off_as_the_listed_one(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, listed(tmp_path, "a.jpg"))
    photo(tmp_path / "in" / "a.jpg", (300, 300))
    found = made.of(spec, 0, 192)
    assert found.problem == "source_changed"


def test_without_an_etag_it_is_read_each_time(
    services: Services, made: Thumbnails, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.jpg")
    spec = job_over(services, tmp_path, ManifestRow("a.jpg"))
    first = made.of(spec, 0, 192)
    photo(tmp_path / "in" / "a.jpg", (300, 300))
    assert made.kept(spec, 0, 192, known=first.etag) is None
    second = made.of(spec, 0, 192)
    assert not first.lasting
    assert opened(second.data).size == (192, 192)


def test_the_cache_keeps_what_was_looked_at_last(tmp_path: Path) -> None:
    import os

    cache = ThumbnailCache(tmp_path / "cache", 1000)
    for n in range(9):
        cache.put(f"{n}", b"x" * 100)
        os.utime(tmp_path / "cache" / f"{n}", (n, n))
    assert cache.get("0") == b"x" * 100  # now the one used last
    cache.put("9", b"x" * 100)
    cache.put("10", b"x" * 100)
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left >= {"0", "9", "10"}
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 900
    assert cache.get("1") is None


def test_a_disk_that_takes_nothing_costs_speed_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = ThumbnailCache(tmp_path / "file" / "below", 1000)
    cache.put("a", b"x")
    assert cache.get("a") is None
