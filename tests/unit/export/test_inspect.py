"""What a SavedModel says of itself, whoever wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millrace.core.errors import ModelError, ModelNotFound
from millrace.export.inspect import GraphFacts, read_saved_model
from millrace.export.inspect_events import write_graphs
from tests.unit.worker.saved_models import CLASSES, SIDE, Workshop

WEIGHTS = SIDE * SIDE * 3 * CLASSES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("inspected"))


def graph_of(path: Path) -> GraphFacts:
    (graph,) = read_saved_model(path).graphs
    return graph


def test_a_keras_model_is_read_by_its_signature(made: Workshop) -> None:
    graph = graph_of(made("scaled_by_tf").path)
    assert graph.tags == ("serve",)
    ends = graph.interface
    assert ends is not None
    assert (ends.signature, ends.flags) == ("serving_default", f"--size {SIDE}")
    assert ends.input.shape == (None, SIDE, SIDE, 3)
    assert (ends.input.dtype, ends.input.batch) == ("float32", "free")
    assert ends.output.shape == (None, CLASSES)
    convolution, norm, dense = 6 * (3 * 3 * 3 + 1), 4 * 6, (6 * 6 * 6 + 1) * CLASSES
    assert graph.parameters.variables == convolution + norm + dense
    assert graph.ops["Conv2D"] == 1
    assert graph.ops["Softmax"] == 1
    assert "RestoreV2" not in graph.ops  # of saving, on which no answer depends
    assert "RestoreV2" in {each.type for each in graph.operations}


def test_without_a_signature_the_operations_are_named_with_their_flags(made: Workshop) -> None:
    graph = graph_of(made("by_operations").path)
    ends = graph.interface
    assert graph.signatures == ()
    assert ends is not None
    assert ends.flags == (
        f"--tags myTag --input-op input_1 --output-op inferenceLayer/Softmax --size {SIDE}"
    )
    assert ends.input.shape == (None, SIDE, SIDE, 3)
    assert ends.output.shape == (None, CLASSES)
    # What each variable begins with is a constant, and not counted again.
    assert (graph.parameters.variables, graph.parameters.constants) == (WEIGHTS, 0)
    assert "SaveV2" not in graph.ops


def test_a_batch_that_is_baked_in_is_seen(made: Workshop) -> None:
    ends = graph_of(made("of_one_image").path).interface
    assert ends is not None
    assert ends.input.batch == "fixed at 1"


def test_a_free_size_is_no_flag(made: Workshop) -> None:
    ends = graph_of(made("of_any_size").path).interface
    assert ends is not None
    assert (ends.size, ends.flags) == (None, "")
    assert ends.takes_images


def test_a_signature_with_two_outputs_needs_the_operations_named(made: Workshop) -> None:
    graph = graph_of(made("of_two_outputs").path)
    assert [each.name for each in graph.signatures] == ["both"]
    ends = graph.interface
    assert ends is not None
    assert "--signature" not in ends.flags
    assert "--input-op input_1 --output-op inferenceLayer/Softmax" in ends.flags
    assert [each.key for each in ends.other_outputs] == ["logits"]


def test_loops_and_branches_are_followed_into_their_functions(made: Workshop) -> None:
    assert graph_of(made("with_a_branch").path).ops["Softmax"] == 1
    assert graph_of(made("with_a_loop").path).ops["While"] == 1
    old = graph_of(made("of_old_control_flow").path)
    assert {"Enter", "Exit", "Switch", "Merge"} <= set(old.ops)


def test_vectors_are_no_images(made: Workshop) -> None:
    ends = graph_of(made("of_vectors").path).interface
    assert ends is not None
    assert not ends.takes_images


def test_what_is_left_of_training_is_no_answer(tmp_path: Path, made: Workshop) -> None:
    tf, tf1 = made.tf, made.tf.compat.v1
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        names = tf1.placeholder(tf.string, [None], "file_names")
        truth = tf1.placeholder(tf.int64, [None], "truth")
        x = tf1.placeholder(tf.float32, [None, 4, 6, 1], "photo")
        w = tf1.get_variable("w", [24, 3], use_resource=False)
        logits = tf.matmul(tf.reshape(x, [-1, 24]), w, name="dense/logits")
        tf.nn.softmax(logits, name="aux/Softmax")
        predictions = tf.nn.softmax(logits, name="dense/Softmax")
        loss = tf1.losses.sparse_softmax_cross_entropy(truth, logits)
        tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        tf1.summary.scalar("loss", loss)
        tf.equal(tf.argmax(predictions, 1), truth, name="metrics/correct")
        tf.strings.length(names)
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(str(tmp_path / "trained"))
        builder.add_meta_graph_and_variables(session, ["train", "serve"])
        builder.save()
    ends = graph_of(tmp_path / "trained").interface
    assert ends is not None
    assert ends.flags == (
        "--tags train,serve --input-op photo --output-op dense/Softmax --size 4x6 --channels L"
    )
    assert [each.name for each in ends.other_inputs] == ["truth:0"]


def test_of_an_answer_that_is_chosen_from_the_scores_are_meant(
    tmp_path: Path, made: Workshop
) -> None:
    tf, tf1 = made.tf, made.tf.compat.v1
    with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
        x = tf1.placeholder(tf.uint8, [None, 8, 8, 3], "bytes")
        scores = tf.reduce_sum(tf.cast(x, tf.float32), [1, 2], name="sums")
        tf.argmax(scores, 1, name="class")
        builder = tf1.saved_model.Builder(str(tmp_path / "choosing"))
        builder.add_meta_graph_and_variables(session, ["serve"])
        builder.save()
    ends = graph_of(tmp_path / "choosing").interface
    assert ends is not None
    assert ends.flags == "--input-op bytes --output-op sums --size 8"


def test_several_graphs_are_told_apart(tmp_path: Path, made: Workshop) -> None:
    path = several_graphs(tmp_path / "several", made)
    facts = read_saved_model(path)
    assert [graph.tags for graph in facts.graphs] == [("train",), ("serve", "gpu")]
    flags = [graph.interface.flags for graph in facts.graphs if graph.interface]
    assert flags == [
        "--tags train --input-op x --output-op y --size 8",
        "--tags serve,gpu --input-op x --output-op y --size 8",
    ]


def several_graphs(path: Path, made: Workshop) -> Path:
    tf, tf1 = made.tf, made.tf.compat.v1
    builder = tf1.saved_model.Builder(str(path))
    for number, tags in enumerate((["train"], ["serve", "gpu"])):
        with tf.Graph().as_default() as graph, tf1.Session(graph=graph) as session:
            x = tf1.placeholder(tf.float32, [None, 8, 8, 3], "x")
            w = tf1.get_variable("w", [3], use_resource=False)
            tf.reduce_mean(x * w, [1, 2], name="y")
            session.run(tf1.global_variables_initializer())
            if number:
                builder.add_meta_graph(tags)
            else:
                builder.add_meta_graph_and_variables(session, tags)
    builder.save()
    return path


def test_objects_without_a_signature_have_no_ends(tmp_path: Path, made: Workshop) -> None:
    tf = made.tf
    module = tf.Module()
    module.w = tf.Variable(tf.ones([3]))
    module.call = tf.function(lambda x: x * module.w)
    module.call.get_concrete_function(tf.TensorSpec([None, 3], tf.float32))
    tf.saved_model.save(module, str(tmp_path / "objects"))
    graph = graph_of(tmp_path / "objects")
    assert graph.interface is None
    assert graph.functions > 0
    assert graph.operations


def test_a_graph_in_text_is_read_as_well(tmp_path: Path, made: Workshop) -> None:
    from google.protobuf import text_format

    theirs = made("of_one_image").path
    facts = read_saved_model(theirs)
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model = SavedModel.FromString((theirs / "saved_model.pb").read_bytes())
    (tmp_path / "saved_model.pbtxt").write_text(text_format.MessageToString(model))
    text = read_saved_model(tmp_path)
    assert (facts.form, text.form) == ("binary", "text")
    assert text.graphs[0].interface == facts.graphs[0].interface
    assert text.graphs[0].ops == facts.graphs[0].ops


def test_operations_this_tensorflow_lacks_are_read_all_the_same(
    tmp_path: Path, made: Workshop
) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    theirs = made("by_operations").path
    model = SavedModel.FromString((theirs / "saved_model.pb").read_bytes())
    for node in model.meta_graphs[0].graph_def.node:
        if node.op == "Reshape":
            node.op = "TheirOwnReshape"
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    graph = graph_of(tmp_path)
    assert graph.ops["TheirOwnReshape"] == 1
    assert graph.interface is not None
    assert graph.interface.flags.startswith(
        "--tags myTag --input-op input_1 --output-op inferenceLayer/Softmax --size 8"
    )
    assert graph.parameters.variables == WEIGHTS


def test_the_files_are_counted(made: Workshop) -> None:
    path = made("of_bytes").path
    facts = read_saved_model(path)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert (facts.files, facts.bytes) == (len(files), sum(file.stat().st_size for file in files))


# --- what cannot be read ---


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("saved_model.pb", cut, "damaged or cut short"),
        ("saved_model.pb", lambda data: b"", "holds no graph"),
        ("saved_model.pb", lambda data: b"<html>not found</html>", "damaged or cut short"),
        ("saved_model.pbtxt", lambda data: b"meta_graphs {", "damaged or cut short"),
        ("saved_model.pbtxt", lambda data: b"\xff\xfe", "damaged or cut short"),
    ],
)
def test_a_damaged_file_is_one_line(
    name: str, content: Callable[[bytes], bytes], says: str, tmp_path: Path, made: Workshop
) -> None:
    whole = (made("of_one_image").path / "saved_model.pb").read_bytes()
    (tmp_path / name).write_bytes(content(whole))
    with pytest.raises(ModelError, match=says) as caught:
        read_saved_model(tmp_path)
    assert "\n" not in caught.value.message


def test_a_directory_that_holds_none_is_not_found(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelNotFound, match="holds no SavedModel"):
            read_saved_model(path)


# --- theirs ---


@pytest.mark.parametrize(
    ("name", "flags", "parameters"),
    [
        ("mobilenet_v1_025_224/1", "--size 224", (467_593, 0)),
        (
            "mobilenet_v1_025_224_myTag_v1",
            "--tags myTag --input-op input --output-op output --size 224",
            (467_593, 0),
        ),
        (
            "face_landmarks_68_myTag",
            "--tags myTag --input-op input --output-op output --size 112",
            (0, 356_840),
        ),
    ],
)
def test_real_models_tell_how_to_serve_them(
    name: str, flags: str, parameters: tuple[int, int], real: Path
) -> None:
    graph = graph_of(real / "savedmodels" / name)
    assert graph.interface is not None
    assert graph.interface.flags == flags
    assert graph.interface.takes_images
    assert (graph.parameters.variables, graph.parameters.constants) == parameters
    depthwise = {"mobilenet": 13, "face_land": 15}[name[:9]]
    assert graph.ops["DepthwiseConv2dNative"] == depthwise


# --- for TensorBoard ---


def read_events(file: Path) -> list[Any]:
    """As TensorBoard reads them."""
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    return [Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]


def test_an_event_file_holds_the_graph_without_its_weights(tmp_path: Path, made: Workshop) -> None:
    from tensorflow.core.framework.graph_pb2 import GraphDef

    facts = read_saved_model(made("with_a_branch").path)
    (file,) = write_graphs(facts.graphs, tmp_path / "logs")
    assert "tfevents" in file.name
    version, event = read_events(file)
    assert version.file_version == "brain.Event:2"
    graph = GraphDef.FromString(event.graph_def)
    original = facts.graphs[0].proto.graph_def
    assert [(n.name, n.op) for n in graph.node] == [(n.name, n.op) for n in original.node]
    inner = Counter(n.op for f in graph.library.function for n in f.node_def)
    assert inner == Counter(n.op for f in original.library.function for n in f.node_def)
    assert len(event.graph_def) < original.ByteSize()
    weights = [
        node.attr["value"].tensor
        for function in graph.library.function
        for node in function.node_def
        if node.op == "Const" and len(node.attr["value"].tensor.tensor_shape.dim) == 2
    ]
    assert weights
    assert all(not each.tensor_content for each in weights)
    assert {tuple(dim.size for dim in w.tensor_shape.dim) for w in weights} >= {(192, CLASSES)}


def test_each_of_several_graphs_is_a_run(tmp_path: Path, made: Workshop) -> None:
    facts = read_saved_model(several_graphs(tmp_path / "several", made))
    files = write_graphs(facts.graphs, tmp_path / "logs")
    assert [file.parent.name for file in files] == ["0-train", "1-serve-gpu"]


def test_reading_changes_nothing_of_the_graph(made: Workshop) -> None:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    path = made("by_operations").path
    model = SavedModel.FromString((path / "saved_model.pb").read_bytes())
    assert graph_of(path).proto == model.meta_graphs[0]
