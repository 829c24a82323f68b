"""Train a recipe in a run directory: begin it, or go on with it where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from millrace.core.errors import BadData, Conflict
from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.events import EventFiles
from millrace.models.labelled import Dataset
from millrace.models.recipes import Recipe
from millrace.models.run_directory import RUN, RunDirectory
from millrace.models.training import Watch, fit
from millrace.models.training_record import (
    DataSummary,
    Flag,
    Result,
    RunRecord,
    installed_versions,
)


@dataclass(frozen=True, slots=True)
class Trained:
    """The finished `keras.Model`. `resumed_after` epochs were there already when we came."""

    model: Any
    result: Result
    resumed_after: int


def train_in_memory(recipe: Recipe, data: Dataset, watch: Watch | None = None) -> Any:
    """A trained `keras.Model`, with nothing on record."""
    model = _new(recipe, data)
    recipe.begin(model)
    for _ in fit(model, data, recipe.architecture, recipe.plan, watch=watch):
        pass
    return model


def train(
    recipe: Recipe,
    data: Dataset,
    run: RunDirectory,
    *,
    source: str,
    holdout: float | None = None,
    watch: Watch | None = None,
) -> Trained:
    """Train until the plan is done; a finished run is not trained again.

    `source` is where the data comes from, for people. Raises Conflict if the directory holds a
    run with other flags or on other data, BadData if it is damaged, and ModelError.
    """
    asked = _record(recipe, data, source, holdout)
    stands = (run.path / RUN).exists()
    if stands:
        refuse_another(run, asked)
    model, state = _new(recipe, data), run.state()
    done, checkpoint = len(state.epochs), run.checkpoint()
    if checkpoint is None:
        recipe.begin(model)
    if not stands:  # and not before its first weights are there, which may have to be fetched
        run.begin(asked)
    events = EventFiles(run.logs, state.epochs)
    try:
        epochs = fit(
            model,
            data,
            recipe.architecture,
            recipe.plan,
            watch=watch,
            done=done,
            restore=_restore(checkpoint) if checkpoint else None,
        )
        for epoch in epochs:
            state = run.commit(epoch, model.save_weights)
            events.write(epoch)
    finally:
        events.close()
    result = run.result()
    if result is None:
        last = state.epochs[-1]
        result = Result(
            accuracy=last.unseen_accuracy,
            loss=last.unseen_loss,
            epochs=len(state.epochs),
            seconds=round(sum(epoch.seconds for epoch in state.epochs), 3),
            finished_at=datetime.now(UTC),
        )
        run.finish(result)
    return Trained(model, result, done)


def refuse_another(run: RunDirectory, asked: RunRecord) -> None:
    """Raises Conflict, naming the first difference, unless `run` is the run that is asked for."""
    stands = run.record()
    differences = [
        f"{name} is {_said(stands, name)} there and {_said(asked, name)} here"
        for name in ("recipe", *(stands.flags | asked.flags))
        if _said(stands, name) != _said(asked, name)
    ]
    if stands.data.digest != asked.data.digest:
        differences.append("its pictures were others")
    if differences:
        raise Conflict(
            f"{run.path} holds another run: {', '.join(differences)}",
            hint="give each run a directory of its own",
        )


def _said(record: RunRecord, name: str) -> Flag:
    return record.recipe if name == "recipe" else record.flags.get(name)


def _record(recipe: Recipe, data: Dataset, source: str, holdout: float | None) -> RunRecord:
    summary = DataSummary(
        source=source,
        seen=len(data.seen),
        unseen=len(data.unseen),
        classes=data.classes,
        skipped=len(data.skipped),
        digest=data.digest(),
    )
    return RunRecord(
        recipe=recipe.name,
        flags={**recipe.flags, "holdout": holdout},
        data=summary,
        versions=installed_versions(),
        created_at=datetime.now(UTC),
    )


def _new(recipe: Recipe, data: Dataset) -> Any:
    load_tensorflow()  # before keras, which would load it with all its greetings
    import keras

    keras.utils.set_random_seed(recipe.plan.seed)
    return recipe.make(len(data.classes))


def _restore(checkpoint: Path) -> Callable[[Any], None]:
    def restore(model: Any) -> None:
        try:
            model.load_weights(checkpoint)
        except Exception as error:  # h5py and Keras raise nearly anything
            raise BadData(f"{checkpoint} cannot be read: {error}") from error

    return restore
