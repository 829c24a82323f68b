"""The benchmarks run on the real thing; what is checked does not depend on this machine's speed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import bookkeeping, enqueue, limit
from benchmarks.command import run_json
from benchmarks.contenders import CORES, Millrace
from benchmarks.course import Course
from benchmarks.harness import images_for
from benchmarks.inputs import KINDS, write_set
from benchmarks.race import Entrant, race
from benchmarks.services import environment
from benchmarks.tables import Workload
from millrace.core.bundle import read_bundle
from millrace.worker.images import ImageDecoder
from millrace.worker.options import MAX_PIXELS

MIB_IN_KIB = 1024


def test_enqueuing_is_measured_on_the_producers_own_path(tmp_path: Path) -> None:
    found = enqueue.measure(20_000, tmp_path)
    assert found.images == 20_000
    assert len(list(tmp_path.rglob("part-*.jsonl"))) == 3
    assert found.redis_keys_kib < found.redis_grown_kib < 2 * MIB_IN_KIB
    assert found.rss_peak_mib - found.rss_at_a_tenth_mib < 50


def test_bookkeeping_is_measured_in_a_real_worker(tmp_path: Path, no_environment: None) -> None:
    spent = bookkeeping.measure(300, tmp_path)
    whole = spent.pop("whole")
    assert whole == pytest.approx(sum(spent.values()), abs=0.001)
    assert min(spent.values()) >= 0
    assert len(list(tmp_path.rglob("chunk-*.jsonl"))) == 3


@pytest.fixture
def course(repository: Path, tmp_path: Path) -> Course:
    """Three small pictures for the tiny model, and what it says of each."""
    bundle = repository / "tiny" / "1"
    few = replace(KINDS["small"], width=40, height=30, distinct=3)
    pictures = write_set(few, tmp_path / "pictures")
    predictor = limit.open_session(bundle, "openvino", "float32")
    decoder = ImageDecoder(read_bundle(bundle).card, max_pixels=MAX_PIXELS)
    top = [
        int(predictor.predict(decoder.decode(picture.read_bytes())[None]).argmax())
        for picture in pictures
    ]
    workload = Workload(model="tiny", inputs="small", storage="disk")
    return Course(workload, bundle, pictures, {"filtered": top}, tmp_path)


def test_millrace_races_beside_its_limit_and_from_s3(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "LOOP_S", 0.05)
    seconds = 0.01
    ours = Millrace("ours", engine="openvino", processes=1)
    disk, s3 = race(
        [
            Entrant("disk", ours, course, limited=True),
            Entrant("s3", ours, course.with_storage("s3"), latency_ms=1, base="disk"),
        ],
        rounds=1,
        seconds=seconds,
    )
    assert (disk.absent, s3.absent) == (None, None)
    (sample,), (from_s3,) = disk.samples, s3.samples
    assert sample.cost is not None
    assert min(sample.cost.decode_s, sample.cost.predict_s) > 0
    assert sample.images == images_for(sample.cost.limit(CORES), seconds)
    assert disk.efficiency(CORES) == pytest.approx(sample.rate / sample.cost.limit(CORES))
    assert (sample.agreement, from_s3.agreement) == (1.0, 1.0)
    assert (from_s3.cost, sample.store_cpu_s) == (None, None)
    assert from_s3.store_cpu_s is not None
    assert from_s3.store_cpu_s > 0
    assert not (course.directory / "out").exists()


def test_decoding_and_predicting_in_turns_is_measured_too(course: Course) -> None:
    asked = ["--model", str(course.bundle), "--images", str(course.pictures[0].parent)]
    asked += ["--engine", "openvino", "--seconds", "0.05", "--in-turns"]
    cost = run_json(
        [sys.executable, "-m", "benchmarks.limit", *asked],
        environment(),
        limit.LONGEST_S,
    )
    assert set(cost) == {"decode_s", "predict_s", "in_turns_s"}
    assert min(cost.values()) > 0
