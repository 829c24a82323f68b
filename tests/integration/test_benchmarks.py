"""The benchmarks of the books run, and what they say does not depend on this machine's speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bookkeeping, enqueue

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
