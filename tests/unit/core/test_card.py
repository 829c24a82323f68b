"""The card's facts: checked where they are written down and where they are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.core.card import Card, Channels, Normalisation, ResizeMethod, Task
from millrace.core.errors import ModelError, UsageError

finite = st.floats(-1000, 1000).filter(lambda value: value == 0 or abs(value) > 1e-6)


def a_card(**facts: Any) -> Card:
    return Card.make(**{"name": "m", "height": 8, "width": 8, "signature": "serve", **facts})


def test_a_card_needs_a_name_a_size_and_a_way_in() -> None:
    card = a_card()
    assert (card.task, card.channels, card.resize) == (
        Task.CLASSIFICATION,
        Channels.RGB,
        ResizeMethod.STRETCH,
    )
    assert card.tags == ("serve",)


def test_a_card_is_read_back_as_it_was_written() -> None:
    card = a_card(
        signature=None,
        input_op="input_1",
        output_op="inferenceLayer/Softmax",
        tags=("myTag",),
        normalisation={"mode": "custom", "mean": (1, 2, 3), "scale": (4,)},
        resize="crop",
        filter="lanczos",
        scores="logits",
        label_offset=1,
        frameworks={"tensorflow": "2.21"},
        digest="sha256:" + 64 * "a",
    )
    assert Card.read(card.model_dump_json().encode(), "here") == card


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"signature": None}, "a signature, or both"),
        ({"input_op": "in", "output_op": "out"}, "a signature, or both"),
        ({"input_op": "in"}, "a signature, or both"),
        ({"signature": None, "output_op": "out"}, "a signature, or both"),
        ({"normalisation": {"mode": "caffe"}}, "BGR"),
        ({"normalisation": {"mode": "torch"}, "channels": "L"}, "for one channel"),
        (
            {
                "normalisation": {"mode": "custom", "mean": (1,), "scale": (1, 2, 3)},
                "channels": "L",
            },
            "for one channel",
        ),
        ({"height": 0}, "^model facts: height: "),
        ({"width": 8193}, "^model facts: width: "),
        ({"channels": "RGBA"}, "^model facts: channels: "),
        ({"task": "telepathy"}, "^model facts: task: "),
        ({"resize": "squash"}, "^model facts: resize: "),
        ({"scores": "vibes"}, "^model facts: scores: "),
        ({"label_offset": -1}, "^model facts: label_offset: "),
        ({"top_k": 0}, "^model facts: top_k: "),
        ({"name": "a/b"}, "^model facts: name: "),
        ({"version": "../1"}, "^model facts: version: "),
        ({"schema_version": 2}, "^model facts: schema_version: "),
        ({"colour": "red"}, "^model facts: colour: "),
    ],
)
def test_facts_that_make_no_sense_are_named(facts: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        a_card(**facts)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b"\xff", b'{"schema_version":2}'])
def test_a_foreign_card_is_a_model_error_saying_where_it_lies(text: bytes) -> None:
    with pytest.raises(ModelError, match=r"^the/card: "):
        Card.read(text, "the/card")


def test_caffe_takes_bgr() -> None:
    assert a_card(normalisation={"mode": "caffe"}, channels="BGR").channels.depth == 3


def test_luminance_is_one_channel() -> None:
    assert a_card(channels="L", normalisation={"mode": "tf"}).channels.depth == 1


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe", "none"])
def test_a_named_scale_is_its_mode(mode: str) -> None:
    assert Normalisation.parse(mode).mode == mode


@given(finite, finite.filter(bool))
def test_a_mean_and_a_scale_are_custom(mean: float, scale: float) -> None:
    read = Normalisation.parse(f"{mean!r},{scale!r}")
    assert read.mean_and_scale() == ((mean,), (scale,))


def test_a_mean_for_each_channel_shares_one_scale() -> None:
    assert Normalisation.parse("1,2,3,4").mean_and_scale() == ((1, 2, 3), (4,))


@pytest.mark.parametrize(
    "text",
    ["tf", "torch", "caffe", "none", "0,255", "122.782,117,104.3,255", "123.67512,1,2,3,4,0.5"],
)
def test_a_scale_is_spelled_as_it_is_read(text: str) -> None:
    assert Normalisation.parse(text).spelled == text


def one_or_three(values: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(values) | st.tuples(values, values, values)


@given(one_or_three(finite), one_or_three(finite.filter(bool)))
def test_what_is_spelled_is_read_back_to_the_last_digit(
    mean: tuple[float, ...], scale: tuple[float, ...]
) -> None:
    said = Normalisation(mode="custom", mean=mean, scale=scale)
    read = Normalisation.parse(said.spelled)
    assert read.scale == scale
    assert read.mean in (mean, mean * 3)  # one that is said three times where the scales are three
    assert read.spelled == said.spelled


@pytest.mark.parametrize(
    "text",
    ["", "custom", "TF", "1", "1,2,3", "1,2,3,4,5", "a,b", "1,0", "nan,1", "inf,1", "1,nan", "1,"],
)
def test_any_other_scale_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError, match="is not a scale") as caught:
        Normalisation.parse(text)
    assert "MEAN,SCALE" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "numbers",
    [
        {"mode": "tf", "mean": (1,), "scale": (1,)},
        {"mode": "tf", "mean": (1,)},
        {"mode": "custom"},
        {"mode": "custom", "mean": (1,)},
        {"mode": "custom", "mean": (1, 2), "scale": (1,)},
        {"mode": "custom", "mean": (1,), "scale": (0,)},
        {"mode": "custom", "mean": (float("nan"),), "scale": (1,)},
    ],
)
def test_numbers_that_make_no_scale_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        a_card(normalisation=numbers)


@pytest.mark.parametrize(
    ("mode", "pixel", "channel", "expected"),
    [
        ("none", 255, 0, 255.0),
        ("tf", 0, 0, -1.0),
        ("tf", 255, 0, 1.0),
        ("torch", 0, 0, -0.485 / 0.229),
        ("torch", 255, 2, (1 - 0.406) / 0.225),
        ("caffe", 0, 0, -103.939),
        ("caffe", 255, 2, 255 - 123.68),
    ],
)
def test_the_named_scales_are_those_of_keras(
    mode: str, pixel: int, channel: int, expected: float
) -> None:
    mean, scale = Normalisation.parse(mode).mean_and_scale()
    result = (pixel - mean[channel % len(mean)]) / scale[channel % len(scale)]
    assert result == pytest.approx(expected, rel=1e-6)
