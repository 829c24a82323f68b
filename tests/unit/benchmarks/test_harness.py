"""One run: fresh files, what it is given to talk to, its answers checked, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.check import Cheated
from benchmarks.command import Failed
from benchmarks.contenders import Peer
from tests.unit.benchmarks.courses import scripted, small_course

pytestmark = pytest.mark.usefixtures("peers_here")

ASKS_AROUND = """
import json, os, sys
import redis

given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
answers = redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]).ping()
links = sorted(os.listdir(given["--images"]))
settings = [os.getenv(name) for name in ("MILLRACE_MODELS", "TF_CPP_MIN_LOG_LEVEL")]
sys.exit(json.dumps([answers, links, *settings]))
"""


def left_behind(directory: Path) -> list[str]:
    """What lies in a course's scratch beside its pictures and its scripts."""
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.parent.name != "pictures" and path.suffix not in (".py", ".log")
    )


@pytest.mark.parametrize(
    ("rate", "seconds", "images"), [(100, 3, 320), (100, 12, 1216), (0.1, 3, 64), (32, 1, 64)]
)
def test_as_many_images_as_take_about_so_long(rate: float, seconds: float, images: int) -> None:
    assert harness.images_for(rate, seconds) == images


def test_a_peers_own_seconds_count_and_the_whole_process_is_noted(tmp_path: Path) -> None:
    sample = harness.run(scripted(tmp_path / "peer.py", rates="4"), small_course(tmp_path), 10)
    assert (sample.images, sample.seconds, sample.rate) == (10, 2.5, 4)
    assert 0 < sample.wall_s < harness.LONGEST_S
    assert (sample.agreement, sample.store_cpu_s, sample.cost) == (1.0, None, None)
    assert left_behind(tmp_path) == ["pictures", "sets"]


def test_answers_are_checked_against_the_contenders_own_way_of_shrinking(tmp_path: Path) -> None:
    course = small_course(tmp_path)
    samples = scripted(tmp_path / "peer.py", resize="sampled", shift=1)
    assert harness.run(samples, course, 4).agreement == 1.0
    filters = scripted(tmp_path / "peer.py", shift=1)
    with pytest.raises(Cheated, match=r"only 0\.0%"):
        harness.run(filters, course, 4)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("complain", Failed, "^no room for the model$"),
        ("fail-silently", Failed, "^exit code 7$"),
        ("say-nothing", Failed, "^it printed no JSON"),
        ("leave-one-out", Cheated, "^3 predictions for 4 images$"),
        ("write-nothing", Cheated, "^0 predictions for 4 images$"),
    ],
)
def test_a_failure_is_told_and_leaves_nothing_for_the_next(
    fault: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        harness.run(scripted(tmp_path / "peer.py", always=fault), small_course(tmp_path), 4)
    assert left_behind(tmp_path) == ["pictures", "sets"]


def test_a_peer_gets_a_redis_fresh_files_and_nothing_of_the_callers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_MODELS", "elsewhere")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    course = small_course(tmp_path)
    stale = tmp_path / harness.BUCKET / "small-2"
    stale.mkdir(parents=True)
    (stale / "000007.jpg").write_bytes(b"of a run that was killed")
    (tmp_path / "asks.py").write_text(ASKS_AROUND)
    with pytest.raises(Failed) as told:
        harness.run(Peer("asks", str(tmp_path / "asks.py")), course, 2)
    assert str(told.value) == '[true, ["000000.jpg", "000001.jpg"], null, "2"]'
    assert os.environ["MILLRACE_MODELS"] == "elsewhere"


def test_from_an_s3_endpoint_the_endpoints_own_cpu_is_noted(tmp_path: Path) -> None:
    course = small_course(tmp_path, storage="s3")
    sample = harness.run(scripted(tmp_path / "peer.py"), course, 6, latency_ms=1)
    assert (sample.images, sample.agreement) == (6, 1.0)
    assert sample.store_cpu_s is not None
    assert sample.store_cpu_s > 0
