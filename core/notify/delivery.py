"""What a job's record says of its notification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class DeliveryState(StrEnum):
    """Where the notification of a job's end stands."""

    ARMED = "armed"
    """The job has not ended."""
    WAITING = "waiting"
    """To be sent, or sent again."""
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    """Tried too often, or for too long."""

    @property
    def settled(self) -> bool:
        return self in (DeliveryState.DELIVERED, DeliveryState.GIVEN_UP)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Fields `notify_…` of the record."""

    state: DeliveryState = DeliveryState.ARMED
    attempts: int = 0
    error: str | None = None
    """Of the last try."""
    due_at: datetime | None = None
    """When it is tried again, or later."""

    @classmethod
    def read(cls, text: Mapping[str, str]) -> Delivery:
        """Raises ValueError."""
        due = text.get("notify_due_ms")
        return cls(
            state=DeliveryState(text.get("notify_state") or DeliveryState.ARMED),
            attempts=int(text.get("notify_attempts") or 0),
            error=text.get("notify_error") or None,
            due_at=datetime.fromtimestamp(int(due) / 1000, UTC) if due else None,
        )


NO_DELIVERY = Delivery()
