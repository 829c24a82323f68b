"""A Keras model → a bundle in a repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from millrace.core.card import DEFAULT_SIGNATURE, Normalisation
from millrace.core.engine_errors import as_model_errors
from millrace.core.errors import ModelError, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.core.settings import Settings
from millrace.core.storage import Location
from millrace.export.bundle import Destination, export_source
from millrace.export.check import refuse_disagreement
from millrace.export.facts import Facts
from millrace.export.flat_graph import flatten
from millrace.export.predict import Check, keras_raw
from millrace.export.source import Source, Written, write_saved_model

INPUT_OP = "input_1"
"""What Keras called a model's first placeholder for years, and Go programs ask for."""


def export_keras(
    model: Any,
    *,
    name: str,
    version: str | None = None,
    repository: str,
    labels: Sequence[str] = (),
    scale: str = "none",
    channels: str = "RGB",
    top_k: int = 5,
    tag: str = "serve",
    input_name: str | None = None,
    inference_name: str | None = None,
    settings: Settings | None = None,
    force: bool = False,
    check: Check | None = refuse_disagreement,
    **facts: Any,
) -> Location:
    """Write `<repository>/<name>/<version>/`; returns where it lies.

    `model` takes images [n, height, width, channels], float32 or uint8, and answers
    probabilities [n, classes]. `scale` is how pixels become its input: `tf`, `caffe`, `torch`,
    `none` or `MEAN,SCALE`. `tag` may be several, comma-separated. The operations `input_name`
    (`input_1`) and `inference_name` (after the last layer, `predictions/Softmax`) are in the
    graph under exactly these names. Without a version it is the next one; a version that stands
    is never overwritten (Conflict) but with `force`. `check` sees the bundle before it is
    published: by default TensorFlow has to answer from it what `model` does (ModelError if not).
    `facts` are others of `Facts`. Raises UsageError, ModelError and the store's errors.
    """
    said = Facts(
        name=name,
        version=version,
        labels=tuple(labels) or None,
        scale=Normalisation.parse(scale),
        channels=channels,
        top_k=top_k,
        tags=tuple(tag.split(",")),
        input_op=input_name,
        output_op=inference_name,
        **facts,
    )
    destination = Destination(repository, force=force, settings=settings, check=check)
    return export_source(KerasSource(model), said, destination).location


class KerasSource(Source):
    """A `keras.Model`, and what its architecture says of it."""

    packages = ("keras", "tensorflow")

    def __init__(self, model: Any, facts: Facts | None = None) -> None:
        self.facts = facts or Facts()
        self._model = model

    def write(self, path: Path, facts: Facts) -> Written:
        if facts.signature is not None:
            raise UsageError("--signature is for a SavedModel; a Keras model gets its own")
        if any(":" in (name or "") for name in (facts.input_op, facts.output_op)):
            raise UsageError("an operation that is written has no ':' in its name")
        height, width, depth = self._input_shape(facts)
        facts.order(depth)
        self._check_output()
        flat = flatten(
            self._model,
            (height, width, depth),
            source=facts.input_op or INPUT_OP,
            target=facts.output_op,
        )
        tags = facts.tags or ("serve",)
        tf = load_tensorflow()
        graph = tf.Graph()
        with as_model_errors(f"{self._model.name} cannot be written"), graph.as_default():
            tf.graph_util.import_graph_def(flat.graph_def, name="")
            source, target = (
                graph.get_tensor_by_name(f"{name}:0") for name in (flat.source, flat.target)
            )
            with tf.compat.v1.Session(graph=graph) as session:
                write_saved_model(tf, session, path, tags, source, target)
        return Written(
            tags=tags,
            signature=DEFAULT_SIGNATURE,
            input_op=flat.source,
            output_op=flat.target,
            shape=(height, width, depth),
            takes_bytes=source.dtype == tf.uint8,
            output_type=flat.target_type,
            raw=keras_raw(self._model),
        )

    def _input_shape(self, facts: Facts) -> tuple[int, int, int]:
        """Height, width and channels: the model's own, or those said where it leaves them free."""
        shape = _shape_of(self._model, "input_shape")
        if not (isinstance(shape, tuple) and len(shape) == 4 and shape[3]):
            raise ModelError(f"expected one input of [n, height, width, channels], not {shape}")
        dtype = str(self._model.inputs[0].dtype)
        if dtype not in ("float32", "uint8"):
            raise ModelError(f"the model takes {dtype}", hint="millrace feeds float32 or uint8")
        height, width = shape[1] or facts.height, shape[2] or facts.width
        if not (height and width):
            raise ModelError(
                f"expected one input of [n, height, width, channels], not {shape}",
                hint="a model of any size is exported for one: --size 224",
            )
        return height, width, shape[3]

    def _check_output(self) -> None:
        shape = _shape_of(self._model, "output_shape")
        if not (isinstance(shape, tuple) and len(shape) > 1 and not isinstance(shape[0], tuple)):
            raise ModelError(f"expected one output of [n, classes], not {shape}")


def _shape_of(model: Any, attribute: str) -> Any:
    """The model's `input_shape` or `output_shape`. Raises ModelError if it has none yet."""
    try:
        return getattr(model, attribute)
    except (AttributeError, ValueError) as error:
        raise ModelError(
            f"{getattr(model, 'name', 'the model')} has no {attribute}",
            hint="call it once on an image of its size, or give it a keras.Input",
        ) from error
