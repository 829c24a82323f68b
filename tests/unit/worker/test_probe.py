"""What the probe measures; as a process it is tested in `tests/integration`."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence

import pytest
from PIL import Image

from millrace.core.manifest import ManifestRow
from millrace.worker import pipeline
from millrace.worker.agreement import Crew
from millrace.worker.inference import Inference
from millrace.worker.options import WorkerOptions
from millrace.worker.pipeline import Fetch
from millrace.worker.probe import PICTURE, measure, picture
from tests.unit.worker.saved_models import Workshop

WITHIN_S = 20
SECONDS = 2
SLOTS = 3


def test_the_picture_is_a_jpeg_of_its_size() -> None:
    with Image.open(io.BytesIO(picture())) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", PICTURE)


@pytest.mark.usefixtures("no_environment")
def test_the_rate_is_of_images_predicted_in_all_slots_at_once(
    made: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = made("of_bytes").bundle()
    inference = Inference(bundle, WorkerOptions.load(model="made", batch_size=8), Crew())
    run = inference.pipeline.run
    begun = threading.local()
    together = threading.Barrier(SLOTS)
    chunks: list[list[pipeline.Image]] = []

    def noting(rows: Sequence[ManifestRow], fetch: Fetch) -> list[pipeline.Image]:
        if not hasattr(begun, "once"):
            begun.once = True
            together.wait(WITHIN_S)  # broken, if the slots took turns
        images = run(rows, fetch)
        chunks.append(images)
        return images

    monkeypatch.setattr(inference.pipeline, "run", noting)
    started = time.monotonic()
    rate = measure(inference, SLOTS, SECONDS)
    took = time.monotonic() - started
    inference.close()
    images = [image for chunk in chunks for image in chunk]
    assert all(image.scores is not None for image in images)
    assert len(chunks) >= SLOTS
    assert len(images) / took <= rate <= len(images) / SECONDS
