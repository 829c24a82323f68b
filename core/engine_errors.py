"""What an engine raises about a model, as one line of a ModelError."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from millrace.core.errors import MillraceError, ModelError

LONGEST = 300

_WHERE = (
    *("Graph execution error:", "Detected at node", "Node: "),
    *("Exception from", "Check ", "FrontEnd", "While validating node", "Shape inference input"),
    *("Model wasn't fully converted", "Summary:", "-- Conversion is failed for"),
)
"""How lines begin that tell where it happened, and not what."""


@contextmanager
def as_model_errors(what: str, hint: str | None = None) -> Iterator[None]:
    """Engines raise nearly anything for a model they cannot use. `what` begins the message.

    What is ours already, such as MissingExtra, passes as it is.
    """
    try:
        yield
    except MillraceError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {telling_line(error)}", hint=hint) from error


def telling_line(error: Exception) -> str:
    """The line of an error that says something, or else the error's type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if not line.startswith(_WHERE) and not line.endswith("with a message:")
    ]
    return (telling or lines or [type(error).__name__])[0][:LONGEST]
