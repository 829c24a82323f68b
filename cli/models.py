"""`millrace models`: what a repository holds; `pull`, `push` and `rm` between repositories."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.cli import options as o
from millrace.cli.command import command, confirm, on_command_line, print_json, refuse_silence

if TYPE_CHECKING:
    from millrace.core.repository import Repository
    from millrace.core.shelf import ListedModel
    from millrace.core.storage import Stores

models_app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelName = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="The highest version, or the one named.")
]
From = Annotated[
    str | None,
    typer.Option(
        "--from", envvar="MILLRACE_FROM", help="Repository to copy from: a directory or URL."
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", envvar="MILLRACE_TO", help="Repository to copy to: a directory or URL."),
]


@models_app.callback()
@command
def list_models(ctx: typer.Context, models: o.Models = None, as_json: o.AsJson = False) -> None:
    """List a repository's models, or copy and remove them."""
    if ctx.invoked_subcommand is not None:
        _refuse_given(ctx)
        return
    from millrace.core.shelf import listed

    _, repository = _repository(models)
    rows = listed(repository)
    print_json([asdict(row) for row in rows]) if as_json else _show(rows)


@models_app.command()
@command
def pull(
    ctx: typer.Context,
    model: ModelName,
    source: From = None,
    target: To = None,
    models: o.Models = None,
    as_json: o.AsJson = False,
) -> None:
    """Copy a model --from another repository into ours, or --to a third."""
    _copy(model, source, _said(ctx, "target", target, models), as_json, missing="--from")


@models_app.command()
@command
def push(
    ctx: typer.Context,
    model: ModelName,
    target: To = None,
    source: From = None,
    models: o.Models = None,
    as_json: o.AsJson = False,
) -> None:
    """Copy a model of our repository, or of one it is --from, --to another."""
    _copy(model, _said(ctx, "source", source, models), target, as_json, missing="--to")


@models_app.command()
@command
def rm(
    model: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version to remove.")],
    claim: Annotated[
        bool,
        typer.Option(
            "--claim",
            envvar="MILLRACE_CLAIM",
            help="Remove only the claim of a publisher who was killed.",
        ),
    ] = False,
    yes: o.Yes = False,
    models: o.Models = None,
    as_json: o.AsJson = False,
) -> None:
    """Remove one version of a model."""
    from millrace.core.model_ref import ModelRef
    from millrace.export import transfer

    ref = ModelRef.parse(model)
    refuse_silence("remove it", yes=yes, as_json=as_json)
    stores, repository = _repository(models)
    shelf = transfer.removable(ref, repository, claim=claim)
    if said := transfer.claimant(stores, ref, repository):
        print(f"{ref} was left unfinished, or is {said}", file=sys.stderr)
    if not yes:
        what = f"the claim to {ref} in" if claim else f"{ref} from"
        busy = shelf.claimed or not shelf.complete
        doubt = ": is nobody publishing, replacing or removing it now" if busy else ""
        confirm(f"Remove {what} {repository.location}{doubt}?", otherwise="nothing was removed")
    if claim:
        transfer.remove_claim(stores, ref, repository)
        removed = 1
    else:
        removed = transfer.remove(stores, ref, repository)
    if as_json:
        print_json({"name": ref.name, "version": ref.version, "objects_removed": removed})
    else:
        print(f"removed {ref}: {removed:,} object{'' if removed == 1 else 's'}")


def _refuse_given(ctx: typer.Context) -> None:
    """What stands before the sub-command would be passed over: of all things, which repository."""
    from millrace.core.errors import UsageError

    for name, flag in (("models", "--models"), ("as_json", "--json")):
        if on_command_line(ctx, name):
            command = ctx.invoked_subcommand
            raise UsageError(
                f"{flag} goes after `{command}`:  millrace models {command} … {flag} …"
            )


def _said(ctx: typer.Context, name: str, place: str | None, models: str | None) -> str | None:
    """The place, or else our repository; --models on the command line goes before a variable."""
    if on_command_line(ctx, "models") and not on_command_line(ctx, name):
        return models
    return place or models


def _copy(
    model: str, source: str | None, target: str | None, as_json: bool, *, missing: str
) -> None:
    from millrace.core.errors import UsageError
    from millrace.core.model_ref import ModelRef
    from millrace.export import transfer

    ref = ModelRef.parse(model)
    if (source if missing == "--from" else target) is None:
        raise UsageError(f"say {missing} which repository: a directory or URL")
    stores, origin = _repository(source)
    _, goal = _repository(target)
    if goal.location == origin.location:
        raise UsageError(f"{goal.location} cannot be copied to itself")
    copied = transfer.copy(stores, ref, origin, goal)
    done = {
        "name": copied.name,
        "version": copied.version,
        "digest": copied.digest,
        "location": copied.location.uri,
        "copied": copied.new,
    }
    if as_json:
        print_json(done)
    else:
        verb = "copied to" if copied.new else "stands already, the same, at"
        print(f"{copied.name}:{copied.version} {verb} {copied.location}")
        print(f"  {copied.digest}")


def _repository(place: str | None) -> tuple[Stores, Repository]:
    """The repository at a place, or the one that is configured. Raises UsageError."""
    from millrace.core.services import Services
    from millrace.core.settings import Settings

    services = Services(Settings.load(models=place))
    return services.stores, services.repository()


def _show(rows: list[ListedModel]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from millrace.cli.show import print_table
    from millrace.core.sizes import shown_bytes

    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("model", "task", "input", "labels", "size", "digest"):
        table.add_column(name, justify="right" if name in ("labels", "size") else "left")
    for row in rows:
        told = (row.task or "", row.input or "", "" if row.labels is None else f"{row.labels:,}")
        digest = (row.digest or "-").removeprefix("sha256:")[:12]
        last = f"[red]{escape(row.problem)}[/]" if row.problem else digest
        last += "  [yellow]claimed[/]" if row.claimed else ""
        table.add_row(f"{row.name}:{row.version}", *told, shown_bytes(row.bytes), last)
    print_table(table if rows else "no models")
