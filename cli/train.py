"""`millrace train`: a model from pictures, in a run that may stop and go on, and its bundle."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from millrace.cli import options as o
from millrace.cli.command import command, on_command_line, print_json

FINE_TUNE = "fine-tune"
OF_FINE_TUNING = ("base", "weights", "size", "unfreeze", "frozen_epochs")


@command
def train(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="mnist-softmax, mnist-cnn, digits or fine-tune."),
    ],
    run: Annotated[
        str,
        typer.Option(
            "--run", envvar="MILLRACE_RUN", help="The run's directory; an unfinished run goes on."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_DATA",
            help="Directory of MNIST's idx files, or of a folder of pictures for each class. "
            "digits: by default those of scikit-learn.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(envvar="MILLRACE_EPOCHS", min=1, help="Passes over the pictures.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(envvar="MILLRACE_TRAIN_BATCH_SIZE", min=1, help="Pictures to a step."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(envvar="MILLRACE_LEARNING_RATE", help="Of the optimizer, which is Adam."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            envvar="MILLRACE_SEED", min=0, max=2**31 - 1, help="Equal seeds train equal models."
        ),
    ] = 0,
    holdout: Annotated[
        float | None,
        typer.Option(
            envvar="MILLRACE_HOLDOUT", help="Share of the pictures that the model is judged by."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_BASE", help="fine-tune: the architecture; default mobilenet_v2."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_WEIGHTS",
            help="fine-tune: the base's, imagenet (default), none or a file of weights.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(envvar="MILLRACE_SIZE", help="fine-tune: input size, 224 or HEIGHTxWIDTH."),
    ] = None,
    unfreeze: Annotated[
        int | None,
        typer.Option(
            envvar="MILLRACE_UNFREEZE",
            min=0,
            help="fine-tune: how many of the base's top layers learn too; default 20.",
        ),
    ] = None,
    frozen_epochs: Annotated[
        int | None,
        typer.Option(
            envvar="MILLRACE_FROZEN_EPOCHS",
            min=0,
            help="fine-tune: epochs before they do; default: half of all.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", envvar="MILLRACE_RESUME", help="Only go on with a run; do not begin one."
        ),
    ] = False,
    name: Annotated[
        str | None, typer.Option(envvar="MILLRACE_NAME", help="Name of the bundle.")
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_VERSION", help="A whole number, for the bundle. Default: the next."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_TO", help="Model repository for the bundle; default: RUN/bundle."
        ),
    ] = None,
    tags: o.Tags = None,
    as_json: o.AsJson = False,
) -> None:
    """Train a model: mnist-softmax, mnist-cnn, digits, or fine-tune a base to your classes."""
    from pathlib import Path

    from millrace.cli.training import BundleOptions, Training, run_training, show_trained
    from millrace.core.load_tensorflow import load_tensorflow
    from millrace.core.log import configure

    configure("warning")
    _check(ctx, recipe, data, learning_rate)
    load_tensorflow()  # what it comes with is needed from here on
    from millrace.models.fine_tune import Base, Thaw, fine_tuning
    from millrace.models.recipes import Asked, classifier

    asked = Asked(epochs, batch_size, learning_rate, seed)
    if recipe == FINE_TUNE:
        thaw = Thaw(20 if unfreeze is None else unfreeze, frozen_epochs)
        chosen = fine_tuning(_base(Base, base, weights, size), thaw, asked)
    else:
        chosen = classifier(recipe, asked)
    training = Training(
        recipe=chosen,
        data=None if data is None else Path(data).expanduser(),
        run=Path(run).expanduser(),
        holdout=holdout,
        resume=resume,
        bundle=BundleOptions(name or chosen.model, version, to, "serve" if tags is None else tags),
    )
    report = run_training(training, quiet=as_json)
    print_json(report) if as_json else show_trained(report)


def _check(ctx: typer.Context, recipe: str, data: str | None, learning_rate: float | None) -> None:
    """What can be told before TensorFlow is there. Raises UsageError."""
    from millrace.core.errors import UsageError

    names = ("mnist-softmax", "mnist-cnn", "digits", FINE_TUNE)
    if recipe not in names:
        raise UsageError(f"there is no recipe {recipe!r}", hint=f"there are {', '.join(names)}")
    if data is None and recipe != "digits":
        raise UsageError(f"{recipe} needs pictures", hint="--data DIR")
    if learning_rate is not None and not 0 < learning_rate < 1000:
        raise UsageError(f"--learning-rate is a number above 0, not {learning_rate:g}")
    for name in OF_FINE_TUNING if recipe != FINE_TUNE else ():
        if on_command_line(ctx, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} goes with {FINE_TUNE}, not with {recipe}")


def _base(kind: Any, base: str | None, weights: str | None, size: str | None) -> Any:
    """The base to fine-tune. Raises UsageError, and ModelNotFound for weights that are no file."""
    from millrace.models import IMAGENET, RANDOM
    from millrace.models.weights import weights_file
    from millrace.worker.options import parse_size

    weights = weights or IMAGENET
    if weights not in (IMAGENET, RANDOM):
        weights = str(weights_file(weights))
    return kind(
        name=base or "mobilenet_v2",
        weights=None if weights == RANDOM else weights,
        size=None if size is None else parse_size(size),
    )
