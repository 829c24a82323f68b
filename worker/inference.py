"""The loaded model and what feeds it: all of a worker that needs no queue."""

from __future__ import annotations

from dataclasses import replace

from millrace.core.bundle import Bundle
from millrace.worker.agreement import Agreement
from millrace.worker.batch_size import warm_up
from millrace.worker.batcher import BatchLimits, MicroBatcher
from millrace.worker.engines import load_predictor
from millrace.worker.heads import Head, make_head
from millrace.worker.images import ImageDecoder
from millrace.worker.options import WorkerOptions
from millrace.worker.pipeline import Pipeline, Threads
from millrace.worker.predictor import OutOfMemoryError
from millrace.worker.tuning import Precision


class Inference:
    """Loaded and warmed when it is made; takes images until it is closed.

    Raises ModelError, MissingExtra.
    """

    def __init__(self, bundle: Bundle, options: WorkerOptions) -> None:
        self.predictor = load_predictor(bundle, options.tuning)
        self.head: Head = make_head(bundle, self.predictor.output_shape)
        self.batch_size = warm_up(self.predictor, options.batch_size)
        self._agreement = self._compared(options)
        self.batcher = MicroBatcher(
            (self._agreement or self.predictor).predict,
            BatchLimits(self.batch_size, options.max_delay_ms / 1000),
            out_of_memory=OutOfMemoryError,
        )
        decoder = ImageDecoder(
            bundle.card, max_pixels=options.max_pixels, exact=options.exact_decode
        )
        in_flight = 4 * self.batch_size + options.fetch_threads
        self.pipeline = Pipeline(
            decoder.decode,
            self.batcher,
            Threads(options.fetch_threads, options.decode_threads, in_flight),
        )
        self.batcher.start()

    def _compared(self, options: WorkerOptions) -> Agreement | None:
        if options.precision is Precision.FLOAT32:
            return None
        exact = replace(options.tuning, engine=self.predictor.engine, precision=Precision.FLOAT32)
        reference = load_predictor(self.predictor.bundle, exact)
        return Agreement(self.predictor, reference)

    def close(self) -> None:
        """End the pipeline that feeds the batcher, then the batcher. Nothing may be running."""
        self.pipeline.close()
        self.batcher.stop()
        if self._agreement is not None:
            self._agreement.close()
