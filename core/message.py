"""The message a worker receives: a reference to one chunk, never pixels."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from millrace.core.errors import BadMessage
from millrace.core.job import JobId


class ChunkMessage(BaseModel):
    """Keyword arguments of the task `millrace.predict_chunk`: `{"v": 1, "job": …, "chunk": …}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: int = Field(1, ge=1, le=1)
    job: JobId
    chunk: int = Field(ge=0, lt=2**31)

    @classmethod
    def read(cls, fields: Any) -> ChunkMessage:
        """Validate what came off the queue. Raises BadMessage."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "message"
            raise BadMessage(f"{where}: {first['msg']}") from None
