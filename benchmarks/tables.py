"""What was measured, and what follows from it: medians, ratios, the limit, efficiency."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict

STORED = Path(__file__).parent / "results.json"
"""What RESULTS.md is written from."""


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Workload(Value):
    """What every contender of a table does. `inputs`: small, large or own; `storage`: disk, s3."""

    model: str
    inputs: str
    storage: str

    @property
    def name(self) -> str:
        return f"{self.model}, {self.inputs}, {self.storage}"


class Cost(Value):
    """CPU seconds of one image on one core while every core is busy."""

    decode_s: float
    predict_s: float

    def limit(self, cores: int) -> float:
        """Images per second if the cores did nothing else."""
        return cores / (self.decode_s + self.predict_s)


class Sample(Value):
    """One run. `seconds` are those the rate counts, `wall_s` the whole process's.

    `agreement` is the share of images whose top class is the plain signature's;
    `store_cpu_s` the CPU time of the S3 endpoint, which runs on the same cores; `cost` what the
    machine needed for an image just before this run, if that was measured.
    """

    images: int
    seconds: float
    wall_s: float
    agreement: float
    store_cpu_s: float | None = None
    cost: Cost | None = None

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds


class Row(Value):
    """One contender: its samples, one per round, or why there are none."""

    name: str
    peer: bool
    command: str
    samples: tuple[Sample, ...] = ()
    base: str | None = None
    """The row it is compared with, if not the best peer."""
    absent: str | None = None

    @property
    def rate(self) -> float | None:
        """Images per second, the median of the rounds."""
        return median(sample.rate for sample in self.samples) if self.samples else None

    @property
    def spread(self) -> tuple[float, float] | None:
        """The slowest and the fastest round."""
        rates = [sample.rate for sample in self.samples]
        return (min(rates), max(rates)) if rates else None

    @property
    def around_s(self) -> float | None:
        """Seconds of the whole process that the rate does not count."""
        return median(s.wall_s - s.seconds for s in self.samples) if self.samples else None

    @property
    def agreement(self) -> float | None:
        """The worst round's."""
        return min((sample.agreement for sample in self.samples), default=None)

    @property
    def store_ms(self) -> float | None:
        """Milliseconds of the S3 endpoint's CPU per image."""
        spent = [1000 * s.store_cpu_s / s.images for s in self.samples if s.store_cpu_s is not None]
        return median(spent) if spent else None

    @property
    def costs(self) -> list[Cost]:
        """Those of the rounds that measured one."""
        return [sample.cost for sample in self.samples if sample.cost is not None]

    def limit(self, cores: int) -> float | None:
        """Images per second, the median of what each round's costs allow."""
        return median(cost.limit(cores) for cost in self.costs) if self.costs else None

    def efficiency(self, cores: int) -> float | None:
        """The rate as a share of the limit, the median of the rounds that measured both."""
        shares = [s.rate / s.cost.limit(cores) for s in self.samples if s.cost is not None]
        return median(shares) if shares else None


class Table(Value):
    """Contenders at one workload, in one run."""

    workload: Workload
    rows: tuple[Row, ...]
    measured_at: datetime
    commit: str

    @property
    def best_peer(self) -> Row | None:
        rated = [row for row in self.rows if row.peer and row.rate is not None]
        return max(rated, key=lambda row: row.rate or 0.0, default=None)

    def ratio(self, row: Row) -> float | None:
        """A row's rate in terms of the best peer's or, round by round, of its base's."""
        if row.base is None:
            return self._beside_best(row.rate)
        base = next((other for other in self.rows if other.name == row.base), None)
        if base is None or not row.samples or len(base.samples) != len(row.samples):
            return None
        pairs = zip(row.samples, base.samples, strict=True)
        return median(sample.rate / other.rate for sample, other in pairs)

    def ratio_at_limit(self, row: Row, cores: int) -> float | None:
        """The ratio to the best peer that the row would have at its limit."""
        return self._beside_best(row.limit(cores))

    def _beside_best(self, rate: float | None) -> float | None:
        best = self.best_peer
        return None if best is None or best.rate is None or rate is None else rate / best.rate


class Machine(Value):
    """Where it was measured; results of two machines never stand in one file."""

    cores: int
    cpu: str
    memory_gib: float


class Results(Value):
    """All there is to report; a run replaces the tables it measured anew."""

    machine: Machine
    versions: dict[str, str]
    tables: tuple[Table, ...] = ()
    scale: Table | None = None

    def with_table(self, table: Table) -> Results:
        others = tuple(old for old in self.tables if old.workload != table.workload)
        tables = sorted((*others, table), key=lambda one: _order(one.workload))
        return self.model_copy(update={"tables": tuple(tables)})


def load(machine: Machine, versions: dict[str, str], path: Path = STORED) -> Results:
    """What earlier runs on this machine with these versions left, or nothing."""
    fresh = Results(machine=machine, versions=versions)
    if not path.exists():
        return fresh
    earlier = Results.model_validate_json(path.read_bytes())
    same = (earlier.machine, earlier.versions) == (machine, versions)
    return earlier if same else fresh


def _order(workload: Workload) -> tuple[str, bool, str]:
    return workload.model, workload.inputs != "small", workload.storage
