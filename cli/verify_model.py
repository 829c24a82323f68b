"""`millrace verify-model`: does a bundle answer as the model it was made of?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.cli import options as o
from millrace.cli.command import command, print_json

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from millrace.core.bundle import Bundle
    from millrace.export.predict import Predict

    Pixels = npt.NDArray[np.uint8]


@command
def verify_model(
    model: o.ModelArgument,
    source: Annotated[
        str | None,
        typer.Option(
            "--against",
            envvar="MILLRACE_AGAINST",
            help="The Keras model it was made of; by default its own graph, run unfrozen.",
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            envvar="MILLRACE_IMAGES",
            help="Pictures to compare on: a directory or URL; by default they are generated.",
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            envvar="MILLRACE_COUNT", min=1, max=10_000, help="Images to compare, at most."
        ),
    ] = 32,
    models: o.Models = None,
    as_json: o.AsJson = False,
) -> None:
    """Compare a bundle, run as a worker runs it, with its source on the same pixels."""
    from millrace.cli.model_check import compare_with
    from millrace.cli.model_places import saved_model_directory
    from millrace.core.bundle import compute_digest, read_bundle
    from millrace.core.errors import ExitCode
    from millrace.core.log import configure

    configure("error")
    bundle = read_bundle(saved_model_directory(model, models))
    intact = bundle.card.digest in (None, compute_digest(bundle.path, bundle.card))
    predict = _source(source, bundle)
    pixels = _pixels(bundle, images, count)
    agreement = compare_with(bundle, predict, pixels)
    found: dict[str, Any] = {
        "model": bundle.card.name,
        "version": bundle.card.version,
        "path": str(bundle.path),
        "against": source or "its own graph, unfrozen",
        "images": agreement.images,
        "pixels": images or "generated",
        "max_abs_difference": agreement.max_abs_difference,
        "top_1_agreement": agreement.top_1_agreement,
        "digest": bundle.card.digest,
        "intact": intact,
        "agrees": agreement.ok,
    }
    print_json(found) if as_json else _show(found)
    if not (agreement.ok and intact):
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _show(found: dict[str, Any]) -> None:
    version = f":{found['version']}" if found["version"] else ""
    print(f"model {found['model']}{version}, against {found['against']}")
    print(f"  {found['images']:,} images ({found['pixels']})")
    print(f"  largest difference {found['max_abs_difference']:.3g}")
    print(f"  same best answer {found['top_1_agreement']:.2%}")
    if not found["intact"]:
        print("  its files are not those that the digest of its card was made of")
    print("agrees" if found["agrees"] else "does not agree")


def _source(source: str | None, bundle: Bundle) -> Predict:
    """What to compare with."""
    if source is None:
        from millrace.export.unfrozen import unfrozen_predict

        return unfrozen_predict(bundle)
    from millrace.export.keras_file import load_keras
    from millrace.export.predict import keras_predict

    return keras_predict(load_keras(Path(source).expanduser()), bundle.card)


def _pixels(bundle: Bundle, images: str | None, count: int) -> Pixels:
    """uint8 [n, height, width, channels], RGB or L."""
    from millrace.export.pictures import pictures

    card = bundle.card
    if images is None:
        return pictures(count, card.height, card.width, card.channels.depth)
    return _decoded(bundle, images, count)


def _decoded(bundle: Bundle, images: str, count: int) -> Pixels:
    """The pictures of a place, as a worker decodes them; what is none is passed over."""
    import numpy as np

    from millrace.core.errors import ItemError, ObjectNotFound
    from millrace.core.settings import Settings
    from millrace.core.storage import Location, Stores
    from millrace.worker.images import ImageDecoder
    from millrace.worker.options import MAX_PIXELS

    location = Location.parse(images)
    settings = Settings.load()
    store = Stores(settings).open(location)
    decoder = ImageDecoder(bundle.card, max_pixels=MAX_PIXELS)
    found: list[Pixels] = []
    listed = store.list(location.prefix)  # of a bucket no more than is looked at
    for item in listed if store.ordered else sorted(listed):
        if item.size > settings.max_object_bytes:
            continue
        try:
            found.append(decoder.decode(store.get(item.key)))
        except ItemError:
            continue
        if len(found) == count:
            break
    if not found:
        raise ObjectNotFound(f"there are no pictures in {location}")
    return np.stack(found)
