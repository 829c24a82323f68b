"""Of a graph without a signature: which operations are its ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millrace.core.load_tensorflow import load_tensorflow
from millrace.export.inspect_ends import likely_outputs
from millrace.export.inspect_tensors import Tensors
from millrace.export.session_graph import OBJECTS_ALONE, likely


@pytest.fixture(scope="module")
def tf() -> Any:
    return load_tensorflow()


def graph_of(tf: Any, build: Callable[[Any], object]) -> Any:
    """A graph of images called `photo`."""
    with tf.Graph().as_default() as graph:
        build(tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], "photo"))
    return graph


def outputs(tf: Any, build: Callable[[Any], object]) -> list[str]:
    graph_def = graph_of(tf, build).as_graph_def()
    found = likely_outputs(list(graph_def.node), "photo", Tensors(graph_def))
    return [each.operation for each in found]


def attention(tf: Any, photo: Any) -> Any:
    """Features [n, 3] of patches that attend to each other."""
    patches = tf.reshape(photo, [-1, 64, 3], name="patches")
    likeness = tf.matmul(patches, patches, transpose_b=True)
    attended = tf.identity(tf.nn.softmax(likeness, name="block/attention/Softmax"))
    return tf.reduce_mean(tf.matmul(attended, patches), 1)


@pytest.mark.parametrize("chosen", [False, True], ids=["", "and the best is chosen"])
def test_logits_after_attention_are_the_answer(tf: Any, chosen: bool) -> None:
    def build(photo: Any) -> None:
        logits = tf.add(attention(tf, photo), [1.0, 2.0, 3.0], name="head/BiasAdd")
        if chosen:
            tf.argmax(logits, 1, name="best")

    assert outputs(tf, build) == ["head/BiasAdd", "block/attention/Softmax"]


def test_a_softmax_at_the_end_is_the_answer_behind_whatever_hands_it_on(tf: Any) -> None:
    def build(photo: Any) -> None:
        scores = tf.nn.softmax(attention(tf, photo), name="probabilities")
        tf.argmax(tf.identity(tf.reshape(scores, [-1, 3]), name="Identity"), 1)

    assert outputs(tf, build)[0] == "probabilities"


def test_a_loss_that_is_worked_out_from_the_answer_is_none(tf: Any) -> None:
    """As beginners' lessons of TensorFlow 1 wrote it, in no scope."""
    tf1 = tf.compat.v1

    def build(photo: Any) -> None:
        truth = tf1.placeholder(tf.float32, [None, 5], "truth")
        w = tf1.get_variable("w", [192, 5], use_resource=False)
        scores = tf.nn.softmax(tf.matmul(tf.reshape(photo, [-1, 192]), w), name="answer")
        loss = tf.reduce_mean(-tf.reduce_sum(truth * tf1.log(scores), [1]))
        tf1.train.GradientDescentOptimizer(0.1).minimize(loss)
        right = tf.equal(tf.argmax(scores, 1), tf.argmax(truth, 1))
        tf.reduce_mean(tf.cast(right, tf.float32))

    assert outputs(tf, build)[0] == "answer"


def test_of_two_ends_the_later_is_likelier_though_a_short_cut_leads_to_it(tf: Any) -> None:
    def build(photo: Any) -> None:
        flat = tf.reshape(photo, [-1, 192])
        deep = flat
        for _ in range(3):
            deep = tf.nn.relu(deep)
        tf.tanh(deep, name="first")
        tf.tanh(flat + tf.nn.elu(deep), name="second")

    assert outputs(tf, build) == ["second", "first"]


def test_the_rounds_of_an_old_loop_are_followed_to_its_end(tf: Any) -> None:
    tf1 = tf.compat.v1

    def build(photo: Any) -> None:
        tf1.disable_control_flow_v2()
        try:
            flat = tf.reshape(photo, [-1, 192])
            _, scores = tf1.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), [0, flat])
        finally:
            tf1.enable_control_flow_v2()
        tf.identity(scores, name="doubled")

    graph = graph_of(tf, build)
    assert "NextIteration" in {each.type for each in graph.get_operations()}
    assert outputs(tf, build) == ["doubled"]


def test_the_hint_of_export_names_what_inspect_does(tf: Any) -> None:
    tf1 = tf.compat.v1

    def build(photo: Any) -> None:
        tf1.placeholder(tf.string, [None], "file_names")
        scores = tf.nn.softmax(attention(tf, photo), name="probabilities")
        tf.reduce_mean(tf1.log(scores), name="loss/mean")
        tf.nn.softmax(scores, name="aux/Softmax")

    hint = likely(graph_of(tf, build))
    assert hint.startswith("perhaps --input-op photo --output-op probabilities or ")
    assert likely(tf.Graph()) == "name them with --input-op and --output-op"
    assert likely(tf.Graph(), OBJECTS_ALONE) == OBJECTS_ALONE
