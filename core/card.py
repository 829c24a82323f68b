"""The bundle card: what a SavedModel does not say about itself.

A bundle is a plain SavedModel; the card lies in `assets.extra/millrace.json`, the labels in
`assets.extra/labels.txt`, one a line, line number = index. TensorFlow Serving ignores both.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from millrace.core.errors import ModelError, UsageError
from millrace.core.topology import MODEL_NAME_PATTERN, VERSION_PATTERN

CARD_FILE = "assets.extra/millrace.json"
LABELS_FILE = "assets.extra/labels.txt"

DEFAULT_SIGNATURE = "serving_default"
"""What TensorFlow and Keras call the only signature there is."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(StrEnum):
    """What the output means; each has a head in the worker."""

    CLASSIFICATION = "classification"


class Channels(StrEnum):
    """Order and number of the input's channels; `L` is one channel of luminance."""

    RGB = "RGB"
    BGR = "BGR"
    L = "L"

    @property
    def depth(self) -> int:
        return 1 if self is Channels.L else 3


class ResizeMethod(StrEnum):
    """How a picture of another shape becomes the input's.

    `stretch` ignores the aspect ratio; `crop` fills the input and cuts the middle out;
    `pad` fits the picture in and fills the rest with black.
    """

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"


class ResizeFilter(StrEnum):
    """Pillow's resampling filters."""

    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Normalisation(_Frozen):
    """From 8-bit pixels to what the model was trained on: `(x - mean) / scale`.

    The named modes are those of `keras.applications.imagenet_utils.preprocess_input`:
    `tf` gives -1 to 1; `torch` gives 0 to 1 less ImageNet's mean over its deviation; `caffe`
    subtracts ImageNet's mean and wants BGR. `none` leaves 0 to 255. `custom` has its own
    mean and scale, one value for all channels or one each, in the input's channel order.
    """

    mode: Literal["tf", "torch", "caffe", "none", "custom"] = "none"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _own_numbers_only_in_custom(self) -> Normalisation:
        given = (bool(self.mean), bool(self.scale))
        if given != ((True, True) if self.mode == "custom" else (False, False)):
            raise ValueError("mean and scale go with mode 'custom', and only with it")
        if len(self.mean) not in (0, 1, 3) or len(self.scale) not in (0, 1, 3):
            raise ValueError("mean and scale hold one value, or one per channel")
        if not all(math.isfinite(value) for value in self.mean + self.scale) or 0 in self.scale:
            raise ValueError("mean and scale must be finite, and scale not 0")
        return self

    @classmethod
    def parse(cls, text: str) -> Normalisation:
        """Read `tf`, `caffe`, `torch`, `none`, `MEAN,SCALE`, `MEAN_R,MEAN_G,MEAN_B,SCALE`, or six
        numbers, of which the last three are scales."""
        if text in ("tf", "torch", "caffe", "none"):
            return cls(mode=text)
        try:
            numbers = tuple(float(part) for part in text.split(","))
            if len(numbers) not in (2, 4, 6):
                raise ValueError
            means = min(len(numbers) - 1, 3)
            return cls(mode="custom", mean=numbers[:means], scale=numbers[means:])
        except ValueError:
            raise UsageError(
                f"{text!r} is not a scale",
                hint="tf, caffe, torch, none, MEAN,SCALE or MEAN_R,MEAN_G,MEAN_B,SCALE, "
                "the last with three scales, too",
            ) from None

    @property
    def spelled(self) -> str:
        """As `parse` reads it: `tf`, or numbers. Scales for each channel follow as many means."""
        if self.mode != "custom":
            return self.mode
        mean = self.mean * 3 if len(self.mean) < len(self.scale) else self.mean
        return ",".join(repr(number).removesuffix(".0") for number in (*mean, *self.scale))

    def mean_and_scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The numbers of `(x - mean) / scale`, in the input's channel order."""
        return {
            "tf": ((127.5,), (127.5,)),
            "torch": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
            "caffe": ((103.939, 116.779, 123.68), (1.0,)),
            "none": ((0.0,), (1.0,)),
            "custom": (self.mean, self.scale),
        }[self.mode]


class Card(_Frozen):
    """Everything a worker must know beside the graph."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=MODEL_NAME_PATTERN)
    version: str | None = Field(None, pattern=VERSION_PATTERN)
    task: Task = Task.CLASSIFICATION
    tags: tuple[str, ...] = ("serve",)
    signature: str | None = None
    input_op: str | None = None
    output_op: str | None = None
    height: int = Field(ge=1, le=8192)
    width: int = Field(ge=1, le=8192)
    channels: Channels = Channels.RGB
    normalisation: Normalisation = Normalisation()
    resize: ResizeMethod = ResizeMethod.STRETCH
    filter: ResizeFilter = ResizeFilter.BILINEAR
    scores: Literal["probabilities", "logits"] = "probabilities"
    label_offset: int = Field(0, ge=0)
    """The output index that the first label names."""
    top_k: int = Field(5, ge=1)
    frameworks: dict[str, str] = {}
    digest: str | None = Field(None, pattern=r"^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _one_way_in(self) -> Card:
        by_ops = self.input_op is not None and self.output_op is not None
        if (self.signature is None) == (not by_ops) or (self.input_op is None) != (
            self.output_op is None
        ):
            raise ValueError("give a signature, or both an input and an output operation")
        if self.normalisation.mode == "caffe" and self.channels is not Channels.BGR:
            raise ValueError("caffe normalisation is defined for BGR channels")
        numbers = {len(part) for part in self.normalisation.mean_and_scale()}
        if self.channels is Channels.L and 3 in numbers:
            raise ValueError("three means or scales for one channel")
        return self

    @classmethod
    def make(cls, **facts: object) -> Card:
        """A card from facts given as options. Raises UsageError naming the fact."""
        try:
            return cls.model_validate(facts)
        except ValidationError as error:
            raise UsageError(f"model facts: {_first(error)}") from None

    @classmethod
    def read(cls, text: bytes, where: str) -> Card:
        """A card from a bundle. Raises ModelError."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(f"{where}: {_first(error)}") from None


def tensor_name(operation: str) -> str:
    """`input_1` is the first output of the operation, `input_1:1` the second."""
    return operation if ":" in operation else f"{operation}:0"


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    message: str = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "a card has no such field"
    elif where == "schema_version":
        message = f"it is {problem['input']!r}, and this millrace reads 1"
    return f"{where}: {message}" if where else message
