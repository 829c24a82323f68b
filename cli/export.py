"""`millrace export`: a model of any making becomes a bundle in a repository."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli import options as o
from millrace.cli.command import command, on_command_line, print_json

if TYPE_CHECKING:
    from millrace.export.bundle import Exported


@command
def export(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="An architecture, a .keras or .h5 model, a SavedModel's directory, or a .pb or "
            ".pbtxt graph.",
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_TO",
            help="Model repository: a directory or URL. Default: that of MILLRACE_MODELS.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_NAME", help="The model's name. Default: the source's."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_VERSION", help="A whole number. Default: the next."),
    ] = None,
    tags: Annotated[
        str | None,
        typer.Option(
            "--tags",
            "--tag",
            envvar="MILLRACE_TAGS",
            help="Tags of the graph to write, or to take from a SavedModel; comma-separated.",
        ),
    ] = None,
    signature: o.Signature = None,
    input_op: Annotated[
        str | None,
        typer.Option(
            "--input-op",
            "--input-name",
            envvar="MILLRACE_INPUT_OP",
            help="Input operation: of a Keras model to be written so (input_1), else to be found.",
        ),
    ] = None,
    output_op: Annotated[
        str | None,
        typer.Option(
            "--output-op",
            "--inference-name",
            envvar="MILLRACE_OUTPUT_OP",
            help="Output operation, likewise; of a Keras model after its last layer.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_WEIGHTS", help="Of an architecture: a file, imagenet or none (random)."
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_CHECKPOINT", help="Of a graph that is not frozen."),
    ] = None,
    size: o.Size = None,
    scale: o.Scale = None,
    channels: o.ChannelsOption = None,
    resize: o.Resize = None,
    resample: Annotated[
        str | None,
        typer.Option(
            "--filter",
            envvar="MILLRACE_FILTER",
            help="How pictures are resized: nearest, box, bilinear, bicubic or lanczos.",
        ),
    ] = None,
    labels: o.Labels = None,
    label_offset: o.LabelOffset = None,
    logits: o.Logits = None,
    top_k: o.TopK = None,
    force: Annotated[
        bool,
        typer.Option("--force", envvar="MILLRACE_FORCE", help="Replace a version that stands."),
    ] = False,
    as_json: o.AsJson = False,
) -> None:
    """Export a model into a repository: a SavedModel anyone can load, and how to feed it."""
    from pathlib import Path

    from millrace.cli.export_source import default_name, find_source
    from millrace.cli.model_check import refuse_disagreement
    from millrace.core.bundle import read_labels
    from millrace.core.card import Normalisation
    from millrace.core.errors import ModelNotFound, UsageError
    from millrace.core.log import configure
    from millrace.core.repository import Repository
    from millrace.core.settings import Settings
    from millrace.core.storage import Location, Stores
    from millrace.export.bundle import Destination, check_version, export_source
    from millrace.export.facts import Facts
    from millrace.models import architectures
    from millrace.worker.options import parse_size

    configure("warning")
    settings = Settings.load()
    repository = to or settings.models
    if not repository:
        raise UsageError("export it where?", hint="--to DIRECTORY or URL, or set MILLRACE_MODELS")
    height, width = parse_size(size) if size else (None, None)
    named = None
    if labels:
        file = Path(labels).expanduser()
        if not file.is_file():
            raise ModelNotFound(f"there is no labels file {labels}")
        named = read_labels(file)
        if not named:
            raise UsageError(f"{labels} holds no labels")
    said = Facts(
        name=name,
        version=version,
        tags=tuple(tags.split(",")) if tags else None,
        signature=signature,
        input_op=input_op,
        output_op=output_op,
        height=height,
        width=width,
        scale=Normalisation.parse(scale) if scale else None,
        channels=channels,
        resize=resize,
        filter=resample,
        labels=named,
        label_offset=label_offset,
        logits=logits,
        top_k=top_k,
    )
    default = Facts(name=default_name(source))
    said.over(default).check()  # before anything slow
    if source in architectures():
        place = Repository(Stores(settings), Location.parse(repository))
        check_version(place, name or source, version, force=force)
    elif not on_command_line(ctx, "weights"):
        weights = None  # of the environment, where they are meant for architectures
    found = find_source(source, said, weights=weights, checkpoint=checkpoint)
    found.facts = found.facts.over(default)
    exported = export_source(
        found,
        said,
        Destination(repository, force=force, settings=settings, check=refuse_disagreement),
    )
    if said.over(found.facts).scale is None and not exported.takes_bytes:
        print(
            "millrace: without --scale the model gets pixels of 0 to 255; if it learnt from "
            "others: --scale tf, caffe, torch or MEAN,SCALE",
            file=sys.stderr,
        )
    print_json(_as_json(exported)) if as_json else _show(exported)


def _as_json(exported: Exported) -> dict[str, Any]:
    return {
        "location": exported.location.uri,
        "input_op": exported.input_op,
        "output_op": exported.output_op,
        "labels": len(exported.labels),
        "card": exported.card.model_dump(mode="json"),
    }


def _show(exported: Exported) -> None:
    from rich.markup import escape

    from millrace.cli.show import grid, print_table

    card = exported.card
    takes = f"{card.height} × {card.width} {card.channels}, scale {card.normalisation.spelled}"
    table = grid()
    for what, value in (
        ("model", f"{card.name}:{card.version}"),
        ("location", exported.location.uri),
        ("digest", card.digest or ""),
        ("tags", ",".join(card.tags)),
        ("signature", card.signature or "none"),
        ("operations", f"{exported.input_op} → {exported.output_op}"),
        ("input", takes),
        ("labels", str(len(exported.labels) or "none")),
    ):
        table.add_row(what, escape(value))
    print_table(table)
