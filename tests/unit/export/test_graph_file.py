"""Graphs in files of their own: frozen, or as text with a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from millrace.core.bundle import Bundle, read_bundle
from millrace.core.errors import ModelError, ModelNotFound, UsageError
from millrace.core.load_tensorflow import load_tensorflow
from millrace.export import Facts, Predict, export_graph
from millrace.worker.openvino_model import OpenVINOModel
from millrace.worker.session import Session
from tests.support import random_pixels

SIDE, CLASSES = 6, 3
ENDS: dict[str, Any] = {"input_op": "input", "output_op": "softmax2"}


@dataclass(frozen=True, slots=True)
class Trained:
    """A graph as TensorFlow 1 trained it, in every form it may be brought in."""

    frozen: Path
    text: Path
    unfrozen: Path
    checkpoint: Path
    answer: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def train(folder: Path, *, by_handle: bool) -> Trained:
    tf = load_tensorflow()
    tf1 = tf.compat.v1
    graph = tf.Graph()
    weights = np.random.default_rng(2).normal(0, 0.3, (SIDE * SIDE * 3, CLASSES))
    with graph.as_default(), tf1.Session(graph=graph) as session, tf.device("/gpu:0"):
        images = tf1.placeholder(tf.float32, [None, SIDE, SIDE, 3], "input")
        truth = tf1.placeholder(tf.int32, [None], "truth")
        kernel = tf1.get_variable(
            "layer/kernel", initializer=weights.astype(np.float32), use_resource=by_handle
        )
        bias = tf1.get_variable(
            "layer/bias", initializer=np.array([0.1, -0.2, 0.3], np.float32), use_resource=by_handle
        )
        logits = tf.reshape(images, [-1, SIDE * SIDE * 3]) @ kernel + bias
        scores = tf.nn.softmax(logits, name="softmax2")
        tf.identity(bias, "unrelated")
        loss = tf1.losses.sparse_softmax_cross_entropy(truth, logits)
        step = tf1.train.AdamOptimizer().minimize(loss)
        with tf.device(None):
            saver = tf1.train.Saver()
        config = tf1.ConfigProto(allow_soft_placement=True)
        session.close()
        session = tf1.Session(graph=graph, config=config)
        session.run(tf1.global_variables_initializer())
        some = np.random.default_rng(3).random((4, SIDE, SIDE, 3), np.float32)
        session.run(step, {images: some, truth: [0, 1, 2, 0]})
        saver.save(session, str(folder / "model.ckpt"))
        graph_def = graph.as_graph_def()
        frozen = tf1.graph_util.convert_variables_to_constants(session, graph_def, ["softmax2"])
        tf.io.write_graph(frozen, str(folder), "frozen.pb", as_text=False)
        tf.io.write_graph(graph_def, str(folder), "graph.pbtxt", as_text=True)
        tf.io.write_graph(graph_def, str(folder), "graph.pb", as_text=False)

    def answer(batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run(scores, {images: batch}), np.float32)

    return Trained(
        folder / "frozen.pb",
        folder / "graph.pbtxt",
        folder / "graph.pb",
        folder / "model.ckpt",
        answer,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("trained"), by_handle=False)


@pytest.fixture(scope="module")
def by_handle(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("by-handle"), by_handle=True)


def exported(path: Path, into: Path, checkpoint: Path | None = None, **facts: Any) -> Bundle:
    seen = []

    def look(bundle: Bundle, predict: Predict) -> None:
        pixels = random_pixels(8, (3, SIDE, SIDE, 3))
        np.testing.assert_allclose(Session(bundle).predict(pixels), predict(pixels), atol=1e-4)
        seen.append(bundle)

    said = Facts(**({"name": "m"} | ENDS | facts))
    place = export_graph(path, said, repository=str(into), checkpoint=checkpoint, check=look)
    assert seen
    return read_bundle(Path(place.root))


def check_everywhere(bundle: Bundle, trained: Trained, tag: str) -> None:
    """By signature and by operations, in both engines, and by what knows nothing of millrace."""
    tf = load_tensorflow()
    pixels = random_pixels(1, (5, SIDE, SIDE, 3))
    told = trained.answer(pixels.astype(np.float32))
    by_names = {"signature": None, "input_op": "input", "output_op": "softmax2"}
    other = Bundle(bundle.path, bundle.card.model_copy(update=by_names), ())
    session = Session(bundle)
    assert session.unfrozen is None
    np.testing.assert_allclose(session.predict(pixels), told, atol=1e-4)
    np.testing.assert_allclose(Session(other).predict(pixels), told, atol=1e-4)
    np.testing.assert_allclose(OpenVINOModel(bundle).predict(pixels), told, atol=1e-4)
    loaded = tf.saved_model.load(str(bundle.path), tags=[tag])
    (scores,) = loaded.signatures["serving_default"](
        images=tf.constant(pixels, tf.float32)
    ).values()
    np.testing.assert_allclose(np.asarray(scores), told, atol=1e-4)


def test_a_frozen_graph_becomes_a_bundle(trained: Trained, tmp_path: Path) -> None:
    bundle = exported(trained.frozen, tmp_path, labels=("a", "b", "c"), tags=("myTag",))
    assert (bundle.card.tags, bundle.labels) == (("myTag",), ("a", "b", "c"))
    assert not [*bundle.path.glob("variables/*")]
    check_everywhere(bundle, trained, "myTag")


@pytest.mark.parametrize("form", ["text", "unfrozen"])
def test_a_graph_with_a_checkpoint_keeps_its_variables(
    form: str, trained: Trained, tmp_path: Path
) -> None:
    bundle = exported(getattr(trained, form), tmp_path, trained.checkpoint)
    assert (bundle.path / "variables" / "variables.index").is_file()
    check_everywhere(bundle, trained, "serve")


def test_variables_may_be_resources(by_handle: Trained, tmp_path: Path) -> None:
    bundle = exported(by_handle.text, tmp_path, by_handle.checkpoint)
    assert (bundle.path / "variables" / "variables.index").is_file()
    check_everywhere(bundle, by_handle, "serve")


def test_what_training_alone_needs_is_left_out(trained: Trained, tmp_path: Path) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    bundle = exported(trained.text, tmp_path, trained.checkpoint)
    saved = SavedModel.FromString((bundle.path / "saved_model.pb").read_bytes())
    names = {node.name for node in saved.meta_graphs[0].graph_def.node}
    assert {"input", "softmax2", "layer/kernel"} <= names
    assert not {"truth", "Adam", "layer/kernel/Adam"} & names
    assert not [node.name for node in saved.meta_graphs[0].graph_def.node if "gpu" in node.device]


@pytest.mark.parametrize("form", ["prefix", "index", "folder"])
def test_a_checkpoint_may_be_named_in_many_ways(
    form: str, trained: Trained, tmp_path: Path
) -> None:
    named = {
        "prefix": trained.checkpoint,
        "index": trained.checkpoint.with_suffix(".ckpt.index"),
        "folder": trained.checkpoint.parent,
    }[form]
    check_everywhere(exported(trained.text, tmp_path, named), trained, "serve")


def test_variables_without_a_checkpoint_are_told(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not frozen.*layer/") as caught:
        exported(trained.text, tmp_path)
    assert "--checkpoint" in (caught.value.hint or "")


def test_a_checkpoint_of_another_model_is_told(trained: Trained, tmp_path: Path) -> None:
    tf = load_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, shape in (("layer/kernels", [2]), ("layer/bias", [CLASSES])):
            tf.compat.v1.get_variable(name, shape)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "other.ckpt"))
    with pytest.raises(ModelError, match="no variable 'layer/kernel'") as caught:
        exported(trained.text, tmp_path / "into", tmp_path / "other.ckpt")
    assert "layer/kernels" in (caught.value.hint or "")


def test_a_checkpoint_of_other_shapes_is_told(trained: Trained, tmp_path: Path) -> None:
    tf = load_tensorflow()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, shape in (("layer/kernel", [2, 2]), ("layer/bias", [CLASSES])):
            tf.compat.v1.get_variable(name, shape)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "other.ckpt"))
    with pytest.raises(ModelError, match=r"'layer/kernel' in shape \[2, 2\]"):
        exported(trained.text, tmp_path / "into", tmp_path / "other.ckpt")


def test_a_torn_checkpoint_is_told(trained: Trained, tmp_path: Path) -> None:
    for file in trained.checkpoint.parent.glob("model.ckpt.*"):
        content = file.read_bytes()
        if ".data-" in file.name:
            content = content[:100]
        (tmp_path / file.name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        exported(trained.text, tmp_path / "into", tmp_path / "model.ckpt")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("form", ["frozen", "text"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_torn_graph_is_told(form: str, share: float, trained: Trained, tmp_path: Path) -> None:
    whole: Path = getattr(trained, form)
    torn = tmp_path / whole.name
    torn.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    with pytest.raises(ModelError) as caught:
        exported(torn, tmp_path / "into", trained.checkpoint if form == "text" else None)
    assert "\n" not in caught.value.message


def test_files_that_are_not_there_are_told(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        exported(tmp_path / "none.pb", tmp_path)
    with pytest.raises(ModelNotFound, match="no checkpoint"):
        exported(trained.text, tmp_path, tmp_path / "none.ckpt")
    with pytest.raises(ModelNotFound, match="holds no checkpoints"):
        exported(trained.text, tmp_path, tmp_path)


def test_ends_that_make_no_sense_are_told(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no operation 'softmax'") as caught:
        exported(trained.frozen, tmp_path, output_op="softmax")
    assert "softmax2" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="which is the input") as caught:
        exported(trained.frozen, tmp_path, input_op=None)
    assert "--input-op input" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="does not depend"):
        exported(trained.text, tmp_path, trained.checkpoint, output_op="unrelated")
    with pytest.raises(UsageError, match="--signature"):
        exported(trained.frozen, tmp_path, signature="s", input_op=None, output_op=None)
