"""Outcome lines as they are documented, to the last field: what `verify` holds every line to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
)

from millrace.core.errors import CorruptRecord, Stage
from millrace.core.outcome import decode_outcome


class _Documented(BaseModel):
    """These fields, of these types, and no others."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Class(_Documented):
    """What the classification head says."""

    label: str
    index: NonNegativeInt
    score: float


def _prediction(said: dict[str, Any]) -> dict[str, Any]:
    if _Class.model_fields.keys() & said.keys():
        _Class.model_validate(said)
    elif not said or not _whole(said):
        raise ValueError("a prediction that says nothing, or of which something is null")
    return said


def _whole(value: Any) -> bool:
    """No part is null: that is how NaN and infinity are written."""
    if isinstance(value, dict):
        return all(map(_whole, value.values()))
    if isinstance(value, list):
        return all(map(_whole, value))
    return value is not None


class _Predicted(_Documented):
    key: str
    etag: str | None
    predictions: list[Annotated[dict[str, Any], AfterValidator(_prediction)]]


class _Error(_Documented):
    stage: Stage
    code: str = Field(min_length=1)
    message: str
    retryable: bool
    attempts: NonNegativeInt


class _Failed(_Documented):
    key: str
    etag: str | None
    error: _Error


def decode_strictly(line: bytes) -> dict[str, Any]:
    """`decode_outcome`, held to the schema. Raises CorruptRecord."""
    outcome = decode_outcome(line)
    documented = _Failed if "error" in outcome else _Predicted
    try:
        documented.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CorruptRecord(f"outcome of {outcome['key']!r}: {where}: {first['msg']}") from None
    return outcome
