"""How a model is to be run: the engine, its precision, threads and device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class EngineName(StrEnum):
    """`auto` is OpenVINO where it is installed, the model runs on the CPU and OpenVINO takes
    it, and TensorFlow otherwise."""

    AUTO = "auto"
    TENSORFLOW = "tensorflow"
    OPENVINO = "openvino"


class Precision(StrEnum):
    """What a model computes in; its scores are float32 in any case."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Tuning:
    """How an engine is to run a model. None of it changes what the model is."""

    engine: EngineName = EngineName.AUTO
    precision: Precision = Precision.FLOAT32
    threads: int = 0
    """Threads of one prediction; 0 lets the engine choose."""
    xla: bool = False
    """TensorFlow only: compile the graph."""
    device: str = "auto"
    """`cpu`, `gpu` or `auto`, which is a GPU if the engine can use one; `gpu:N` and `auto:N` say
    which."""
    gpu_memory: float | None = None
    """The share of a GPU's memory to take; None lets it grow as needed."""

    @property
    def wants_gpu(self) -> bool:
        """Nothing but a GPU will do."""
        return self.device.startswith("gpu")

    @property
    def gpu_number(self) -> str:
        """Which GPU is meant, if it is said."""
        return self.device.partition(":")[2]


PLAIN = Tuning()

GPU_HINT = "a GPU needs NVIDIA's driver and millrace[gpu]"


def gpus() -> int:
    """How many NVIDIA GPUs this process may use, as far as can be seen without a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))
