"""What `verify` found: the counts of storage, and what differs from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `where` is an object's name or `redis`."""

    where: str
    problem: str


@dataclass(slots=True)
class Verification:
    """What storage holds of a job. Counts are images, but for `chunks` and `missing_chunks`."""

    job_id: str
    state: str
    total: int = 0
    succeeded: int = 0
    failed: int = 0
    by_code: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    missing_chunks: list[int] = field(default_factory=list)
    corrupt_chunks: list[int] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    """Objects under the results that are no chunk's."""
    findings: list[Finding] = field(default_factory=list)
    asked_redis: bool = False
    """Whether Redis knows the job and was compared."""

    @property
    def without_outcome(self) -> int:
        """Images whose chunk has no object: pending, or cancelled with their job."""
        return self.total - self.succeeded - self.failed

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        plain = {name.name: getattr(self, name.name) for name in fields(self)}
        plain["findings"] = [asdict(finding) for finding in self.findings]
        return plain | {"without_outcome": self.without_outcome, "ok": self.ok}

    def note(self, where: str, problem: str) -> None:
        self.findings.append(Finding(where, problem))

    def compare(self, where: str, name: str, claimed: Any, found: Any) -> None:
        if claimed != found:
            self.note(where, f"{name} is {claimed}, storage holds {found}")
