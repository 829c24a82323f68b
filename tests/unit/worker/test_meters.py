"""What a worker process counts, and how it hands it out."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from millrace.core import metrics as m
from millrace.core.claims import Finish
from millrace.core.job import JobState, Reason
from millrace.core.manifest import ManifestRow
from millrace.core.metrics import Buckets, Metric, Sample
from millrace.core.outcome import Tally
from millrace.core.record import TimingTotals
from millrace.core.running import Running
from millrace.worker import scrape
from millrace.worker.crew_metrics import samples_of
from millrace.worker.meters import Meters, resident_bytes
from millrace.worker.options import WorkerOptions
from millrace.worker.pipeline import Image
from millrace.worker.runner import ChunkRunner, Model
from millrace.worker.scrape import answer, ask, expose
from millrace.worker.supervisor import METRICS_SOCKET, Supervisor
from tests.unit.worker.runner_bench import IDENTITY, QUEUE, Bench, predictions_of

RUNNING = Running("openvino", "it is installed", "bfloat16", 16, 0, 0, None)


def value_of(samples: list[Sample], metric: Metric, *labels: str) -> Any:
    (found,) = [each for each in samples if each.metric is metric and each.labels == labels]
    return found.value


def count_of(samples: list[Sample], metric: Metric, *labels: str) -> int:
    value = value_of(samples, metric, *labels)
    assert isinstance(value, Buckets)
    return sum(value.counts)


def images(number: int) -> list[Image]:
    return [Image(ManifestRow(str(n)), fetch_us=2_000, decode_us=4_000) for n in range(number)]


def test_images_are_counted_by_outcome_stage_and_code() -> None:
    meters = Meters("tiny", "1")
    tally = Tally(5, 3, Counter({"decode/corrupt": 2, "fetch/not_found": 1}), [])
    timing = TimingTotals(10_000, 20_000, 30_000, 40_000, wait_fetch=500_000)
    meters.chunk(Finish.FIRST, tally, images(8), timing)
    meters.chunk(Finish.REPEAT, tally, images(8), timing)
    meters.given_back()
    samples = meters.samples()
    assert value_of(samples, m.IMAGES, "tiny", "succeeded", "", "") == 5
    assert value_of(samples, m.IMAGES, "tiny", "failed", "decode", "corrupt") == 2
    assert value_of(samples, m.IMAGES, "tiny", "failed", "fetch", "not_found") == 1
    assert value_of(samples, m.CHUNKS, "tiny", "counted") == 1
    assert value_of(samples, m.CHUNKS, "tiny", "repeat") == 1
    assert value_of(samples, m.CHUNKS, "tiny", "given_back") == 1
    assert count_of(samples, m.STAGE_SECONDS, "fetch") == 16
    assert value_of(samples, m.STAGE_SECONDS, "decode").sum == pytest.approx(0.064)
    assert value_of(samples, m.STAGE_SECONDS, "write").sum == pytest.approx(0.08)
    assert value_of(samples, m.MODEL_WAITED, "fetch") == pytest.approx(1)


def test_a_stage_an_image_did_not_reach_is_not_counted() -> None:
    meters = Meters("tiny", "1")
    gone = Image(ManifestRow("a"), fetch_us=1_000)
    meters.chunk(
        Finish.FIRST, Tally(0, 1, Counter({"fetch/not_found": 1}), []), [gone], TimingTotals()
    )
    samples = meters.samples()
    assert count_of(samples, m.STAGE_SECONDS, "fetch") == 1
    assert count_of(samples, m.STAGE_SECONDS, "decode") == 0


def test_batches_are_counted_by_size_and_fill() -> None:
    meters = Meters("tiny", "1")
    meters.loaded(RUNNING, 2.5)
    for size in (16, 16, 4):
        meters.batch(size, 0.02)
    samples = meters.samples()
    assert value_of(samples, m.BATCH_IMAGES).sum == 36
    assert value_of(samples, m.BATCH_FILL).sum == pytest.approx(2.25)
    assert count_of(samples, m.STAGE_SECONDS, "infer") == 3
    assert value_of(samples, m.LOAD_SECONDS) == 2.5
    assert value_of(samples, m.READY) == 1


def test_a_process_that_loads_says_so() -> None:
    samples = Meters("tiny", "1").samples()
    assert value_of(samples, m.READY) == 0
    assert not [each for each in samples if each.metric is m.LOAD_SECONDS]
    (info,) = [each for each in samples if each.metric is m.INFO]
    assert info.labels[:4] == ("tiny", "1", "", "")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_its_memory_is_what_the_system_says() -> None:
    import psutil

    resident = resident_bytes()
    assert resident == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.1)


def test_a_chunk_that_is_run_is_counted(bench: Bench) -> None:
    meters = Meters("mean", "1")
    model = Model(IDENTITY, (QUEUE,), predictions_of)
    bench.runner = ChunkRunner(
        bench.services, bench.claims, bench.pipeline, model, bench.in_hand, meters=meters
    )
    spec = bench.job(5)
    bench.handle(spec, 0, 1)
    samples = meters.samples()
    assert value_of(samples, m.IMAGES, "mean", "succeeded", "", "") == 5
    assert value_of(samples, m.CHUNKS, "mean", "counted") == 2
    assert count_of(samples, m.STAGE_SECONDS, "decode") == 5


def test_a_chunk_that_is_not_finished_is_given_back(bench: Bench) -> None:
    meters = Meters("mean", "1")
    model = Model(IDENTITY, (QUEUE,), predictions_of)
    bench.runner = ChunkRunner(
        bench.services, bench.claims, bench.pipeline, model, bench.in_hand, meters=meters
    )
    spec = bench.job(3)
    part = Path(spec.directory.root, "manifest", "part-00000.jsonl")
    part.rename(part.with_suffix(".away"))
    bench.handle(spec, 0)
    assert value_of(meters.samples(), m.CHUNKS, "mean", "given_back") == 1
    bench.services.jobs.stop(spec.job_id, JobState.CANCELLED, Reason.REQUESTED)


def test_a_process_answers_whoever_asks_at_its_socket(tmp_path: Path) -> None:
    path = tmp_path / "0.sock"
    assert ask(path) is None
    meters = Meters("tiny", "1")
    for _ in range(2):  # the second stands for the process that is started again
        answer(path, meters.samples)
        told = ask(path)
        assert told is not None
        assert value_of(told, m.READY) == 0
    path.unlink()
    path.write_text("no socket")
    assert ask(path) is None


def test_without_a_supervisor_it_serves_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support import capture_logs

    monkeypatch.delenv(METRICS_SOCKET, raising=False)
    with capture_logs() as logs:
        expose(Meters("tiny", "1"), WorkerOptions(model="tiny"))
        assert logs == []
        expose(Meters("tiny", "1"), WorkerOptions(model="tiny", metrics_port=0))
    url = f"http://127.0.0.1:{logs[0]['port']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as page:
        assert b'millrace_worker_ready{process="0"} 0.0' in page.read()


def test_a_scrape_that_fails_is_not_the_last_one(tmp_path: Path) -> None:
    path, meters = tmp_path / "0.sock", Meters("tiny", "1")
    odd = [ValueError("odd")]

    def samples() -> list[Sample]:
        if odd:
            raise odd.pop()
        return meters.samples()

    answer(path, samples)
    assert ask(path) is None
    assert ask(path) is not None


@pytest.mark.parametrize(
    "said", [b"", b"no JSON", b'[["of_another_version", 1, []]]', b"[1]", b"1"]
)
def test_what_is_no_sample_of_ours_is_no_answer(said: bytes, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "0.sock"))
        listening.listen()

        def run() -> None:
            with listening.accept()[0] as asker:
                asker.sendall(said)

        thread = threading.Thread(target=run)
        thread.start()
        assert ask(tmp_path / "0.sock") is None
        thread.join()


def test_a_process_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "ANSWERS_WITHIN_S", 0.05)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "0.sock"))
        listening.listen()
        assert ask(tmp_path / "0.sock") is None


def test_processes_that_do_not_answer_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "ANSWERS_WITHIN_S", 60)
    sockets = [tmp_path / f"{number}.sock" for number in range(6)]
    together = threading.Barrier(5)

    def say_nothing(listening: socket.socket) -> None:
        with listening.accept()[0]:
            together.wait(20)  # until the others are asked, too

    with ExitStack() as stack:
        for path in sockets[1:]:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(path))
            listening.listen()
            threading.Thread(target=say_nothing, args=[listening], daemon=True).start()
        answer(sockets[0], Meters("tiny", "1").samples)
        told = [*samples_of(Supervisor(6, {}, sockets), sockets)]
    assert not together.broken
    ups = [value_of(samples, m.UP) for _, samples in told]
    assert ups == [1, 0, 0, 0, 0, 0]
    assert [labels["process"] for labels, _ in told] == ["0", "1", "2", "3", "4", "5"]
