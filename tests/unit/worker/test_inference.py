"""What a worker is made of: its options reach the stages they are for, and nothing outlives it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from millrace.core.bundle import Bundle
from millrace.core.errors import ModelError
from millrace.core.manifest import ManifestRow
from millrace.core.running import Running
from millrace.worker import pipeline
from millrace.worker.agreement import SAMPLE, Crew
from millrace.worker.batch_size import LARGEST
from millrace.worker.inference import Inference
from millrace.worker.options import WorkerOptions
from millrace.worker.predictor import Pixels, Scores
from tests.support import capture_logs, random_pixels, wait_until
from tests.unit.worker.pictures import encoded
from tests.unit.worker.saved_models import SIDE, Workshop

pytestmark = pytest.mark.usefixtures("no_environment", "pillows_own_limit")

WITHIN_S = 20
NEVER_MS = 60_000
"""A delay that outlasts the test: batches are full, or what is left."""

Run = Callable[[Pixels], Scores]


@contextmanager
def running(bundle: Bundle, crew: int = 1, **options: Any) -> Iterator[Inference]:
    wanted = WorkerOptions.load(model=bundle.card.name, **options)
    inference = Inference(bundle, wanted, Crew(crew=crew))
    try:
        yield inference
    finally:
        inference.close()


@contextmanager
def at_the_model(inference: Inference, look: Callable[[Pixels], object]) -> Iterator[None]:
    """`look` is shown every batch before the model is."""
    run = inference.predictor._run

    def looking(pixels: Pixels) -> Scores:
        look(pixels)
        return run(pixels)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference.predictor, "_run", looking)
        yield


def rows(count: int) -> list[ManifestRow]:
    return [ManifestRow(str(n)) for n in range(count)]


def pixels_of(row: ManifestRow) -> Pixels:
    return random_pixels(int(row.key), (SIDE, SIDE, 3))


def fetch(row: ManifestRow) -> bytes:
    """A picture of its own for every row, as large as the model's input."""
    return encoded(Image.fromarray(pixels_of(row)), "PNG")


def scores_of(images: list[pipeline.Image]) -> Scores:
    """[n, classes]; no image may have failed."""
    assert [image.error for image in images] == [None] * len(images)
    return np.stack([image.scores for image in images if image.scores is not None])


def test_each_image_is_answered_as_the_model_alone_would(made: Workshop) -> None:
    model = made("of_bytes")
    labels = tuple("abcde")
    with running(replace(model.bundle(), labels=labels), batch_size=4) as inference:
        scores = scores_of(inference.pipeline.run(rows(10), fetch))
    expected = model.direct(np.stack([pixels_of(row) for row in rows(10)]))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    for row, best in zip(scores, expected.argmax(axis=1), strict=True):
        assert inference.head(row, 1)[0]["label"] == labels[best]


def test_labels_that_do_not_fit_the_model_are_refused(made: Workshop) -> None:
    before = set(threading.enumerate())
    bundle = replace(made("of_bytes").bundle(), labels=("a", "b"))
    with pytest.raises(ModelError, match="2 labels"):
        Inference(bundle, WorkerOptions.load(model="made", batch_size=1), Crew())
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("asked", [3, None], ids=["given", "auto"])
def test_batches_have_the_size_that_was_given_or_found(asked: int | None, made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    sizes: list[int] = []
    with running(bundle, batch_size=asked, max_delay_ms=NEVER_MS) as inference:
        size = inference.batch_size
        with at_the_model(inference, lambda pixels: sizes.append(len(pixels))):
            scores_of(inference.pipeline.run(rows(3 * size), fetch))
    assert size == asked or (asked is None and 1 <= size <= LARGEST)
    assert sizes == [size] * 3


def test_a_batch_waits_no_longer_than_the_delay(made: Workshop) -> None:
    predicted = threading.Event()

    def second_comes_late(row: ManifestRow) -> bytes:
        assert row.key == "0" or predicted.wait(WITHIN_S)
        return fetch(row)

    with (
        running(made("scaled_by_tf").bundle(), batch_size=2) as inference,
        at_the_model(inference, lambda pixels: predicted.set()),
    ):
        scores_of(inference.pipeline.run(rows(2), second_comes_late))


def test_what_does_not_fit_in_memory_makes_batches_smaller(made: Workshop) -> None:
    bundle = made("of_great_appetite").bundle()
    with running(bundle, batch_size=4) as inference, capture_logs() as logs:
        scores_of(inference.pipeline.run(rows(4), fetch))
    assert [(entry["event"], entry["batch_size"]) for entry in logs] == [
        ("out of memory; smaller batches", 2)
    ]


def large_jpeg() -> bytes:
    noise = Image.fromarray(random_pixels(1, (480, 640, 3)))
    return encoded(noise, "JPEG", quality=90)


@pytest.mark.parametrize("exact", [True, False])
def test_exact_decoding_is_for_whoever_asks_for_it(exact: bool, made: Workshop) -> None:
    data = large_jpeg()
    seen: list[Pixels] = []
    with (
        running(made("of_bytes").bundle(), batch_size=1, exact_decode=exact) as inference,
        at_the_model(inference, lambda pixels: seen.append(pixels.copy())),
    ):
        scores_of(inference.pipeline.run(rows(1), lambda row: data))
    whole = Image.open(io.BytesIO(data)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    assert np.array_equal(seen[0][0], np.asarray(whole)) is exact


def test_pictures_over_the_limit_are_refused(made: Workshop) -> None:
    with running(made("of_bytes").bundle(), batch_size=1, max_pixels=640 * 480 - 1) as inference:
        (image,) = inference.pipeline.run(rows(1), lambda row: large_jpeg())
    assert image.error is not None
    assert image.error.code == "decompression_bomb"


def loaded(logs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each time a model was: the engine, as the log says it, and the precision."""
    return [
        (entry["event"], entry["precision"])
        for entry in logs
        if entry["event"].startswith("the engine is")
    ]


def compared(logs: list[dict[str, Any]]) -> list[int]:
    """How many images each comparison was of."""
    return [entry["images"] for entry in logs if "top_1_agreement" in entry]


@pytest.mark.parametrize(
    ("images", "at_once", "in_the_end"), [(SAMPLE + 3, [SAMPLE], [SAMPLE]), (3, [], [3])]
)
def test_low_precision_is_compared_with_float32_in_the_same_engine(
    images: int, at_once: list[int], in_the_end: list[int], made: Workshop
) -> None:
    bundle = made("scaled_by_tf").bundle()
    with capture_logs() as logs:
        with running(
            bundle, precision="bfloat16", batch_size=SAMPLE // 4, max_delay_ms=NEVER_MS
        ) as inference:
            assert compared(logs) == []  # the warm-up's pixels are no images
            scores_of(inference.pipeline.run(rows(images), fetch))
            assert compared(logs) == at_once
        assert compared(logs) == in_the_end
    (low, _), (exact, _) = loaded(logs)
    assert low == exact
    assert [precision for _, precision in loaded(logs)] == ["bfloat16", "float32"]


def test_it_tells_how_the_model_runs(made: Workshop) -> None:
    with running(
        made("scaled_by_tf").bundle(),
        crew=4,
        engine="tensorflow",
        precision="bfloat16",
        batch_size=4,
        max_delay_ms=NEVER_MS,
    ) as inference:
        loaded = Running("tensorflow", "it was asked for", "bfloat16", 4, SAMPLE // 4)
        assert inference.running == loaded
        scores_of(inference.pipeline.run(rows(4), fetch))
        some = inference.running
        assert (some.to_compare, some.compared) == (SAMPLE // 4, 4)
        assert some.top_1_agreement is not None
        scores_of(inference.pipeline.run(rows(SAMPLE), fetch))
        assert inference.running.compared == SAMPLE // 4


def test_the_reason_for_an_engine_is_told_as_one_line(made: Workshop) -> None:
    with running(made("scaled_by_tf").bundle(), batch_size=4) as inference:
        inference.predictor.why = "no\n\x1b[31mroom " + "x" * 1000
        told = inference.running
    assert told.why.startswith("no [31mroom xxx")
    assert Running.from_json(told.to_json().decode()) == told


def test_float32_is_compared_with_nothing(made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    with capture_logs() as logs, running(bundle, batch_size=4) as inference:
        scores_of(inference.pipeline.run(rows(3), fetch))
    assert [precision for _, precision in loaded(logs)] == ["float32"]
    assert (inference.running.to_compare, inference.running.top_1_agreement) == (0, None)
    assert compared(logs) == []


def test_no_more_images_are_in_flight_than_is_documented(made: Workshop) -> None:
    size, fetchers, chunks = 2, 3, 2
    bound = 4 * size + fetchers
    gate = threading.Event()
    fetched: list[str] = []

    def noting(row: ManifestRow) -> bytes:
        fetched.append(row.key)
        return fetch(row)

    with (
        running(
            made("scaled_by_tf").bundle(), batch_size=size, fetch_threads=fetchers, decode_threads=2
        ) as inference,
        at_the_model(inference, lambda pixels: gate.wait(WITHIN_S)),
        ThreadPoolExecutor(chunks) as slots,
    ):
        handled = [slots.submit(inference.pipeline.run, rows(bound), noting) for _ in range(chunks)]
        try:
            wait_until(lambda: len(fetched) == bound, WITHIN_S)
            wait(handled, 0.1)  # time enough to fetch another, if it did
            assert len(fetched) == bound
        finally:
            gate.set()
        for chunk in handled:
            scores_of(chunk.result(WITHIN_S))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_closing_ends_its_threads(precision: str, made: Workshop) -> None:
    bundle = made("scaled_by_tf").bundle()
    before = set(threading.enumerate())
    with running(bundle, batch_size=2, precision=precision) as inference:
        scores_of(inference.pipeline.run(rows(5), fetch))
        stages = {thread.name.partition("_")[0] for thread in set(threading.enumerate()) - before}
        assert stages == {"fetch", "decode", "batcher"}
    assert set(threading.enumerate()) <= before
