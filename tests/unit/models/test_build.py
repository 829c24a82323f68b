"""One door to every architecture."""

from __future__ import annotations

import subprocess
import sys

import pytest

from millrace.core.card import Channels, Normalisation
from millrace.core.errors import ModelError, ModelNotFound
from millrace.models import architecture, architectures, build

SMALL = ("digits", "mnist_softmax", "mnist_cnn")
QUICK = (*SMALL, "mobilenet_v2")
"""Made in well under a second; tests/integration/test_architectures.py makes the others."""


@pytest.mark.parametrize("name", architectures())
def test_every_architecture_says_what_its_card_will_say(name: str) -> None:
    found = architecture(name)
    assert found.name == name
    assert found.height == found.width
    Normalisation.parse(found.scale)
    assert found.channels in set(Channels)
    assert found.classes > 1
    assert found.weights


@pytest.mark.parametrize("name", SMALL)
def test_a_small_one_has_a_label_for_each_class(name: str) -> None:
    found = architecture(name)
    assert len(found.labels()) == found.classes == 10
    assert not found.imagenet


def test_the_names_are_known_without_tensorflow() -> None:
    code = (
        "import sys; from millrace.models import architecture, architectures;"
        "[architecture(name) for name in architectures()];"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("classes", [2, None])
def test_it_answers_with_as_many_classes_as_asked(name: str, classes: int | None) -> None:
    found = architecture(name)
    model = build(name, num_classes=classes)
    depth = Channels(found.channels).depth
    assert model.input_shape == (None, found.height, found.width, depth)
    assert model.output_shape == (None, classes or found.classes)


@pytest.mark.parametrize("name", QUICK)
def test_its_last_operation_is_a_softmax(name: str) -> None:
    """So that an export can name it, and who asks by name gets probabilities."""
    import tensorflow as tf

    model = build(name)
    shape = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
    traced = tf.function(lambda images: model(images)).get_concrete_function(shape)
    (operation,) = [output.op for output in traced.outputs]
    while operation.type == "Identity":
        operation = operation.inputs[0].op
    assert operation.type == "Softmax"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("resnet", "resnet50"), ("MobileNetV2", "mobilenet_v2"), ("mnist-cnn", "mnist_cnn")],
)
def test_a_name_that_is_nearly_one_is_answered_with_it(asked: str, meant: str) -> None:
    with pytest.raises(ModelNotFound, match=asked) as caught:
        build(asked)
    hint = caught.value.hint or ""
    assert hint.startswith(f"did you mean {meant}")
    assert all(name in hint for name in architectures())


def test_a_name_like_no_other_is_answered_with_those_there_are() -> None:
    with pytest.raises(ModelNotFound, match="'yolo'") as caught:
        build("yolo")
    assert (caught.value.hint or "").startswith("there are xception")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError):
        build("digits", num_classes=2, depth=50)


@pytest.mark.parametrize("name", ["digits", "pnasnet5_large"])
def test_weights_that_nobody_publishes_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"no ImageNet weights of {name}") as caught:
        build(name, weights="imagenet")
    assert caught.value.hint == architecture(name).weights


def test_published_weights_have_their_own_number_of_classes() -> None:
    with pytest.raises(ModelError, match="of 1000 classes, not 3"):
        build("resnet50", num_classes=3, weights="imagenet")
