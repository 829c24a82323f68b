"""Import TensorFlow late, quietly, and with a hint where it is missing."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millrace.core.errors import MissingExtra, ModelError


def load_tensorflow() -> Any:
    """The `tensorflow` module. Raises MissingExtra; ModelError if it is there but broken.

    Its native code greets on standard error before any log level can be set, and complains
    of GPUs that are not there. `TF_CPP_MIN_LOG_LEVEL=0` lets it speak.
    """
    outspoken = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "0"
    try:
        if outspoken:
            import tensorflow as tf
        else:
            with _standard_error_held_back():
                import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise ModelError(f"TensorFlow does not load: {error}") from error
        raise MissingExtra("TensorFlow", "worker") from error
    except Exception as error:  # a broken installation raises nearly anything
        raise ModelError(f"TensorFlow does not load: {error}") from error
    tf.get_logger().setLevel(logging.ERROR)
    return tf


@contextmanager
def _standard_error_held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2, and let it out only if something fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(terminal, 2)
            kept.seek(0)
            os.write(2, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
