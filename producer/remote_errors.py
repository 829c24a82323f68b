"""Problem details back into the errors they were made of."""

from __future__ import annotations

import orjson

from millrace.core import errors as e


def error_of(status: int, body: bytes) -> e.MillraceError:
    """The error that an answer tells of; of what no millrace server wrote, the nearest."""
    try:
        problem = orjson.loads(body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        foreign = e.ServerUnavailable if status >= 500 else e.UsageError
        return foreign(f"the server answered {status}, and not as millrace does")
    hint = problem.get("hint")
    if "stage" in problem and problem["stage"] in list(e.Stage):
        return e.ItemError(e.Stage(problem["stage"]), code, detail)
    kind = _KINDS.get(code) or _nearest(status)
    error = kind.__new__(kind)
    # Some are made of other words than these; what they are made of has become the detail.
    e.MillraceError.__init__(error, detail, hint=hint if isinstance(hint, str) else None)
    if isinstance(error, e.BadManifest):
        error.line = int(problem.get("line", 0))
    return error


def _nearest(status: int) -> type[e.MillraceError]:
    if status in (404, 405):
        return e.NotFound
    if status == 413:
        return e.ObjectTooLarge
    return e.UsageError if status < 500 else e.MillraceError


_KINDS = {
    kind.code: kind
    for kind in vars(e).values()
    if isinstance(kind, type) and issubclass(kind, e.MillraceError) and kind is not e.ItemError
}
"""By the `code` that a problem carries: those that answers are made of, whatever else is loaded."""
