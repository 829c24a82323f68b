"""OpenVINO's engine: reads the SavedModel itself, so that the worker loads no TensorFlow.

What it cannot take (other signatures than TensorFlow's default, say) is a ModelError, and
TensorFlow's engine may still run it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from millrace.core.bundle import Bundle
from millrace.core.card import DEFAULT_SIGNATURE, Channels, tensor_name
from millrace.core.engine_errors import as_model_errors, telling_line
from millrace.core.errors import ExitCode, MissingExtra, ModelError
from millrace.core.saved_model_tags import tag_sets
from millrace.worker.exits import fail
from millrace.worker.predictor import BAKED_IN, Pixels, Predictor, Scores
from millrace.worker.tuning import PLAIN, EngineName, Precision, Tuning

_TYPES = {Precision.FLOAT32: "f32", Precision.BFLOAT16: "bf16"}


class OpenVINOModel(Predictor):
    """A compiled model with one stream, on the CPU.

    A prediction that fails ends the process, for what OpenVINO 2026.4 answers after a failure may
    belong to other images, even from the model compiled anew; the supervisor starts another.
    """

    engine = EngineName.OPENVINO
    title = "OpenVINO"

    def __init__(self, bundle: Bundle, tuning: Tuning = PLAIN) -> None:
        """Read by the card's tags and compile. Raises ModelError, MissingExtra."""
        super().__init__(bundle, tuning)
        self._ov = _load_openvino()
        self._loaded = False
        if tuning.wants_gpu:
            raise ModelError("OpenVINO is used on CPUs here", hint="--engine tensorflow for a GPU")
        if tuning.xla:
            raise ModelError("XLA is TensorFlow's", hint="--engine tensorflow, or leave out --xla")
        # OpenVINO gives the thread that compiles a stack for signal handlers, and takes its memory
        # back with the model: where signals are handled the next one would end the process.
        refusal = as_model_errors(
            f"OpenVINO cannot use {bundle.path}", hint="--engine tensorflow takes every SavedModel"
        )
        with refusal, ThreadPoolExecutor(1, "openvino") as aside:
            aside.submit(self._load).result()
        self._loaded = True

    def _load(self) -> None:
        model = self._read()
        if self.batch_limit is None and (why := self._against_two(model)):
            self._fix_batch(1, why)
        self._request = self._compile(self._normalised(model))
        self._try_out()

    def _run(self, pixels: Pixels) -> Scores:
        try:
            self._request.infer([pixels])
        except RuntimeError as error:
            if not self._loaded:
                raise  # and so refuse the model, for this process cannot try it another way
            failure = ModelError(f"{self.bundle.card.name}: {telling_line(error)}")
            failure.exit_code = ExitCode.INTERNAL  # another process may fare better
            fail(failure)
        # The request's own answer is overwritten by the next one.
        return np.array(self._request.get_output_tensor().data, np.float32)

    def _read(self) -> Any:
        """The card's graph with one input and one output."""
        card = self.bundle.card
        from openvino.frontend import FrontEndManager

        if frozenset(card.tags) not in tag_sets(self.bundle.path):
            # OpenVINO would take the only graph there is.
            raise ModelError(
                f"{self.bundle.path} has no graph with the tags {','.join(card.tags)!r}"
            )
        frontend = FrontEndManager().load_by_framework("tf")
        read = frontend.load([str(self.bundle.path), ",".join(card.tags)])
        if card.signature is None:
            read.override_all_inputs([self._place(read, card.input_op or "")])
            read.override_all_outputs([self._place(read, card.output_op or "")])
        elif card.signature != DEFAULT_SIGNATURE:
            raise ModelError(f"OpenVINO reads {DEFAULT_SIGNATURE}, not {card.signature!r}")
        model = frontend.convert(read)
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ModelError(f"{len(model.inputs)} inputs and {len(model.outputs)} outputs")
        if card.input_op and tensor_name(card.input_op) not in model.inputs[0].names:
            # Or it does, under the name that a signature gives it; TensorFlow can tell.
            raise ModelError(f"the output does not depend on {card.input_op!r}")
        self._check_input(model.inputs[0])
        return model

    def _place(self, read: Any, operation: str) -> Any:
        place = read.get_place_by_tensor_name(tensor_name(operation))
        if place is None:
            raise ModelError(f"{self.bundle.path} has no operation {operation!r}")
        return place

    def _check_input(self, source: Any) -> None:
        """Refuse an input the card contradicts; note the batch size, if it is fixed."""
        shape, have = source.partial_shape, source.element_type
        wanted = self._ov.PartialShape([-1, *self.input_shape])
        if not shape.compatible(wanted):
            raise ModelError(
                f"{self.bundle.card.name}: the input is {shape}, the card says {wanted}"
            )
        if have not in (self._ov.Type.f32, self._ov.Type.u8):
            raise ModelError(f"{self.bundle.card.name}: input of {have}")
        if shape.rank.is_static and shape[0].is_static:
            self._fix_batch(shape[0].get_length(), BAKED_IN)

    def _against_two(self, model: Any) -> str | None:
        """Why a batch cannot hold two images, if the shapes tell: they must, for after a
        prediction that failed this process could answer no more."""
        trial = model.clone()
        try:
            trial.reshape([2, *self.input_shape])
        except RuntimeError as error:
            trial.reshape([1, *self.input_shape])  # raises if it is not for the two
            return telling_line(error)
        return None

    def _normalised(self, model: Any) -> Any:
        """The model behind a uint8 input and the card's normalisation."""
        from openvino.preprocess import PrePostProcessor

        ov, card = self._ov, self.bundle.card
        batch = -1 if self.batch_limit is None else self.batch_limit
        model.reshape([batch, *self.input_shape])
        takes_bytes = model.inputs[0].element_type == ov.Type.u8
        wrapped = PrePostProcessor(model)
        pixels = wrapped.input()
        pixels.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
        pixels.model().set_layout(ov.Layout("NHWC"))
        steps = pixels.preprocess()
        if card.channels is Channels.BGR:
            steps.reverse_channels()
        if not takes_bytes:
            mean, scale = card.normalisation.mean_and_scale()
            steps.convert_element_type(ov.Type.f32).mean(_each(mean, card.channels))
            steps.scale(_each(scale, card.channels))
        wrapped.output().tensor().set_element_type(ov.Type.f32)
        model = wrapped.build()
        if card.scores == "logits":
            (result,) = model.get_results()
            scores = ov.opset13.softmax(result.input_value(0), -1)
            model = ov.Model([scores], model.get_parameters(), card.name)
        self.output_shape = tuple(
            side.get_length() if side.is_static else None
            for side in list(model.outputs[0].partial_shape)[1:]
        )
        return model

    def _compile(self, model: Any) -> Any:
        """A request of the compiled model."""
        threads = self.tuning.threads
        options = {
            "INFERENCE_PRECISION_HINT": _TYPES[self.tuning.precision],
            "NUM_STREAMS": 1,
            # Several processes would all pin their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        return self._ov.Core().compile_model(model, "CPU", options).create_infer_request()


def _load_openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtra("OpenVINO", "openvino") from error
    except Exception as error:  # a broken installation raises nearly anything
        raise ModelError(f"OpenVINO does not load: {error}") from error
    return openvino


def _each(numbers: tuple[float, ...], channels: Channels) -> list[float]:
    return list(numbers) * (channels.depth // len(numbers))
