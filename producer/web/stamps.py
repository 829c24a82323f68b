"""A form's own stamp: sent twice, by whatever mishap, it asks for one job."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime

_STAMP = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")


def new_stamp() -> str:
    """`20261120-174500-4f9c01ab`"""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def stamped_job(model: str, stamp: str) -> str | None:
    """The id of the job that the form of this stamp asks for; None if it is no stamp of ours."""
    return f"{model}-{stamp}" if _STAMP.fullmatch(stamp) else None
