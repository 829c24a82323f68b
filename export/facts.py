"""What a card says and a SavedModel does not: said by the user, the model or its architecture."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from millrace.core.card import Card, Channels, Normalisation, ResizeFilter, ResizeMethod
from millrace.core.errors import ModelError, UsageError
from millrace.core.topology import MODEL_NAME_PATTERN

_VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
_OPERATION = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*(:[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """None is what was not said; then the model, its architecture or the default says it."""

    name: str | None = None
    version: str | None = None
    """A whole number, as TensorFlow Serving wants it; the next one if it was not said."""
    tags: tuple[str, ...] | None = None
    """Of the graph to write, or of the one to take from a SavedModel."""
    signature: str | None = None
    input_op: str | None = None
    """Operation that takes the images: to write for a Keras model, to find in any other."""
    output_op: str | None = None
    height: int | None = None
    width: int | None = None
    scale: Normalisation | None = None
    channels: str | None = None
    resize: str | None = None
    filter: str | None = None
    labels: tuple[str, ...] | None = None
    label_offset: int | None = None
    logits: bool | None = None
    """The output is logits, and softmax is still to be applied."""
    top_k: int | None = None

    def over(self, base: Facts) -> Facts:
        """These, and what `base` says where they say nothing.

        A signature and operations exclude each other: whichever is said puts the other aside.
        """
        filled = {
            field.name: getattr(base, field.name)
            for field in fields(self)
            if getattr(self, field.name) is None
        }
        if self.signature is not None:
            filled |= {"input_op": self.input_op, "output_op": self.output_op}
        elif self.input_op is not None or self.output_op is not None:
            filled["signature"] = None
        return replace(self, **filled)

    @classmethod
    def of_card(cls, card: Card, labels: tuple[str, ...] = ()) -> Facts:
        """What a card says, but for the version, which is that of another export."""
        return cls(
            name=card.name,
            tags=card.tags,
            signature=card.signature,
            input_op=card.input_op,
            output_op=card.output_op,
            height=card.height,
            width=card.width,
            scale=card.normalisation,
            channels=card.channels,
            resize=card.resize,
            filter=card.filter,
            labels=labels or None,
            label_offset=card.label_offset,
            logits=card.scores == "logits",
            top_k=card.top_k,
        )

    def check(self) -> None:
        """Refuse what makes no sense whatever the model. Raises UsageError, ModelError."""
        if not re.fullmatch(MODEL_NAME_PATTERN, self.name or ""):
            raise UsageError(
                f"{self.name or ''!r} does not name a model",
                hint="give a name of letters, digits, '.', '_' and '-'",
            )
        if self.version is not None and not _VERSION.fullmatch(self.version):
            raise UsageError(
                f"{self.version!r} is not a version",
                hint="versions are whole numbers, as TensorFlow Serving wants them",
            )
        for words, known in (
            (self.channels, Channels),
            (self.resize, ResizeMethod),
            (self.filter, ResizeFilter),
        ):
            if words is not None and words not in set(known):
                one_of = ", ".join(known)
                raise UsageError(f"{words!r} is none of {one_of}")
        for operation in (self.input_op, self.output_op):
            if operation is not None and (
                not _OPERATION.fullmatch(operation) or operation.endswith("/")
            ):
                raise UsageError(f"{operation!r} is not the name of an operation")
        if self.input_op is not None and self.input_op == self.output_op:
            raise UsageError(f"{self.input_op!r} cannot be both input and output")
        if self.tags is not None and not all(self.tags):
            raise UsageError("a tag is not empty", hint="for example --tags serve")
        if any("\n" in label or "\r" in label for label in self.labels or ()):
            raise ModelError("a label is one line")
        if not all(self.labels or ()):
            raise ModelError("a label is not empty", hint="name every class, one a line")

    def order(self, depth: int | None) -> Channels:
        """The channels of an input that has `depth` of them, None if its shape does not tell.

        Raises ModelError.
        """
        if self.scale is not None and self.scale.mode == "caffe":
            order = Channels.BGR
        elif self.channels is not None:
            order = Channels(self.channels)
        else:
            order = Channels.L if depth == 1 else Channels.RGB
        if depth is not None and order.depth != depth:
            raise ModelError(f"the model takes {depth} channels, not {order}")
        return order
