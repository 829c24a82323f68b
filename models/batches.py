"""Feed pictures to Keras batch by batch, made into the model's input on the way."""

from __future__ import annotations

from typing import Any

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.architecture import Architecture
from millrace.models.labelled import Indices, Labelled
from millrace.models.pixels import model_input


def batches(pictures: Labelled, architecture: Architecture, batch_size: int, order: Indices) -> Any:
    """A `keras.utils.PyDataset` of (float32 input, int64 labels), in this order."""
    load_tensorflow()
    import keras

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return -(-len(order) // batch_size)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            batch = pictures.at(order[index * batch_size : (index + 1) * batch_size])
            return model_input(batch.images, architecture), batch.labels

    return Batches()
