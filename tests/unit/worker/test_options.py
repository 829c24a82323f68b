"""A worker's options: read from the environment, refused where they make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.card import Card, Channels, Normalisation, ResizeFilter, ResizeMethod
from millrace.core.errors import UsageError
from millrace.worker.options import WorkerOptions, parse_size
from millrace.worker.tuning import EngineName, Precision, Tuning

pytestmark = pytest.mark.usefixtures("no_environment")

AD_HOC = {"saved_model": "/models/m", "name": "m", "size": "224"}


def test_every_option_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "MILLRACE_SAVED_MODEL": "/models/m",
        "MILLRACE_NAME": "m",
        "MILLRACE_TAGS": "myTag",
        "MILLRACE_INPUT_OP": "input_1",
        "MILLRACE_OUTPUT_OP": "out/Softmax",
        "MILLRACE_SIZE": "96x64",
        "MILLRACE_SCALE": "tf",
        "MILLRACE_CHANNELS": "BGR",
        "MILLRACE_RESIZE": "crop",
        "MILLRACE_FILTER": "lanczos",
        "MILLRACE_LABEL_OFFSET": "1",
        "MILLRACE_LOGITS": "true",
        "MILLRACE_BATCH_SIZE": "32",
        "MILLRACE_MAX_DELAY_MS": "2.5",
        "MILLRACE_SLOTS": "5",
        "MILLRACE_FETCH_THREADS": "7",
        "MILLRACE_DECODE_THREADS": "3",
        "MILLRACE_THREADS": "2",
        "MILLRACE_MAX_PIXELS": "1000",
        "MILLRACE_CACHE": "/var/cache/m",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = WorkerOptions.load()
    assert (options.batch_size, options.max_delay_ms, options.slots) == (32, 2.5, 5)
    assert (options.fetch_threads, options.decode_threads, options.threads) == (7, 3, 2)
    assert (options.max_pixels, options.cache) == (1000, "/var/cache/m")
    card = options.card(None)
    assert (card.name, card.version, card.tags, card.signature) == ("m", None, ("myTag",), None)
    assert (card.input_op, card.output_op) == ("input_1", "out/Softmax")
    assert (card.height, card.width) == (96, 64)
    assert card.normalisation.mode == "tf"
    assert (card.channels, card.resize, card.filter) == (
        Channels.BGR,
        ResizeMethod.CROP,
        ResizeFilter.LANCZOS,
    )
    assert (card.label_offset, card.scores) == (1, "logits")


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_MODEL", "here")
    monkeypatch.setenv("MILLRACE_BATCH_SIZE", "32")
    options = WorkerOptions.load(batch_size=4, model=None)
    assert (options.model, options.batch_size) == ("here", 4)


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_SAVED_MODEL", "")
    monkeypatch.setenv("MILLRACE_BATCH_SIZE", "")
    assert WorkerOptions.load(model="m").batch_size is None


def test_auto_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_BATCH_SIZE", "auto")
    monkeypatch.setenv("MILLRACE_PRECISION", "auto")
    options = WorkerOptions.load(model="m")
    assert (options.batch_size, options.precision) == (None, Precision.FLOAT32)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "many"),
        ("precision", "float16"),
        ("engine", "torch"),
        ("device", "tpu"),
        ("device", "gpu:"),
        ("device", "cpu:1"),
        ("gpu_memory", "0"),
        ("gpu_memory", "1.5"),
    ],
)
def test_nonsense_about_the_engine_is_named(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"MILLRACE_{name.upper()}"):
        WorkerOptions.load(model="m", **{name: value})


def test_how_the_engine_is_to_run() -> None:
    options = WorkerOptions.load(
        model="m", engine="openvino", precision="bfloat16", threads=2, device="cpu"
    )
    assert options.tuning == Tuning(EngineName.OPENVINO, Precision.BFLOAT16, 2, device="cpu")


def test_an_empty_option_is_none_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("MODEL", "SAVED_MODEL", "NAME"):
        monkeypatch.setenv(f"MILLRACE_{name}", "elsewhere")
    options = WorkerOptions.load(model="m", saved_model="", name="")
    assert (options.model, options.saved_model, options.name) == ("m", None, None)
    options = WorkerOptions.load(model="", **AD_HOC)
    assert (options.model, options.saved_model, options.name) == (None, "/models/m", "m")
    with pytest.raises(UsageError, match="either a model"):
        WorkerOptions.load(model="", saved_model="", name="")


BESIDE_A_MODEL = [
    {"name": "mine"},
    {"labels": __file__},
    {"size": "8"},
    {"scale": "none"},
    {"channels": "RGB"},
    {"resize": "stretch"},
    {"filter": "bilinear"},
    {"label_offset": 0},
    {"logits": False},
    {"tags": "serve"},
    {"signature": "serving_default"},
    {"input_op": "in", "output_op": "out"},
]


@pytest.mark.parametrize("given", BESIDE_A_MODEL, ids=lambda given: " ".join(given))
def test_what_a_models_card_says_is_not_said_again(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="what m takes and answers stands in its card"):
        WorkerOptions.load(model="m", **given)
    for name, value in given.items():
        monkeypatch.setenv(f"MILLRACE_{name.upper()}", str(value))
    with pytest.raises(UsageError, match="what m takes and answers stands in its card"):
        WorkerOptions.load(model="m")


@pytest.mark.parametrize("file", ["nowhere.txt", "."])
def test_labels_that_are_no_file_are_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no labels file"):
        WorkerOptions.load(**AD_HOC, labels=str(tmp_path / file))


def test_labels_may_lie_in_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "labels.txt").write_text("a\n")
    assert WorkerOptions.load(**AD_HOC, labels="~/labels.txt").labels == "~/labels.txt"


@pytest.mark.parametrize(
    "given",
    [{}, {"model": "m", "saved_model": "/m", "name": "m"}, {"saved_model": "/m"}, {"name": "m"}],
    ids=["neither", "both", "no name", "name alone"],
)
def test_a_worker_serves_one_named_model(given: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        WorkerOptions.load(**given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "4097"),
        ("batch_size", "many"),
        ("batch_size", "1.5"),
        ("max_delay_ms", "-1"),
        ("max_delay_ms", "nan"),
        ("max_delay_ms", "inf"),
        ("slots", "0"),
        ("slots", "65"),
        ("fetch_threads", "0"),
        ("decode_threads", "0"),
        ("threads", "-1"),
        ("max_pixels", "0"),
        ("label_offset", "-1"),
        ("logits", "perhaps"),
        ("channels", "rgb"),
        ("channels", "RGBA"),
        ("resize", "squeeze"),
        ("filter", "magic"),
        ("size", "large"),
        ("size", "0"),
        ("size", "-5"),
    ],
)
def test_nonsense_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_MODEL", "m")
    monkeypatch.setenv(f"MILLRACE_{name.upper()}", value)
    with pytest.raises(UsageError) as caught:
        WorkerOptions.load()
    assert f"MILLRACE_{name.upper()}" in caught.value.message or repr(value) in caught.value.message


@pytest.mark.parametrize("text", ["false", "0", "no", "off"])
def test_false_is_false(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_LOGITS", text)
    assert WorkerOptions.load(**AD_HOC).logits is False


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("224", (224, 224)),
        ("96x64", (96, 64)),
        ("96X64", (96, 64)),
        ("1", (1, 1)),
        ("8192x1", (8192, 1)),
    ],
)
def test_a_size_is_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "x5", "5x5x5", "0", "0x5", "8193", "1.5", "a", "²", "-3x4"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


def test_without_operations_the_default_signature_is_called() -> None:
    card = WorkerOptions.load(**AD_HOC).card(None)
    assert (card.signature, card.input_op, card.tags) == ("serving_default", None, ("serve",))


def test_several_tags_are_separated_by_commas() -> None:
    assert WorkerOptions.load(**AD_HOC, tags="serve,gpu").card(None).tags == ("serve", "gpu")


@pytest.mark.parametrize(
    "facts",
    [
        {"input_op": "a"},
        {"output_op": "b"},
        {"signature": "s", "input_op": "a", "output_op": "b"},
    ],
    ids=["input alone", "output alone", "both ways"],
)
def test_there_is_one_way_into_the_graph(facts: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        WorkerOptions.load(**AD_HOC, **facts).card(None)


def test_caffe_means_bgr() -> None:
    card = WorkerOptions.load(**AD_HOC, scale="caffe").card(None)
    assert card.channels is Channels.BGR
    assert card.normalisation.mode == "caffe"


@pytest.mark.parametrize("scale", ["tensorflow", "1", "1,0", "1,2,3", "1,2,3,4,5", "nan,1", "a,b"])
def test_a_scale_that_is_none_is_refused(scale: str) -> None:
    with pytest.raises(UsageError):
        WorkerOptions.load(**AD_HOC, scale=scale)


def test_numbers_may_be_a_scale() -> None:
    card = WorkerOptions.load(**AD_HOC, scale="122.782,117.001,104.298,255").card(None)
    assert card.normalisation.mean_and_scale() == ((122.782, 117.001, 104.298), (255.0,))


@pytest.mark.parametrize("scale", ["torch", "1,2,3,4"])
def test_three_means_do_not_go_with_one_channel(scale: str) -> None:
    with pytest.raises(UsageError):
        WorkerOptions.load(**AD_HOC, scale=scale, channels="L").card(None)


def test_a_saved_model_without_a_card_needs_its_size() -> None:
    options = WorkerOptions.load(saved_model="/m", name="m")
    with pytest.raises(UsageError, match="size"):
        options.card(None)


@pytest.mark.parametrize("name", ["a b", "../a", ":1", "a/b", "a:1", "a\n", "-a"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="does not name a model"):
        WorkerOptions.load(saved_model="/m", name=name, size="8")


def bundled(**facts: Any) -> Card:
    """The card of a bundle, with little of it as an option would have it by itself."""
    basic = {
        "name": "theirs",
        "version": "3",
        "height": 32,
        "width": 48,
        "signature": "classify",
        "tags": ("myTag",),
        "channels": "BGR",
        "normalisation": {"mode": "tf"},
        "resize": "crop",
        "filter": "lanczos",
        "scores": "logits",
        "label_offset": 1,
        "top_k": 2,
        "digest": "sha256:" + 64 * "d",
    }
    return Card.make(**(basic | facts))


def beside(card: Card, **facts: str | int | bool) -> Card:
    """What these options make of a bundle's card."""
    return WorkerOptions.load(saved_model="/m", name="mine", **facts).card(card)


def test_nothing_given_leaves_a_card_as_it_is_but_for_its_name() -> None:
    expected = bundled().model_copy(update={"name": "mine", "version": None})
    assert beside(bundled()) == expected
    assert WorkerOptions.load(saved_model="/m", name="mine").facts() == {}


@pytest.mark.parametrize(
    ("given", "fact", "value"),
    [
        ({"size": "8x16"}, "height", 8),
        ({"size": "8x16"}, "width", 16),
        ({"scale": "none"}, "normalisation", Normalisation()),
        ({"scale": "torch"}, "normalisation", Normalisation(mode="torch")),
        ({"channels": "RGB"}, "channels", Channels.RGB),
        ({"resize": "stretch"}, "resize", ResizeMethod.STRETCH),
        ({"filter": "bilinear"}, "filter", ResizeFilter.BILINEAR),
        ({"label_offset": 0}, "label_offset", 0),
        ({"logits": False}, "scores", "probabilities"),
        ({"tags": "serve"}, "tags", ("serve",)),
        ({"signature": "serving_default"}, "signature", "serving_default"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_a_fact_that_is_given_wins_over_the_card(
    given: dict[str, str | int | bool], fact: str, value: object
) -> None:
    """Even where it is what would be taken for granted without a card."""
    card = beside(bundled(), **given)
    assert getattr(card, fact) == value
    changed = {
        name
        for name in Card.model_fields
        if getattr(card, name) != getattr(bundled(), name) and name not in ("name", "version")
    }
    assert changed == ({"height", "width"} if "size" in given else {fact})


def test_a_fact_of_the_environment_wins_over_the_card_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_SCALE", "none")
    assert beside(bundled()).normalisation == Normalisation()


def test_operations_win_over_the_signature_of_a_card() -> None:
    card = beside(bundled(), input_op="in", output_op="out")
    assert (card.signature, card.input_op, card.output_op) == (None, "in", "out")


def test_caffe_turns_the_channels_of_a_card_round() -> None:
    assert beside(bundled(channels="RGB"), scale="caffe").channels is Channels.BGR


def test_facts_that_do_not_go_with_the_card_are_refused() -> None:
    with pytest.raises(UsageError, match="BGR"):
        beside(bundled(normalisation={"mode": "caffe"}), channels="RGB")


def test_an_error_of_no_one_variable_names_none() -> None:
    with pytest.raises(UsageError) as caught:
        WorkerOptions.load()
    assert "MILLRACE_" not in caught.value.message


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert WorkerOptions.load(model="m").cache == str(tmp_path / "millrace")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert WorkerOptions.load(model="m").cache == str(tmp_path / ".cache" / "millrace")
