"""Which SavedModel somebody means: a directory's, or one of the repository's."""

from __future__ import annotations

from pathlib import Path

from millrace.core.bundle import SAVED_MODELS, is_saved_model
from millrace.core.errors import ModelError, ModelNotFound
from millrace.core.model_ref import ModelRef


def saved_model_directory(text: str, models: str | None) -> Path:
    """The directory of a SavedModel that a path, or a name in the repository, stands for.

    A bundle of a repository elsewhere is fetched, as a worker does it. Raises ModelNotFound,
    ModelError, UsageError and the store's errors.
    """
    path = Path(text).expanduser()
    if is_saved_model(path):
        return path
    if path.is_file():
        if path.name in SAVED_MODELS:
            return path.parent
        raise ModelError(
            f"{text} is a file, and a SavedModel is a directory",
            hint="make a bundle of it first:  millrace export",
        )
    if "/" in text or path.is_dir():
        raise ModelNotFound(f"{text} holds no SavedModel (saved_model.pb)")
    return _stored(text, models)


def _stored(text: str, models: str | None) -> Path:
    from millrace.core.services import Services
    from millrace.core.settings import Settings
    from millrace.worker.model_source import find_stored
    from millrace.worker.options import CacheOptions

    ref = ModelRef.parse(text)
    services = Services(Settings.load(models=models))
    if not services.settings.models:
        raise ModelNotFound(
            f"there is no directory {text}, and no model repository to look it up in",
            hint="set --models or MILLRACE_MODELS",
        )
    return find_stored(services, ref, CacheOptions.load()).path
