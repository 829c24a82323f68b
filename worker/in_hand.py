"""The leases this process holds: what the heartbeat renews and a stop gives back."""

from __future__ import annotations

import threading

from millrace.core.claims import Lease


class InHand:
    """A set of leases that can be closed to newcomers and waited empty."""

    def __init__(self) -> None:
        self.images = 0
        """Images whose chunk ended here, since the process started."""
        self.closed = False
        self._leases: dict[str, Lease] = {}
        self._changed = threading.Condition()

    def add(self, lease: Lease) -> bool:
        """Take a lease in hand; False if the worker is stopping and takes no more."""
        with self._changed:
            if not self.closed:
                self._leases[lease.member] = lease
            return not self.closed

    def renewed(self, lease: Lease) -> bool:
        """If the chunk is in hand already, under a lease that ran out, go on under this one."""
        with self._changed:
            known = lease.member in self._leases
            if known:
                self._leases[lease.member] = lease
            return known

    def remove(self, lease: Lease, images: int = 0) -> None:
        """The chunk ended, having held so many images."""
        with self._changed:
            self._leases.pop(lease.member, None)
            self.images += images
            self._changed.notify_all()

    def leases(self) -> list[Lease]:
        with self._changed:
            return list(self._leases.values())

    def close(self) -> int:
        """Take no more; returns how many are in hand."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
            return len(self._leases)

    def wait_closed(self, within_s: float) -> bool:
        """Whether it is closed within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, within_s)

    def wait_empty(self) -> None:
        """Until every chunk in hand has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._leases)
