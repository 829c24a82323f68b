"""What `millrace train` does: read the data, train in the run's directory, make the bundle."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from millrace.cli import show
from millrace.cli.ctrl_c import CtrlC
from millrace.cli.model_check import refuse_disagreement
from millrace.cli.training_progress import training_progress
from millrace.core.errors import ObjectNotFound
from millrace.core.repository import Repository, local_path
from millrace.core.settings import Settings
from millrace.core.storage import Location, Stores
from millrace.export import export_keras
from millrace.export.bundle import check_version
from millrace.export.facts import Facts
from millrace.models.labelled import Dataset, check_holdout
from millrace.models.recipes import Recipe
from millrace.models.run_directory import RUN, RunDirectory, check_place, open_run
from millrace.models.train import Trained, train
from millrace.models.training import Watch
from millrace.models.training_data import load_data, load_digits


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """How the model is published; `to` is a repository, or None for the run's own directory."""

    name: str
    version: str | None
    """The next one if it is not said."""
    to: str | None
    tags: str

    def facts(self) -> Facts:
        return Facts(name=self.name, version=self.version, tags=tuple(self.tags.split(",")))


@dataclass(frozen=True, slots=True)
class Training:
    """What is asked for. `data` of None are scikit-learn's digits."""

    recipe: Recipe
    data: Path | None
    run: Path
    holdout: float | None
    resume: bool
    bundle: BundleOptions


def run_training(asked: Training, *, quiet: bool) -> dict[str, Any]:
    """Train, or go on, and publish; returns what came of it. `quiet` shows no progress.

    Everything that can be refused is refused before the first epoch.
    """
    settings = Settings.load()
    _check(asked, settings)
    with CtrlC() as ctrl_c:
        data = _data(asked)
        if data.skipped and not quiet:
            _tell(f"skipped {len(data.skipped):,} files that are no pictures: {data.skipped[0]} …")
        with open_run(asked.run) as run:
            try:
                trained = _train(asked, data, run, ctrl_c, quiet)
                place = _publish(asked, data, trained, run, settings)
            except KeyboardInterrupt:
                kept = f"{len(run.state().epochs)} of {asked.recipe.plan.epochs} epochs"
                _tell(f"{run.path} keeps {kept}; the same command goes on with them")
                raise
    return {
        "run": str(asked.run),
        "recipe": asked.recipe.name,
        "accuracy": trained.result.accuracy,
        "loss": trained.result.loss,
        "epochs": trained.result.epochs,
        "resumed_after": trained.resumed_after,
        "seconds": trained.result.seconds,
        "seen": len(data.seen),
        "unseen": len(data.unseen),
        "skipped": len(data.skipped),
        "classes": list(data.classes),
        "bundle": str(local_path(place) or place),
    }


def show_trained(report: dict[str, Any]) -> None:
    """For people."""
    table = show.grid()
    table.add_row("run", escape(report["run"]))
    table.add_row("accuracy", f"{report['accuracy']:.2%} of {report['unseen']:,} unseen pictures")
    table.add_row("loss", f"{report['loss']:.4f}")
    again = f", {report['resumed_after']} of them before" if report["resumed_after"] else ""
    table.add_row("epochs", f"{report['epochs']}{again}, {report['seconds']:,.1f} s")
    table.add_row("learnt from", f"{report['seen']:,} pictures, {len(report['classes'])} classes")
    table.add_row("bundle", escape(report["bundle"]))
    show.print_table(table)


def _check(asked: Training, settings: Settings) -> None:
    bundle = asked.bundle
    bundle.facts().check()
    check_place(asked.run)
    if asked.holdout is not None:
        check_holdout(asked.holdout)
    if asked.resume and not (asked.run / RUN).is_file():
        raise ObjectNotFound(f"{asked.run} holds no training run to go on with")
    if bundle.to is not None:
        repository = Repository(Stores(settings), Location.parse(bundle.to))
        check_version(repository, bundle.name, bundle.version)


def _data(asked: Training) -> Dataset:
    facts = asked.recipe.architecture
    if asked.data is None:
        return load_digits(facts, asked.holdout)
    return load_data(asked.data, facts, asked.holdout)


def _train(
    asked: Training, data: Dataset, run: RunDirectory, ctrl_c: CtrlC, quiet: bool
) -> Trained:
    with training_progress(asked.recipe.plan.epochs, quiet=quiet) as shown:

        def batch(done: int, of: int) -> None:
            ctrl_c.check()
            shown.batch(done, of)

        return train(
            asked.recipe,
            data,
            run,
            source=str(asked.data.resolve()) if asked.data else "scikit-learn",
            holdout=asked.holdout,
            watch=Watch(batch, shown.epoch),
        )


def _publish(
    asked: Training, data: Dataset, trained: Trained, run: RunDirectory, settings: Settings
) -> Location:
    facts, bundle = asked.recipe.architecture, asked.bundle
    beside = run.path / ".unfinished-bundle"
    shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
    place = export_keras(
        trained.model,
        name=bundle.name,
        version=bundle.version,
        repository=bundle.to or str(beside),
        labels=data.classes,
        scale=facts.scale,
        channels=facts.channels,
        tag=bundle.tags,
        settings=settings,
        check=refuse_disagreement,
    )
    if bundle.to is not None:
        return place
    run.put_bundle(beside)
    return Location.parse(str(run.bundle)).child(bundle.name).child(Path(place.root).name)


def _tell(text: str) -> None:
    print(f"millrace: {text}", file=sys.stderr)
