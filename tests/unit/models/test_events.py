"""Event files hold each epoch once, in the form TensorBoard's scalars have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.events import EventFiles
from millrace.models.training_record import Epoch


def epoch(number: int) -> Epoch:
    return Epoch(
        number=number,
        loss=1 / number,
        accuracy=0.25,
        unseen_loss=2 / number,
        unseen_accuracy=0.5,
        seconds=1,
    )


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Name → step → value, of all event files of a folder."""
    tf = load_tensorflow()
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.iterdir()):
        for raw in tf.data.TFRecordDataset(str(file)):
            event: Any = tf.compat.v1.Event.FromString(raw.numpy())
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                assert event.step not in steps
                steps[event.step] = float(tf.make_ndarray(value.tensor))
                if len(steps) == 1:  # only the first of a name carries it
                    assert value.metadata.plugin_data.plugin_name == "scalars"
    return found


def test_loss_and_accuracy_of_both_are_written(tmp_path: Path) -> None:
    events = EventFiles(tmp_path / "logs", [])
    for number in (1, 2):
        events.write(epoch(number))
    events.close()
    assert scalars(tmp_path / "logs" / "train") == {
        "loss": {1: 1.0, 2: 0.5},
        "accuracy": {1: 0.25, 2: 0.25},
    }
    unseen = scalars(tmp_path / "logs" / "unseen")
    assert unseen["loss"] == {1: 2.0, 2: 1.0}
    assert unseen["accuracy"] == pytest.approx({1: 0.5, 2: 0.5})


def test_what_was_written_before_an_interruption_is_there_once(tmp_path: Path) -> None:
    first = EventFiles(tmp_path, [])
    for number in (1, 2):
        first.write(epoch(number))
    first.close()
    # Killed after the second epoch was shown and before it was on record.
    second = EventFiles(tmp_path, [epoch(1)])
    second.write(epoch(2))
    second.close()
    assert set(scalars(tmp_path / "train")["loss"]) == {1, 2}
