"""A graph as TensorBoard reads it: an event file, without the weights."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from millrace.core.errors import AccessDenied, StorageUnavailable
from millrace.export.inspect import GraphFacts

LARGEST_CONSTANT = 1024
"""Bytes of a constant that are kept: what a graph view shows are shapes and settings."""


def write_graphs(graphs: tuple[GraphFacts, ...], directory: Path) -> list[Path]:
    """Write each graph as a run of its own where there are several; returns the event files.

    `tensorboard --logdir DIRECTORY` shows them. Raises AccessDenied, StorageUnavailable.
    """
    written = []
    for number, graph in enumerate(graphs):
        name = "-".join(graph.tags).replace("/", "-") or "no-tags"
        run = directory if len(graphs) == 1 else directory / f"{number}-{name}"
        try:
            run.mkdir(parents=True, exist_ok=True)
            written.append(_write(graph.proto.graph_def, run))
        except PermissionError as error:
            raise AccessDenied(f"{run}: permission denied") from error
        except OSError as error:
            raise StorageUnavailable(f"{run}: {error.strerror or error}") from error
    return written


def _write(graph_def: Any, run: Path) -> Path:
    import tensorflow as tf
    from tensorflow.core.util.event_pb2 import Event

    now = time.time()
    # TensorBoard takes what has `tfevents` in its name; a later file of a run goes on with it.
    file = run / f"events.out.tfevents.{now:.6f}.millrace"
    graph = _without_weights(graph_def).SerializeToString()
    with tf.io.TFRecordWriter(str(file)) as events:
        events.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        events.write(Event(wall_time=now, graph_def=graph).SerializeToString())
    return file


def _without_weights(graph_def: Any) -> Any:
    light = type(graph_def)()
    light.CopyFrom(graph_def)
    bodies = (function.node_def for function in light.library.function)
    for nodes in (light.node, *bodies):
        for node in nodes:
            if node.op == "Const" and node.attr["value"].ByteSize() > LARGEST_CONSTANT:
                tensor = node.attr["value"].tensor
                kept = type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
                tensor.CopyFrom(kept)
    return light
