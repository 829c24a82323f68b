"""SavedModels in the forms people bring them: small, real, and made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.core.bundle import Bundle
from millrace.core.card import Card
from millrace.core.load_tensorflow import load_tensorflow

SIDE, CLASSES = 8, 5

ALONE = ("of_a_hidden_one", "answering_one_row", "mixing_images")
"""What every engine finds out to take one image at a time."""

FORMS = (
    "scaled_by_tf",
    "scaled_by_torch",
    "scaled_by_caffe",
    "scaled_by_numbers",
    "of_bytes",
    "of_logits",
    "of_any_size",
    "by_operations",
    "of_one_image",
    "of_four_images",
    "with_a_table",
    "with_a_loop_that_writes",
    "with_a_branch",
    "with_a_loop",
    "image_by_image",
    "of_old_control_flow",
)
"""What every engine takes and answers alike."""

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A SavedModel, the facts of its card, and the same model run by TensorFlow alone."""

    path: Path
    facts: dict[str, Any]
    direct: Callable[[Pixels], Scores]

    def bundle(self, **facts: Any) -> Bundle:
        """It as a bundle, with some facts of the card replaced."""
        basic = {"name": "made", "height": SIDE, "width": SIDE, "digest": "sha256:" + 64 * "0"}
        return Bundle(self.path, Card.make(**(basic | self.facts | facts)), ())

    def operations(self) -> set[str]:
        """Types of the operations of its graph and of the functions that the graph calls."""
        from tensorflow.core.protobuf import saved_model_pb2

        saved = saved_model_pb2.SavedModel.FromString((self.path / "saved_model.pb").read_bytes())
        (graph,) = (each.graph_def for each in saved.meta_graphs)
        bodies = (function.node_def for function in graph.library.function)
        return {node.op for nodes in (graph.node, *bodies) for node in nodes}


class Workshop:
    """Makes every form once per test session; a form is a method's name."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, SavedModel] = {}
        self.tf = load_tensorflow()

    def __call__(self, form: str) -> SavedModel:
        if form not in self._made:
            self._made[form] = getattr(self, form)(self._root / form)
        return self._made[form]

    # --- signatures, as Keras and TensorFlow 2 write them ---

    def scaled_by_tf(self, path: Path) -> SavedModel:
        return self._keras("tf")

    def scaled_by_torch(self, path: Path) -> SavedModel:
        return self._keras("torch")

    def scaled_by_caffe(self, path: Path) -> SavedModel:
        return self._keras("caffe", channels="BGR")

    def scaled_by_numbers(self, path: Path) -> SavedModel:
        """Three means and one scale, in RGB."""
        mean, scale = (122.782, 117.001, 104.298), 255.0
        directory, model = self._keras_model

        def direct(pixels: Pixels) -> Scores:
            scaled = (pixels.astype(np.float32) - np.array(mean, np.float32)) / np.float32(scale)
            return np.asarray(model(scaled), np.float32)

        normalisation = {"mode": "custom", "mean": mean, "scale": (scale,)}
        facts = {"signature": "serving_default", "normalisation": normalisation}
        return SavedModel(directory, facts, direct)

    def of_bytes(self, path: Path) -> SavedModel:
        """uint8 in: the model scales by itself."""
        tf = self.tf
        spec = tf.TensorSpec([None, SIDE, SIDE, 3], tf.uint8)
        return self._function(path, spec, lambda x: self._softmax(tf.cast(x, tf.float32) / 255))

    def of_logits(self, path: Path) -> SavedModel:
        tf = self.tf
        made = self._function(path, self._floats(), self._linear)

        def direct(pixels: Pixels) -> Scores:
            return np.asarray(tf.nn.softmax(made.direct(pixels)), np.float32)

        return SavedModel(path, made.facts | {"scores": "logits"}, direct)

    def of_any_size(self, path: Path) -> SavedModel:
        """Height and width are free in its signature, but not in its weights."""
        spec = self.tf.TensorSpec([None, None, None, 3], self.tf.float32)
        return self._function(path, spec, self._softmax)

    def of_doubles(self, path: Path) -> SavedModel:
        tf = self.tf
        spec = tf.TensorSpec([None, SIDE, SIDE, 3], tf.float64)
        return self._function(path, spec, lambda x: self._softmax(tf.cast(x, tf.float32)))

    def of_vectors(self, path: Path) -> SavedModel:
        spec = self.tf.TensorSpec([None, SIDE * SIDE * 3], self.tf.float32)
        return self._function(path, spec, self._softmax)

    def with_a_table(self, path: Path) -> SavedModel:
        """A lookup table is set up in the session it was loaded into, so freezing loses it."""
        tf = self.tf
        levels = tf.constant([0, 1, 2], tf.int64)
        gains = tf.constant([0.5, 1.0, 2.0])
        table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(levels, gains), default_value=1.0
        )

        def call(x: Any) -> Any:
            gain = table.lookup(tf.cast(x[:, 0, 0, 0] / 64, tf.int64))
            return self._softmax(x * gain[:, None, None, None])

        return self._function(path, self._floats(), call, table=table)

    def with_a_branch(self, path: Path) -> SavedModel:
        """Which one is taken, only the batch tells; both read a variable and answer alike."""
        tf = self.tf
        gain = tf.Variable(0.5)

        def call(x: Any) -> Any:
            many = tf.shape(x)[0] > 1
            return self._softmax(tf.cond(many, lambda: x * gain + 1, lambda: (x + 2) * gain))

        return self._function(path, self._floats(), call, gain=gain)

    def with_a_loop(self, path: Path) -> SavedModel:
        """As often as an image has rows, each time with a variable."""
        tf = self.tf
        decay = tf.Variable(0.5)

        def call(x: Any) -> Any:
            rows = tf.shape(x)[1]
            start = tf.constant(0), tf.zeros_like(x[:, 0])
            _, y = tf.while_loop(
                lambda n, y: n < rows, lambda n, y: (n + 1, y * decay + x[:, n] / 8), start
            )
            return self._softmax(tf.tile(y[:, None], [1, SIDE, 1, 1]))

        return self._function(path, self._floats(), call, decay=decay)

    def with_a_loop_that_writes(self, path: Path) -> SavedModel:
        """It leaves its last value in a variable, and a constant cannot be written to."""
        tf = self.tf
        last = tf.Variable(0.0)

        def call(x: Any) -> Any:
            def step(n: Any, y: Any) -> Any:
                last.assign(tf.reduce_max(y))
                return n + 1, y * 0.5 + x

            return self._softmax(tf.while_loop(lambda n, y: n < 3, step, (tf.constant(0), x))[1])

        return self._function(path, self._floats(), call, last=last)

    def image_by_image(self, path: Path) -> SavedModel:
        """A loop over the images of a batch, as models have that read or crop each by itself."""
        tf = self.tf

        def call(x: Any) -> Any:
            return self._softmax(tf.map_fn(lambda image: image / tf.reduce_max(image), x))

        return self._function(path, self._floats(), call)

    def answering_nan(self, path: Path) -> SavedModel:
        tf = self.tf
        return self._function(path, self._floats(), lambda x: tf.math.log(self._linear(x) * 0 - 1))

    def answering_one_row(self, path: Path) -> SavedModel:
        tf = self.tf
        return self._alone(path, lambda x: tf.reduce_mean(self._softmax(x), 0, keepdims=True))

    def mixing_images(self, path: Path) -> SavedModel:
        """Row for row, but each is told apart from the others of its batch."""
        tf = self.tf
        return self._alone(
            path,
            lambda x: self._softmax(x) - tf.reduce_mean(self._softmax(x), 0, keepdims=True) / 2,
        )

    def of_great_appetite(self, path: Path) -> SavedModel:
        """Runs out of room with more than two images.

        TensorFlow takes ten seconds of trying again to admit that memory is out; that a disk
        is full it says at once, with the same error.
        """
        tf = self.tf

        def call(x: Any) -> Any:
            full = tf.where(tf.shape(x)[0] > 2, "/dev/full", "/dev/null")
            with tf.control_dependencies([tf.io.write_file(full, "crumb")]):
                return self._softmax(x)

        return self._function(path, self._floats(), call)

    # --- tags and operation names, as TensorFlow 1 wrote them ---

    def by_operations(self, path: Path) -> SavedModel:
        return self._graph(path, batch=None)

    def of_one_image(self, path: Path) -> SavedModel:
        return self._graph(path, batch=1)

    def of_a_hidden_one(self, path: Path) -> SavedModel:
        """Its batch dimension is free, and its graph takes one image all the same."""
        return self._alone(path, lambda x: self._upside_down(x, [1, SIDE, SIDE, 3]))

    def of_a_well_hidden_one(self, path: Path) -> SavedModel:
        """Likewise, but no shape tells: the one is worked out of the pixels."""
        tf = self.tf

        def call(x: Any) -> Any:
            one = 1 + tf.cast(x[0, 0, 0, 0] * 0, tf.int32)
            return self._upside_down(x, tf.stack([one, SIDE, SIDE, 3]))

        return self._alone(path, call)

    def of_four_images(self, path: Path) -> SavedModel:
        return self._graph(path, batch=4)

    def of_two_outputs(self, path: Path) -> SavedModel:
        return self._graph(path, batch=None, signature="both")

    def of_a_loss_besides(self, path: Path) -> SavedModel:
        """With a signature left over from training, whose placeholder of targets it does not
        name: `tf.saved_model.load` rejects the whole model for it."""
        return self._graph(path, batch=None, signature="loss")

    def of_old_control_flow(self, path: Path) -> SavedModel:
        """A loop and a branch as TensorFlow 1 wrote them: Enter, Exit, Switch and Merge."""
        return self._graph(path, batch=None, control_flow=True)

    def with_a_counter(self, path: Path) -> SavedModel:
        """Each answer waits for a variable that is written to."""
        return self._graph(path, batch=None, counter="resource")

    def with_an_old_counter(self, path: Path) -> SavedModel:
        return self._graph(path, batch=None, counter="reference")

    # --- how they are made ---

    @cached_property
    def _weights(self) -> npt.NDArray[np.float32]:
        shape = (SIDE * SIDE * 3, CLASSES)
        return np.random.default_rng(3).normal(0, 0.01, shape).astype(np.float32)

    def _linear(self, x: Any) -> Any:
        return self.tf.reshape(x, [-1, SIDE * SIDE * 3]) @ self.tf.constant(self._weights)

    def _softmax(self, x: Any) -> Any:
        return self.tf.nn.softmax(self._linear(x))

    def _upside_down(self, x: Any, shape: Any) -> Any:
        """Turned over between two changes of shape, or TensorFlow would make one of them."""
        return self._softmax(self.tf.reverse(self.tf.reshape(x, shape), [1]))

    def _floats(self) -> Any:
        return self.tf.TensorSpec([None, SIDE, SIDE, 3], self.tf.float32)

    def _alone(self, path: Path, call: Callable[[Any], Any]) -> SavedModel:
        """A function that answers rightly for one image at a time."""
        model = self._function(path, self._floats(), call)
        one = model.direct
        return replace(
            model,
            direct=lambda pixels: np.concatenate(
                [one(pixels[n : n + 1]) for n in range(len(pixels))]
            ),
        )

    def _function(
        self, path: Path, spec: Any, call: Callable[[Any], Any], **resources: Any
    ) -> SavedModel:
        tf = self.tf
        module = tf.Module()
        for name, resource in resources.items():
            setattr(module, name, resource)
        # A variable, so that there is something to freeze.
        module.zero = tf.Variable(tf.zeros([CLASSES]))
        module.call = tf.function(lambda x: call(x) + module.zero, input_signature=[spec])
        tf.saved_model.save(module, str(path), signatures=module.call)

        @cache
        def loaded() -> Any:
            return tf.saved_model.load(str(path))

        def direct(pixels: Pixels) -> Scores:
            run = loaded().signatures["serving_default"]
            (scores,) = run(tf.cast(pixels, spec.dtype)).values()
            return np.asarray(scores, np.float32)

        return SavedModel(path, {"signature": "serving_default"}, direct)

    @cached_property
    def _keras_model(self) -> tuple[Path, Any]:
        import keras

        keras.utils.set_random_seed(11)
        model = keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 3)),
                keras.layers.Conv2D(6, 3),
                keras.layers.BatchNormalization(),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES, activation="softmax"),
            ]
        )
        # Statistics of its own: with 0 and 1, folding could go wrong unseen.
        gamma, beta = np.linspace(0.5, 2, 6), np.linspace(-1, 1, 6)
        mean, variance = np.linspace(-0.2, 0.2, 6), np.linspace(0.5, 3, 6)
        model.layers[1].set_weights([gamma, beta, mean, variance])
        path = self._root / "keras"
        model.export(str(path), verbose=False)
        return path, model

    def _keras(self, mode: str, **facts: Any) -> SavedModel:
        from keras.applications.imagenet_utils import preprocess_input

        path, model = self._keras_model

        def direct(pixels: Pixels) -> Scores:
            scaled = preprocess_input(
                pixels.astype(np.float32), mode=mode, data_format="channels_last"
            )
            return np.asarray(model(scaled), np.float32)

        normalisation = {"mode": mode}
        signature = {"signature": "serving_default", "normalisation": normalisation}
        return SavedModel(path, signature | facts, direct)

    def _steered(self, x: Any) -> Any:
        tf, tf1 = self.tf, self.tf.compat.v1
        tf1.disable_control_flow_v2()
        try:
            many = tf.shape(x)[0] > 1
            x = tf1.cond(many, lambda: x * 0.5 + 1, lambda: (x + 2) / 2)
            decay = tf1.get_variable("decay", initializer=0.5, use_resource=False)
            _, y = tf1.while_loop(
                lambda n, y: n < 3,
                lambda n, y: [n + 1, y * decay + x / 8],
                [tf.constant(0), x / 8],
            )
        finally:
            tf1.enable_control_flow_v2()
        return y

    def _graph(
        self,
        path: Path,
        *,
        batch: int | None,
        signature: str | None = None,
        control_flow: bool = False,
        counter: str | None = None,
    ) -> SavedModel:
        tf, tf1 = self.tf, self.tf.compat.v1
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
            x = tf1.placeholder(tf.float32, [batch, SIDE, SIDE, 3], "input_1")
            unrelated = tf1.placeholder(tf.float32, [batch, SIDE, SIDE, 3], "unrelated")
            weights = tf1.get_variable("weights", initializer=self._weights, use_resource=False)
            steered = self._steered(x) if control_flow else x
            logits = tf.reshape(steered, [-1, SIDE * SIDE * 3]) @ weights
            if counter:
                new = counter == "resource"
                seen = tf1.get_variable("seen", initializer=0.0, use_resource=new)
                with tf.control_dependencies([tf1.assign_add(seen, 1.0)]):
                    logits = tf.identity(logits)
            scores = tf.nn.softmax(logits, name="inferenceLayer/Softmax")
            session.run(tf1.global_variables_initializer())
            build = tf1.saved_model.build_tensor_info
            answers = {
                "both": {"scores": build(scores), "logits": build(logits)},
                "loss": {"loss": build(tf.nn.l2_loss(x - unrelated))},
            }
            signatures = {
                name: tf1.saved_model.build_signature_def({"x": build(x)}, answers[name])
                for name in answers
                if name == signature
            }
            builder = tf1.saved_model.Builder(str(path))
            builder.add_meta_graph_and_variables(session, ["myTag"], signature_def_map=signatures)
            builder.save()

        def direct(pixels: Pixels) -> Scores:
            with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
                tf1.saved_model.load(session, ["myTag"], str(path))
                step = batch or len(pixels)
                full = np.resize(pixels, (-(-len(pixels) // step) * step, *pixels.shape[1:]))
                rows = [
                    session.run("inferenceLayer/Softmax:0", {"input_1:0": full[i : i + step]})
                    for i in range(0, len(full), step)
                ]
            return np.concatenate(rows)[: len(pixels)]

        facts = {
            "tags": ("myTag",),
            "input_op": "input_1",
            "output_op": "inferenceLayer/Softmax",
        }
        return SavedModel(path, facts, direct)
