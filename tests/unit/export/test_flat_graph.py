"""A Keras model as one flat graph: what its operations are called, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.errors import ModelError, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import export_keras
from millrace.export.predict import keras_predict
from millrace.worker.openvino_model import OpenVINOModel
from millrace.worker.session import Session
from tests.support import random_pixels

SIDE, CLASSES = 8, 4


@pytest.fixture(scope="module")
def keras() -> Any:
    load_tensorflow()
    import keras

    return keras


@pytest.fixture(autouse=True)
def seeded(keras: Any) -> None:
    """Whichever tests ran before, weights are the same."""
    keras.utils.set_random_seed(5)


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    """With all that behaves otherwise in training, a model within it, and a layer used twice."""
    keras.utils.set_random_seed(5)
    layers = keras.layers
    base = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 4)),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            layers.BatchNormalization(),
        ],
        name="base",
    )
    gamma = np.linspace(0.5, 2, 4), np.linspace(-1, 1, 4)
    base.layers[1].set_weights([*gamma, np.linspace(-0.2, 0.2, 4), np.linspace(0.5, 3, 4)])
    image = keras.Input((SIDE, SIDE, 3), name="image")
    twice = layers.Conv2D(4, 3, padding="same", name="twice")
    x = layers.RandomFlip()(image)
    x = layers.RandomRotation(0.2)(x)
    x = layers.GaussianNoise(0.5)(x)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    x = base(twice(twice(x)))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    answer = layers.Dense(CLASSES, activation="softmax", name="inferenceLayer")(x)
    return keras.Model(image, answer, name="mine")


def exported(model: Any, path: Path, **facts: Any) -> Bundle:
    place = export_keras(model, name="m", repository=str(path), **facts)
    return read_bundle(Path(place.root))


@pytest.fixture(scope="module")
def bundle(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(model, tmp_path_factory.mktemp("flat"), tag="myTag")


def nodes(bundle: Bundle) -> dict[str, Any]:
    """The operations of the bundle's only graph, by name."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((bundle.path / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == list(bundle.card.tags)
    assert not graph.graph_def.library.function
    return {node.name: node for node in graph.graph_def.node}


def test_the_ends_bear_the_names_a_go_program_asks_for(bundle: Bundle) -> None:
    found = nodes(bundle)
    assert found["input_1"].op == "Placeholder"
    assert found["inferenceLayer/Softmax"].op == "Softmax"
    sides = [side.size for side in found["input_1"].attr["shape"].shape.dim]
    assert sides == [-1, SIDE, SIDE, 3]


def test_operations_are_called_after_their_layers(bundle: Bundle) -> None:
    found = nodes(bundle)
    assert {"first/convolution", "base/conv/Relu", "inferenceLayer/MatMul"} <= set(found)
    assert not [name for name in found if name.startswith("mine")]
    twice = {name.partition("/")[0] for name in found if name.startswith("twice")}
    assert len(twice) == 2


def test_all_is_constant(bundle: Bundle) -> None:
    kinds = {node.op for node in nodes(bundle).values()}
    assert not [kind for kind in kinds if "Var" in kind or "Random" in kind or "Call" in kind]


def test_it_answers_as_the_model_in_every_engine(bundle: Bundle, model: Any) -> None:
    pixels = random_pixels(4, (5, SIDE, SIDE, 3))
    told = keras_predict(model, bundle.card)(pixels)
    np.testing.assert_allclose(Session(bundle).predict(pixels), told, atol=1e-4)
    np.testing.assert_allclose(OpenVINOModel(bundle).predict(pixels), told, atol=1e-4)
    facts = {"signature": None, "input_op": "input_1", "output_op": "inferenceLayer/Softmax"}
    by_names = Bundle(bundle.path, bundle.card.model_copy(update=facts), ())
    np.testing.assert_allclose(Session(by_names).predict(pixels), told, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("images", "scores"),
        ("in/put", "inferenceLayer/MatMul"),  # another operation is called so
        ("base/conv/Relu", "first/convolution"),
        ("inferenceLayer", "first"),
    ],
)
def test_the_ends_may_be_called_anything(
    source: str, target: str, model: Any, tmp_path: Path
) -> None:
    made = exported(model, tmp_path, input_name=source, inference_name=target)
    found = nodes(made)
    assert (found[source].op, found[target].op) == ("Placeholder", "Softmax")
    pixels = random_pixels(4, (2, SIDE, SIDE, 3))
    told = keras_predict(model, made.card)(pixels)
    np.testing.assert_allclose(Session(made).predict(pixels), told, atol=1e-4)


@pytest.mark.parametrize("name", ["", "a b", "input_1:0", "/a", "a/", "größe"])
def test_what_is_no_name_of_an_operation_is_refused(name: str, model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        exported(model, tmp_path, input_name=name)
    assert not [*tmp_path.iterdir()]


def test_one_name_for_both_ends_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="both"):
        exported(model, tmp_path, input_name="x", inference_name="x")


def test_bytes_may_go_in(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    made = exported(model, tmp_path, channels="L")
    pixels = random_pixels(1, (3, SIDE, SIDE, 1))
    told = np.asarray(model(pixels))
    np.testing.assert_allclose(Session(made).predict(pixels), told, atol=1e-4)


def test_a_model_of_any_size_is_exported_for_one(keras: Any, tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    made = exported(model, tmp_path, height=6, width=9)
    assert (made.card.height, made.card.width) == (6, 9)
    pixels = random_pixels(1, (2, 6, 9, 3))
    np.testing.assert_allclose(
        Session(made).predict(pixels), np.asarray(model(pixels.astype(np.float32))), atol=1e-4
    )


def layered(keras: Any, *layers: Any, dtype: str = "float32") -> Any:
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3), dtype=dtype),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def dice(keras: Any) -> Any:
    return layered(keras, keras.layers.Lambda(lambda x: x + load_tensorflow().random.normal([])))


def flips(keras: Any) -> Any:
    class Flips(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seeds = keras.random.SeedGenerator(1)

        def call(self, x: Any) -> Any:
            return x * keras.random.uniform((), seed=self.seeds)

    return layered(keras, Flips())


def python(keras: Any) -> Any:
    tf = load_tensorflow()

    def call(x: Any) -> Any:
        answer = tf.numpy_function(lambda y: y, [x], tf.float32)
        return tf.ensure_shape(answer, [None, SIDE, SIDE, 3])

    return layered(keras, keras.layers.Lambda(call, output_shape=(SIDE, SIDE, 3)))


def table(keras: Any) -> Any:
    return layered(
        keras,
        keras.layers.IntegerLookup(vocabulary=[1, 2, 3]),
        keras.layers.Rescaling(1.0),
        dtype="int64",
    )


def counting(keras: Any) -> Any:
    class Counting(keras.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x: Any) -> Any:
            self.seen.assign_add(1.0)
            return x + self.seen

    return layered(keras, Counting())


def doubles(keras: Any) -> Any:
    return layered(keras, dtype="float64")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (dice, "at random"),
        (flips, "random|state"),
        (python, "Python"),
        (table, "int64"),
        (counting, "state"),
        (doubles, "float64"),
    ],
)
def test_what_a_flat_graph_cannot_hold_is_refused(
    make: Callable[[Any], Any], says: str, keras: Any, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=says):
        exported(make(keras), tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_table_within_is_refused(keras: Any, tmp_path: Path) -> None:
    tf = load_tensorflow()
    keys = tf.lookup.KeyValueTensorInitializer(
        tf.constant([0, 1], tf.int64), tf.constant([0.5, 2.0])
    )
    gains = tf.lookup.StaticHashTable(keys, 1.0)

    def call(x: Any) -> Any:
        return x * gains.lookup(tf.cast(x[:, 0, 0, 0], tf.int64))[:, None, None, None]

    model = layered(keras, keras.layers.Lambda(call, output_shape=(SIDE, SIDE, 3)))
    with pytest.raises(ModelError, match="table") as caught:
        exported(model, tmp_path)
    assert "model.export" in (caught.value.hint or "")


def test_a_model_that_was_never_built_is_refused(keras: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="input_shape"):
        exported(keras.Sequential([keras.layers.Dense(3)]), tmp_path)


def test_an_answer_that_is_the_input_is_refused(keras: Any, tmp_path: Path) -> None:
    image = keras.Input((1, 1, 3))
    with pytest.raises(ModelError, match="own input"):
        exported(keras.Model(image, image), tmp_path)


def test_logits_get_their_softmax_once(keras: Any, model: Any, tmp_path: Path) -> None:
    plain = keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    made = exported(plain, tmp_path, logits=True, scale="tf")
    pixels = random_pixels(1, (4, SIDE, SIDE, 3))
    scores = Session(made).predict(pixels)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(scores, keras_predict(plain, made.card)(pixels), atol=1e-4)
    with pytest.raises(UsageError, match="softmax already"):
        exported(model, tmp_path, logits=True)
