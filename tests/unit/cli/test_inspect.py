"""`millrace inspect`: what is in a SavedModel, and what runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from millrace.core.card import CARD_FILE
from millrace.core.errors import ExitCode
from tests.unit.cli.conftest import Invoke
from tests.unit.export.test_inspect import read_events, several_graphs
from tests.unit.worker.saved_models import CLASSES, SIDE, Workshop


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("inspected"))


def inspected(run: Invoke, *arguments: str) -> Any:
    said = run("inspect", *arguments, "--json")
    assert said.code == 0, said
    return json.loads(said.out)


def test_a_bundle_shows_its_card_and_runs(run: Invoke, repository: Path) -> None:
    found = inspected(run, "tiny", "--models", str(repository))
    assert found["path"] == str(repository / "tiny" / "1")
    assert (found["card"]["name"], found["labels"], found["intact"]) == ("tiny", 4, True)
    (graph,) = found["graphs"]
    trial = graph["trial"]
    assert (trial["tensorflow"]["runs"], trial["frozen"]) == (True, True)
    assert trial["tensorflow"]["output"] == [4]
    assert trial["openvino"]["runs"]
    assert graph["likely"]["flags"] == "--size 8 --channels L"


def test_people_see_the_same(run: Invoke, repository: Path) -> None:
    shown = run("inspect", str(repository / "tiny" / "1")).out
    for words in ("tiny:1, classification", "8 × 8 L", "4 labels", "signature", "freezes", "yes"):
        assert words in shown


def test_without_a_card_it_says_how_to_serve_it(run: Invoke, made: Workshop) -> None:
    path = str(made("by_operations").path)
    flags = f"--tags myTag --input-op input_1 --output-op inferenceLayer/Softmax --size {SIDE}"
    assert flags in run("inspect", path).out
    (graph,) = inspected(run, path)["graphs"]
    assert graph["likely"]["flags"] == flags
    assert graph["likely"]["input"]["shape"] == [None, SIDE, SIDE, 3]
    assert graph["trial"]["frozen"]
    assert graph["trial"]["tensorflow"]["output"] == [CLASSES]


def test_the_flags_are_those_a_worker_takes(run: Invoke, made: Workshop) -> None:
    import shlex

    from millrace.worker.options import WorkerOptions

    path = made("by_operations").path
    flags = shlex.split(inspected(run, str(path))["graphs"][0]["likely"]["flags"])
    given = {flags[n][2:].replace("-", "_"): flags[n + 1] for n in range(0, len(flags), 2)}
    options = WorkerOptions.load(saved_model=str(path), name="theirs", **given)
    card = options.card(None)
    assert (card.tags, card.input_op) == (("myTag",), "input_1")


@pytest.mark.parametrize(
    ("form", "frozen", "batch"),
    [
        ("with_a_table", False, None),
        ("of_one_image", True, 1),
        ("of_a_hidden_one", True, 1),
        ("of_bytes", True, None),
    ],
)
def test_it_is_tried(
    form: str, frozen: bool, batch: int | None, run: Invoke, made: Workshop
) -> None:
    trial = inspected(run, str(made(form).path))["graphs"][0]["trial"]
    assert (trial["frozen"], trial["tensorflow"]["batch"]) == (frozen, batch)
    assert (trial["why_not_frozen"] is None) is frozen


def test_what_does_not_run_says_why(run: Invoke, made: Workshop) -> None:
    path = str(made("of_doubles").path)
    trial = inspected(run, path)["graphs"][0]["trial"]
    assert (trial["tensorflow"]["runs"], trial["frozen"]) == (False, None)
    assert "float64" in trial["tensorflow"]["why"]
    assert not trial["openvino"]["runs"]
    assert "float64" in run("inspect", path).out


def test_a_size_can_be_said_where_the_graph_takes_any(run: Invoke, made: Workshop) -> None:
    path = str(made("of_any_size").path)
    (graph,) = inspected(run, path)["graphs"]
    assert graph["tried_with"] == [224, 224]
    assert not graph["trial"]["tensorflow"]["runs"]  # its weights are for another
    (graph,) = inspected(run, path, "--size", str(SIDE))["graphs"]
    assert (graph["tried_with"], graph["trial"]["frozen"]) == ([SIDE, SIDE], True)
    assert run("inspect", path, "--size", "wide").code == ExitCode.USAGE


def test_what_is_no_model_of_images_is_shown_and_not_tried(run: Invoke, made: Workshop) -> None:
    path = str(made("of_vectors").path)
    assert inspected(run, path)["graphs"][0]["trial"] is None
    assert "not tried" in run("inspect", path).out


def test_truncated_variables_are_told(run: Invoke, made: Workshop, tmp_path: Path) -> None:
    path = Path(shutil.copytree(made("by_operations").path, tmp_path / "cut"))
    (data,) = (path / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:100])
    trial = inspected(run, str(path))["graphs"][0]["trial"]
    assert not trial["tensorflow"]["runs"]
    assert trial["tensorflow"]["why"]


def test_every_graph_is_tried(run: Invoke, made: Workshop, tmp_path: Path) -> None:
    graphs = inspected(run, str(several_graphs(tmp_path / "several", made)))["graphs"]
    assert [(graph["tags"], graph["trial"]["frozen"]) for graph in graphs] == [
        (["train"], True),
        (["serve", "gpu"], True),
    ]


def test_operations_are_listed(run: Invoke, made: Workshop) -> None:
    path = str(made("by_operations").path)
    lines = run("inspect", path, "--ops").out.splitlines()
    assert "input_1 Placeholder" in lines
    assert "inferenceLayer/Softmax Softmax" in lines
    rows = inspected(run, path, "--ops")
    assert {"tags": ["myTag"], "name": "input_1", "type": "Placeholder", "function": None} in rows
    inner = run("inspect", str(made("with_a_branch").path), "--ops").out
    assert " in __inference_" in inner


def test_the_graph_is_written_for_tensorboard(run: Invoke, made: Workshop, tmp_path: Path) -> None:
    said = run(
        "inspect", str(made("by_operations").path), "--ops", "--graph", str(tmp_path / "log")
    )
    (file,) = (tmp_path / "log").iterdir()
    assert str(file) in said.err
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString(read_events(file)[1].graph_def)
    assert "inferenceLayer/Softmax" in {node.name for node in graph.node}


def test_a_place_that_cannot_be_written_is_one_line(
    run: Invoke, made: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    said = run("inspect", str(made("by_operations").path), "--graph", str(tmp_path / "file"))
    assert said.code == ExitCode.UNAVAILABLE
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("content", "says"), [("{", "Invalid JSON"), ('{"schema_version": 2}', "schema_version")]
)
def test_a_card_that_cannot_be_read_is_told_and_the_graph_shown(
    content: str, says: str, run: Invoke, repository: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(repository / "tiny" / "1", tmp_path / "tiny"))
    (path / CARD_FILE).write_text(content)
    found = inspected(run, str(path))
    assert found["card"] is None
    assert says in found["card_problem"]
    assert found["graphs"][0]["trial"]["frozen"]


def test_files_that_are_not_those_of_the_digest_are_told(
    run: Invoke, repository: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(repository / "tiny" / "1", tmp_path / "tiny"))
    with (path / "assets.extra" / "labels.txt").open("a") as labels:
        labels.write("more\n")
    assert inspected(run, str(path))["intact"] is False
    assert "not that of its files" in run("inspect", str(path)).out


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("{0}", ExitCode.NOT_FOUND),
        ("{0}/nowhere", ExitCode.NOT_FOUND),
        ("nowhere", ExitCode.NOT_FOUND),
        ("no where!", ExitCode.USAGE),
        ("{0}/torn", ExitCode.MODEL),
        ("{0}/model.keras", ExitCode.MODEL),
    ],
)
def test_what_is_none_is_an_error(model: str, code: int, run: Invoke, tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "saved_model.pb").write_bytes(b"\x0a\xff\xff")
    (tmp_path / "model.keras").write_bytes(b"zip")
    said = run("inspect", model.format(tmp_path))
    assert said.code == code, said
    assert "Traceback" not in said.err


def test_the_file_itself_stands_for_its_directory(run: Invoke, made: Workshop) -> None:
    path = made("by_operations").path
    assert inspected(run, str(path / "saved_model.pb"), "--ops")


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("mobilenet_v1_025_224/1", None),
        ("mobilenet_v1_025_224_myTag_v1", None),
        ("face_landmarks_68_myTag", 1),
    ],
)
def test_real_models_are_frozen_and_taken_by_openvino(
    name: str, batch: int | None, run: Invoke, real: Path
) -> None:
    (graph,) = inspected(run, str(real / "savedmodels" / name))["graphs"]
    trial = graph["trial"]
    assert (trial["frozen"], trial["tensorflow"]["batch"]) == (True, batch)
    assert (trial["openvino"]["runs"], trial["openvino"]["batch"]) == (True, batch)
