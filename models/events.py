"""Loss and accuracy of each epoch as event files that TensorBoard reads."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from millrace.core.load_tensorflow import load_tensorflow
from millrace.models.training_record import Epoch


class EventFiles:
    """Writes `logs/train` and `logs/unseen`: two curves in each of TensorBoard's charts.

    They begin anew with the epochs that are finished, so that each is there once, however
    often the run was interrupted.
    """

    def __init__(self, logs: Path, finished: Iterable[Epoch]) -> None:
        self._tf = load_tensorflow()
        shutil.rmtree(logs, ignore_errors=True)
        writer = self._tf.summary.create_file_writer
        self._seen, self._unseen = (writer(str(logs / name)) for name in ("train", "unseen"))
        for epoch in finished:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        parts = (
            (self._seen, epoch.loss, epoch.accuracy),
            (self._unseen, epoch.unseen_loss, epoch.unseen_accuracy),
        )
        for writer, loss, accuracy in parts:
            with writer.as_default(step=epoch.number):
                self._scalar("loss", loss)
                self._scalar("accuracy", accuracy)
            writer.flush()

    def close(self) -> None:
        self._seen.close()
        self._unseen.close()

    def _scalar(self, name: str, value: float) -> None:
        """What `tf.summary.scalar` writes, which needs TensorBoard itself to be installed."""
        metadata = self._tf.compat.v1.SummaryMetadata(
            plugin_data=self._tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class=1,  # DATA_CLASS_SCALAR
        )
        self._tf.summary.write(name, self._tf.constant(value), metadata=metadata)
