"""What one worker process is told: which model, and how hard to work."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator, model_validator

from millrace.core.card import (
    DEFAULT_SIGNATURE,
    Card,
    Channels,
    Normalisation,
    ResizeFilter,
    ResizeMethod,
)
from millrace.core.errors import UsageError
from millrace.core.settings import EnvironmentSettings
from millrace.core.topology import MODEL_NAME_PATTERN
from millrace.worker.supervisor import MOST_DECODE_THREADS, decode_threads_each
from millrace.worker.tuning import EngineName, Precision, Tuning

MAX_PIXELS = 178_956_970
"""Pillow's own hard limit: larger pictures are taken for decompression bombs."""

SLOTS = 3
"""One chunk's images enter the pipeline, one's leave it, one is written."""


class CacheOptions(EnvironmentSettings):
    """Where this machine keeps what it need not fetch or measure again."""

    cache: str = Field(
        default_factory=lambda: str(
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "millrace"
        ),
        description="where bundles from storage URLs are kept",
    )


class WorkerOptions(CacheOptions):
    """Read from `MILLRACE_…`, so that `celery -A millrace.worker.app worker`, the processes
    of `millrace worker` and a container are configured alike."""

    model: str | None = None
    saved_model: str | None = None
    name: str | None = None
    tags: str = "serve"
    signature: str | None = None
    input_op: str | None = None
    output_op: str | None = None
    size: str | None = None
    scale: str = "none"
    channels: Channels = Channels.RGB
    resize: ResizeMethod = ResizeMethod.STRETCH
    filter: ResizeFilter = ResizeFilter.BILINEAR
    labels: str | None = None
    label_offset: int = Field(0, ge=0)
    logits: bool = False
    engine: EngineName = EngineName.AUTO
    precision: Precision = Field(Precision.FLOAT32, description="auto is float32")
    device: str = Field("auto", pattern=r"^(cpu|(auto|gpu)(:\d{1,3})?)$")
    gpu_memory: float | None = Field(
        None, gt=0, le=1, description="share of a GPU's memory; by default it grows as needed"
    )
    xla: bool = False
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="by default, and with auto, the fastest is found"
    )
    max_delay_ms: float = Field(
        100, ge=0, le=60_000, allow_inf_nan=False, description="longest wait for a batch to fill"
    )
    exact_decode: bool = Field(False, description="decode and resize at full scale")
    slots: int | None = Field(
        None, ge=1, le=64, description="chunks in flight; by default 3, and more of small ones"
    )
    fetch_threads: int = Field(16, ge=1, le=256)
    decode_threads: int = Field(
        default_factory=lambda: decode_threads_each(1), ge=1, le=MOST_DECODE_THREADS
    )
    threads: int = Field(0, ge=0, description="the engine's threads; 0 lets it choose")
    watchdog_s: float = Field(
        60, ge=1, le=86_400, allow_inf_nan=False, description="a consumer may stand still so long"
    )
    predict_limit_s: float = Field(
        600, ge=1, le=86_400, allow_inf_nan=False, description="longest prediction of one batch"
    )
    max_pixels: int = Field(MAX_PIXELS, ge=1)
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="`/metrics` for Prometheus; 0 chooses a free port"
    )
    metrics_address: str = Field("127.0.0.1", description="where it listens")

    @field_validator("size")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_size(value)
        return value

    @field_validator("batch_size", "precision", "slots", mode="before")
    @classmethod
    def _auto(cls, value: object, info: ValidationInfo) -> object:
        default = cls.model_fields[info.field_name or ""].default
        return default if value == "auto" else value

    @field_validator("model", "saved_model", "name", "labels", mode="before")
    @classmethod
    def _nothing(cls, value: object) -> object:
        return None if value == "" else value

    @model_validator(mode="after")
    def _one_model(self) -> WorkerOptions:
        if (self.model is None) == (self.saved_model is None):
            raise ValueError("give either a model of the repository or a saved model")
        facts = self.facts()
        if self.model is not None and (self.name is not None or self.labels or facts):
            raise ValueError(
                f"what {self.model} takes and answers stands in its card, not in options or "
                "MILLRACE_… variables; serve its directory as a saved model to say otherwise"
            )
        if self.labels is not None and not Path(self.labels).expanduser().is_file():
            raise ValueError(f"there is no labels file {self.labels}")
        if self.saved_model is not None:
            if self.name is None:
                raise ValueError("a saved model needs a name, which is also its queue's")
            if not re.fullmatch(MODEL_NAME_PATTERN, self.name):
                raise ValueError(f"{self.name!r} does not name a model")
        return self

    @property
    def chunk_slots(self) -> int:
        """Chunks in flight; unless `slots` were given, more of small ones."""
        return self.slots or SLOTS

    @property
    def tuning(self) -> Tuning:
        """How the engine is to run the model."""
        return Tuning(
            engine=self.engine,
            precision=self.precision,
            threads=self.threads,
            xla=self.xla,
            device=self.device,
            gpu_memory=self.gpu_memory,
        )

    def card(self, bundled: Card | None) -> Card:
        """The card of a SavedModel: what its bundle says, under what the options say.

        Raises UsageError if that does not make a card.
        """
        if bundled is None and self.size is None:
            raise UsageError(
                "a SavedModel without a card needs its input size",
                hint="for example --size 224x224",
            )
        facts = {"signature": DEFAULT_SIGNATURE} if bundled is None else bundled.model_dump()
        return Card.make(**{**facts, **self.facts(), "name": self.name, "version": None})

    def facts(self) -> dict[str, object]:
        """The card's fields that the options were given for, and only those."""
        given = self.model_fields_set
        found: dict[str, object] = {
            name: getattr(self, name)
            for name in ("signature", "resize", "filter", "label_offset", "channels")
            if name in given
        }
        if "tags" in given:
            found["tags"] = tuple(self.tags.split(","))
        if self.size is not None:
            found["height"], found["width"] = parse_size(self.size)
        if "logits" in given:
            found["scores"] = "logits" if self.logits else "probabilities"
        if self.input_op is not None or self.output_op is not None:
            found |= {"input_op": self.input_op, "output_op": self.output_op}
            found.setdefault("signature", None)
        if "scale" in given:
            found["normalisation"] = normalisation = Normalisation.parse(self.scale)
            if normalisation.mode == "caffe":
                found["channels"] = Channels.BGR
        return found


def parse_size(text: str) -> tuple[int, int]:
    """`224` or `HEIGHTxWIDTH` as (height, width) in pixels. Raises UsageError."""
    height, _, width = text.lower().partition("x")
    try:
        size = int(height), int(width or height)
    except ValueError:
        size = (0, 0)
    if not all(1 <= side <= 8192 for side in size):
        raise UsageError(f"{text!r} is not an input size", hint="224 or HEIGHTxWIDTH")
    return size
