"""What an export starts from: something that can write itself down as a SavedModel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.core.card import DEFAULT_SIGNATURE
from millrace.export.facts import Facts
from millrace.export.predict import Raw


@dataclass(frozen=True, slots=True)
class Written:
    """A SavedModel in a directory, and what came to light in writing it."""

    tags: tuple[str, ...]
    signature: str | None
    input_op: str
    output_op: str
    shape: tuple[int | None, int | None, int | None]
    """Height, width and channels of the input, as far as the graph fixes them."""
    takes_bytes: bool
    output_type: str
    """The kind of operation that answers, such as `Softmax`."""
    raw: Raw
    """The model that was written, asked beside what was written."""


class Source(ABC):
    """A model to be exported."""

    facts: Facts
    """What it says of itself."""
    packages: tuple[str, ...] = ("tensorflow",)
    """Whose versions the card records."""

    @abstractmethod
    def write(self, path: Path, facts: Facts) -> Written:
        """Make `path`, which is not there yet, a SavedModel. Raises ModelError, UsageError."""


def write_saved_model(
    tf: Any, session: Any, path: Path, tags: tuple[str, ...], source: Any, target: Any
) -> None:
    """A session's graph and variables as a SavedModel with one signature, as TensorFlow 1 did."""
    saved = tf.compat.v1.saved_model
    signature = saved.build_signature_def(
        {"images": saved.build_tensor_info(source)},
        {"scores": saved.build_tensor_info(target)},
        saved.signature_constants.PREDICT_METHOD_NAME,
    )
    builder = saved.Builder(str(path))
    builder.add_meta_graph_and_variables(
        session,
        list(tags),
        signature_def_map={DEFAULT_SIGNATURE: signature},
        strip_default_attrs=True,
    )
    builder.save()
