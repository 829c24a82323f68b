"""The loaded model and what feeds it: all of a worker that needs no queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from millrace.core.bundle import Bundle
from millrace.core.running import Running, one_line
from millrace.worker.agreement import Agreement, Compared, Crew
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
    """Loaded and warmed when it is made; takes images until it is closed."""

    def __init__(
        self,
        bundle: Bundle,
        options: WorkerOptions,
        crew: Crew,
        told: Callable[[], None] = lambda: None,
        predicted: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        """`told` is called when `running` has changed, `predicted` with each batch's images and
        seconds. Raises ModelError, MissingExtra."""
        self.predictor = load_predictor(bundle, options.tuning)
        self.head: Head = make_head(bundle, self.predictor.output_shape)
        self.batch_size = warm_up(self.predictor, options.batch_size)
        self._agreement = self._compared(options, crew, told)
        self.batcher = MicroBatcher(
            (self._agreement or self.predictor).predict,
            BatchLimits(self.batch_size, options.max_delay_ms / 1000),
            out_of_memory=OutOfMemoryError,
            predicted=predicted,
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

    @property
    def running(self) -> Running:
        """How the model runs, as far as is known by now."""
        compared = self._agreement.compared if self._agreement is not None else Compared()
        return Running(
            engine=str(self.predictor.engine),
            why=one_line(self.predictor.why),
            precision=str(self.predictor.tuning.precision),
            batch_size=self.batch_size,
            to_compare=compared.sample,
            compared=compared.images,
            top_1_agreement=compared.share,
        )

    def _compared(
        self, options: WorkerOptions, crew: Crew, told: Callable[[], None]
    ) -> Agreement | None:
        if options.precision is Precision.FLOAT32:
            return None
        exact = replace(options.tuning, engine=self.predictor.engine, precision=Precision.FLOAT32)
        reference = load_predictor(self.predictor.bundle, exact)
        agreement = Agreement(self.predictor, reference, crew.sample, told)
        agreement.warm_up(self.batch_size)
        return agreement

    def close(self) -> None:
        """End the pipeline that feeds the batcher, then the batcher. Nothing may be running."""
        self.pipeline.close()
        self.batcher.stop()
        if self._agreement is not None:
            self._agreement.close()
