"""The loaded model: a frozen graph behind one callable; the only TensorFlow in `worker/`.

Variables are frozen to constants so that TensorFlow's graph optimiser can fold and fuse;
pixels are fed as uint8 and normalised inside the graph.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millrace.core.bundle import Bundle
from millrace.core.card import Channels, tensor_name
from millrace.core.engine_errors import as_model_errors, telling_line
from millrace.core.errors import ModelError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.log import get_logger
from millrace.core.near import near
from millrace.worker.predictor import (
    BAKED_IN,
    OutOfMemoryError,
    Pixels,
    Predictor,
    Scores,
)
from millrace.worker.tuning import GPU_HINT, PLAIN, EngineName, Precision, Tuning, gpus

log = get_logger(__name__)

_Call = Callable[[Pixels], Scores]
_Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A SavedModel in its session; the names of its input and output tensors."""

    graph: Any
    session: Any
    source: str
    target: str
    batch: int | None
    """The batch size, if the model fixes it."""


class Session(Predictor):
    """TensorFlow's engine."""

    engine = EngineName.TENSORFLOW
    title = "TensorFlow"

    def __init__(self, bundle: Bundle, tuning: Tuning = PLAIN) -> None:
        """Load by the card's tags and freeze. Raises ModelError, MissingExtra.

        A model that does not run frozen (lookup tables, say) runs as it is, slower, and the
        log says so.
        """
        super().__init__(bundle, tuning)
        self.unfrozen: str | None = None
        """Why it runs as it is, if it does not run frozen."""
        if tuning.xla:
            flags = (os.environ.get("TF_XLA_FLAGS", ""), "--tf_xla_cpu_global_jit")
            os.environ["TF_XLA_FLAGS"] = " ".join(flags).strip()  # read once, by the import
        self._tf = load_tensorflow()
        _check_device(tuning)
        self._config = session_config(self._tf, tuning)
        with as_model_errors(f"{bundle.path} cannot be used"):
            loaded = self._load()
            if loaded.batch is not None:
                self._fix_batch(loaded.batch, BAKED_IN)
            try:
                self._call, self.output_shape = self._frozen(loaded)
                self._try_out()
                loaded.session.close()
            except ModelError as error:
                self._call, self.output_shape = self._as_it_is(loaded)
                self._try_out()
                self.unfrozen = error.message
                log.warning("the model runs unfrozen, which is slower", why=error.message)

    def _run(self, pixels: Pixels) -> Scores:
        try:
            scores: Scores = self._call(pixels)
        except self._tf.errors.ResourceExhaustedError as error:
            raise OutOfMemoryError(str(error)) from error
        except self._tf.errors.OpError as error:
            raise ModelError(f"{self.bundle.card.name}: {telling_line(error)}") from error
        return scores

    def _load(self) -> _Loaded:
        """The SavedModel in a TF1 session, which takes models written by TF1 and TF2 alike."""
        tf1, card, path = self._tf.compat.v1, self.bundle.card, self.bundle.path
        graph = self._tf.Graph()
        session = tf1.Session(graph=graph, config=self._config)
        with graph.as_default():
            try:
                meta = tf1.saved_model.load(session, list(card.tags), str(path))
            except Exception as error:
                raise self._load_error(error) from error
        source, target = self._tensors(graph, meta)
        batch = self._check_input(graph.get_tensor_by_name(source))
        return _Loaded(graph, session, source, target, batch)

    def _tensors(self, graph: Any, meta: Any) -> tuple[str, str]:
        """Names of the input and output tensors: by signature or by operation."""
        card = self.bundle.card
        if card.signature is None:
            source = self._tensor_of(graph, card.input_op or "")
            return source, self._tensor_of(graph, card.output_op or "")
        signature = meta.signature_def.get(card.signature)
        if signature is None:
            names = sorted(name for name in meta.signature_def if not name.startswith("__"))
            held = ", ".join(names) or "none; name the operations instead"
            raise ModelError(
                f"{self.bundle.path} has no signature {card.signature!r}", hint=f"it has {held}"
            )
        if len(signature.inputs) != 1 or len(signature.outputs) != 1:
            raise ModelError(
                f"signature {card.signature!r} has {len(signature.inputs)} inputs and "
                f"{len(signature.outputs)} outputs",
                hint="name one of each with --input-op and --output-op",
            )
        (given,), (answered,) = signature.inputs.values(), signature.outputs.values()
        return given.name, answered.name

    def _tensor_of(self, graph: Any, operation: str) -> str:
        name = tensor_name(operation)
        try:
            graph.get_tensor_by_name(name)
        except (KeyError, ValueError):
            close = near(operation.partition(":")[0], [op.name for op in graph.get_operations()])
            raise ModelError(
                f"{self.bundle.path} has no operation {operation!r}",
                hint=f"perhaps {' or '.join(close)}" if close else None,
            ) from None
        return name

    def _check_input(self, tensor: Any) -> int | None:
        """Refuse an input the card contradicts; returns the fixed batch size, if it is."""
        height, width, channels = self.input_shape
        dims = tensor.shape.as_list() if tensor.shape.rank is not None else None
        if dims is not None and (
            len(dims) != 4
            or any(
                have not in (None, want)
                for have, want in zip(dims[1:], self.input_shape, strict=True)
            )
        ):
            raise ModelError(
                f"{self.bundle.card.name}: the input is {dims}, "
                f"the card says [n, {height}, {width}, {channels}]"
            )
        if tensor.dtype not in (self._tf.float32, self._tf.uint8):
            raise ModelError(f"{self.bundle.card.name}: input of {tensor.dtype.name}")
        return dims[0] if dims else None

    def _frozen(self, loaded: _Loaded) -> tuple[_Call, _Shape]:
        """The model with its variables as constants, behind a uint8 input."""
        from tensorflow.python.framework import convert_to_constants

        with as_model_errors(f"{self.bundle.path} cannot be frozen"):
            graph_def = convert_to_constants.convert_variables_to_constants_from_session_graph(
                loaded.session,
                loaded.graph.as_graph_def(add_shapes=True),
                [loaded.target.partition(":")[0]],
            )
        if loaded.source.partition(":")[0] not in {node.name for node in graph_def.node}:
            raise ModelError(
                f"{self.bundle.card.name}: the output does not depend on {loaded.source!r}"
            )
        tf1 = self._tf.compat.v1
        dtype = loaded.graph.get_tensor_by_name(loaded.source).dtype
        graph = self._tf.Graph()
        with graph.as_default(), as_model_errors(f"{self.bundle.path} cannot be frozen"):
            pixels = self._pixels()
            (output,) = tf1.import_graph_def(
                graph_def,
                {loaded.source: self._normalised(pixels, dtype)},
                [loaded.target],
                name="model",
            )
            scores = self._scores(output)
        session = tf1.Session(graph=graph, config=self._config)
        return session.make_callable(scores, [pixels]), tuple(scores.shape.as_list()[1:])

    def _as_it_is(self, loaded: _Loaded) -> tuple[_Call, _Shape]:
        """The model in the session it was loaded into: normalised first, then fed."""
        source = loaded.graph.get_tensor_by_name(loaded.source)
        with loaded.graph.as_default():
            pixels = self._pixels()
            normalised = self._normalised(pixels, source.dtype)
            scores = self._scores(loaded.graph.get_tensor_by_name(loaded.target))
        normalise = loaded.session.make_callable(normalised, [pixels])
        predict = loaded.session.make_callable(scores, [source])
        return lambda batch: predict(normalise(batch)), tuple(scores.shape.as_list()[1:])

    def _pixels(self) -> Any:
        shape = [self.batch_limit, *self.input_shape]
        return self._tf.compat.v1.placeholder(self._tf.uint8, shape, "pixels")

    def _normalised(self, pixels: Any, dtype: Any) -> Any:
        """The card's normalisation as part of the graph; a uint8 input takes pixels as they are."""
        tf, card = self._tf, self.bundle.card
        if card.channels is Channels.BGR:
            pixels = tf.reverse(pixels, [-1])
        if dtype == tf.uint8:
            return pixels
        mean, scale = card.normalisation.mean_and_scale()
        return (tf.cast(pixels, tf.float32) - tf.constant(mean)) / tf.constant(scale)

    def _scores(self, output: Any) -> Any:
        scores = self._tf.cast(output, self._tf.float32)
        return self._tf.nn.softmax(scores) if self.bundle.card.scores == "logits" else scores

    def _load_error(self, error: Exception) -> ModelError:
        text = telling_line(error)
        if "could not be found in SavedModel" in text or "MetaGraphDef" in text:
            return ModelError(
                f"{self.bundle.path} has no graph with the tags "
                f"{','.join(self.bundle.card.tags)!r}",
                hint=f"it has {self._available_tags()}",
            )
        return ModelError(f"{self.bundle.path} does not load: {text}")

    def _available_tags(self) -> str:
        from tensorflow.python.tools import saved_model_utils

        sets = saved_model_utils.get_saved_model_tag_sets(str(self.bundle.path))
        return " or ".join(repr(",".join(tags)) for tags in sets)


def usable_gpus() -> int:
    """How many GPUs TensorFlow itself sees. Raises MissingExtra, ModelError."""
    return len(load_tensorflow().config.list_physical_devices("GPU"))


def _check_device(tuning: Tuning) -> None:
    """Refuse a GPU that TensorFlow does not see, and what a GPU would pass over in silence."""
    count = usable_gpus() if tuning.wants_gpu or (tuning.device != "cpu" and gpus()) else 0
    if count == 0 and not tuning.wants_gpu:
        return
    if int(tuning.gpu_number or 0) >= count:
        raise ModelError(
            f"there is no device {tuning.device}: TensorFlow sees {count or 'no'} "
            f"GPU{'' if count == 1 else 's'}",
            hint=f"--device cpu; {GPU_HINT}",
        )
    if tuning.precision is Precision.BFLOAT16:
        # TensorFlow's rewriter for bfloat16 is oneDNN's; the one for GPUs knows float16 alone.
        raise ModelError(
            "bfloat16 is for CPUs here, and the model runs on a GPU",
            hint="--precision float32, or --device cpu",
        )


def session_config(tf: Any, tuning: Tuning) -> Any:
    """A `ConfigProto` for the tuning."""
    tf1 = tf.compat.v1
    config = tf1.ConfigProto(
        intra_op_parallelism_threads=tuning.threads,
        inter_op_parallelism_threads=1 if tuning.threads else 0,
        gpu_options=tf1.GPUOptions(
            allow_growth=tuning.gpu_memory is None,
            per_process_gpu_memory_fraction=tuning.gpu_memory,
            visible_device_list=tuning.gpu_number,
        ),
    )
    if tuning.device == "cpu":
        config.device_count["GPU"] = 0
    if tuning.xla:
        config.graph_options.optimizer_options.global_jit_level = tf1.OptimizerOptions.ON_1
    if tuning.precision is Precision.BFLOAT16:
        rewrites = config.graph_options.rewrite_options
        rewrites.auto_mixed_precision_onednn_bfloat16 = type(rewrites).ON
    return config
