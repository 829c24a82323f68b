"""`millrace inspect`: what is in a SavedModel, and how a worker would use it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    from millrace.cli.model_trial import Trial
    from millrace.core.bundle import Bundle
    from millrace.export.inspect import GraphFacts, SavedModelFacts

ASSUMED_SIDE = 224
"""Tried where the graph takes any size."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A SavedModel, what became of trying each of its graphs, and its card, if it has one."""

    facts: SavedModelFacts
    trials: dict[tuple[str, ...], Trial]
    sizes: dict[tuple[str, ...], tuple[int, int]]
    """Height and width each was tried with."""
    bundle: Bundle | None
    card_problem: str | None


@command
def inspect(
    model: o.ModelArgument,
    ops: Annotated[
        bool,
        typer.Option("--ops", envvar="MILLRACE_OPS", help="List every operation, and no more."),
    ] = False,
    graph: Annotated[
        Path | None,
        typer.Option(
            envvar="MILLRACE_GRAPH",
            help="Also write the graph there, for `tensorboard --logdir DIRECTORY`.",
        ),
    ] = None,
    size: o.Size = None,
    models: o.Models = None,
    as_json: o.AsJson = False,
) -> None:
    """Show what a SavedModel takes and answers, how to serve it, and what runs it.

    It is run once by each engine, to see whether that works; with --ops it is only read.
    """
    from millrace.cli import show_model
    from millrace.cli.model_places import saved_model_directory
    from millrace.core.log import configure
    from millrace.export.inspect import read_saved_model
    from millrace.worker.options import parse_size

    configure("error")
    wanted = parse_size(size) if size else None
    facts = read_saved_model(saved_model_directory(model, models))
    if graph is not None:
        from millrace.export.inspect_events import write_graphs

        for file in write_graphs(facts.graphs, graph.expanduser()):
            print(f"millrace: wrote {file}", file=sys.stderr)
    if ops:
        print_json(show_model.operations(facts)) if as_json else show_model.list_operations(facts)
        return
    found = _inspected(facts, wanted)
    print_json(show_model.as_json(found)) if as_json else show_model.show(found)


def _inspected(facts: SavedModelFacts, wanted: tuple[int, int] | None) -> Inspected:
    from millrace.cli.model_trial import try_out

    bundle, problem = _bundle(facts.path)
    found = Inspected(facts, {}, {}, bundle, problem)
    for graph in facts.graphs:
        trial = _bundle_to_try(bundle, facts.path, graph, wanted)
        if trial is not None:
            found.trials[graph.tags] = try_out(trial)
            found.sizes[graph.tags] = (trial.card.height, trial.card.width)
    return found


def _bundle(path: Path) -> tuple[Bundle | None, str | None]:
    """The bundle, if it is one; what is wrong with its card, if something is."""
    from millrace.core.bundle import read_bundle
    from millrace.core.card import CARD_FILE
    from millrace.core.errors import MillraceError

    if not (path / CARD_FILE).is_file():
        return None, None
    try:
        return read_bundle(path), None
    except MillraceError as error:
        return None, error.message


def _bundle_to_try(
    bundle: Bundle | None, path: Path, graph: GraphFacts, wanted: tuple[int, int] | None
) -> Bundle | None:
    """As its card says, or as it looks. None if it does not look like a model of images."""
    from millrace.core.bundle import Bundle
    from millrace.core.errors import UsageError

    if bundle is not None and set(bundle.card.tags) == set(graph.tags):
        return bundle
    interface = graph.interface
    if interface is None or not interface.takes_images:
        return None
    height, width = wanted or interface.size or (ASSUMED_SIDE, ASSUMED_SIDE)
    try:
        card = interface.card(height, width)
    except UsageError:  # of a size beyond what a card holds
        return None
    return Bundle(path, card.model_copy(update={"digest": "sha256:" + 64 * "0"}), ())
