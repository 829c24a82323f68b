"""The message a worker receives: a reference to one chunk, never pixels."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from millrace.core.errors import BadMessage
from millrace.core.job import JobId


class ChunkMessage(BaseModel):
    """Keyword arguments of the task `millrace.predict_chunk`: `{"v": 1, "job": …, "chunk": …}`.

    With a message key they carry a `mac`: the HMAC-SHA256 of the rest, in hex.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: int = Field(1, ge=1, le=1)
    job: JobId
    chunk: int = Field(ge=0, lt=2**31)
    mac: str | None = None

    @classmethod
    def read(cls, fields: Any, key: bytes | None = None) -> ChunkMessage:
        """Validate what came off the queue, and with a key who wrote it. Raises BadMessage."""
        try:
            message = cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "message"
            raise BadMessage(f"{where}: {first['msg']}") from None
        if key is not None and not hmac.compare_digest(
            (message.mac or "").encode(), message._mac(key).encode()
        ):
            raise BadMessage("message: not signed with this worker's key")
        return message

    def fields(self, key: bytes | None = None) -> dict[str, Any]:
        """The keyword arguments to send, signed if there is a key."""
        message = self if key is None else self.model_copy(update={"mac": self._mac(key)})
        return message.model_dump(exclude_none=True)

    def _mac(self, key: bytes) -> str:
        # No part can hold a space, so no two messages have the same text.
        text = f"{self.v} {self.job} {self.chunk}"
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
