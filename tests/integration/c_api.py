"""TensorFlow's C API as the Go binding calls it, through ctypes and nothing of Python's TensorFlow.

`python c_api.py SAVED_MODEL TAG INPUT_OP OUTPUT_OP IN.npy OUT.npy` loads by the tag, feeds the
float32 images in IN to the one operation, and writes what the other answers to OUT: the calls of
`tf.LoadSavedModel`, `graph.Operation` and `session.Run` in
github.com/wamuir/graft/tensorflow, in their order.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_void_p,
)
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT = 1
OK = 0
DELETER = CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)


class Output(Structure):
    """`TF_Output`: an operation, and which of its outputs."""

    _fields_ = (("operation", c_void_p), ("index", c_int))


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "TF_NewStatus": (c_void_p, []),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, c_void_p, c_char_p, POINTER(c_char_p), c_int, c_void_p, c_void_p, c_void_p],
    ),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_OperationOpType": (c_char_p, [c_void_p]),
    "TF_NewTensor": (
        c_void_p,
        [c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, DELETER, c_void_p],
    ),
    "TF_SessionRun": (
        None,
        [
            *(c_void_p, c_void_p),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(c_void_p, c_int, c_void_p, c_void_p),
        ],
    ),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
}


def libraries() -> tuple[Path, Path] | None:
    """The two shared libraries the TensorFlow wheel carries, found without importing it."""
    spec = find_spec("tensorflow")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    found = folder / "libtensorflow_framework.so.2", folder / "libtensorflow_cc.so.2"
    return found if all(each.is_file() for each in found) else None


class TensorFlow:
    """The functions, each looked up where the wheel has it."""

    def __init__(self) -> None:
        found = libraries()
        assert found is not None, "the TensorFlow wheel carries no C library here"
        loaded = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in found]
        for name, (result, arguments) in SIGNATURES.items():
            (function,) = [getattr(each, name) for each in loaded if hasattr(each, name)][-1:]
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.status = self.call("TF_NewStatus")

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    def check(self) -> None:
        if self.call("TF_GetCode", self.status) != OK:
            sys.exit(self.call("TF_Message", self.status).decode())

    def load(self, path: str, tag: str) -> tuple[Any, Any]:
        """The graph, and the session with its variables."""
        graph, options = self.call("TF_NewGraph"), self.call("TF_NewSessionOptions")
        tags = (c_char_p * 1)(tag.encode())
        session = self.call(
            "TF_LoadSessionFromSavedModel",
            *(options, None, path.encode(), tags, 1, graph, None, self.status),
        )
        self.check()
        return graph, session

    def output(self, graph: Any, operation: str) -> Output:
        found = self.call("TF_GraphOperationByName", graph, operation.encode())
        if not found:
            sys.exit(f"the graph has no operation {operation!r}")
        return Output(found, 0)

    def run(
        self, session: Any, source: Output, target: Output, images: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        images = np.ascontiguousarray(images)
        shape = (c_int64 * images.ndim)(*images.shape)
        keep = DELETER(lambda data, size, argument: None)  # the array is NumPy's
        fed = self.call(
            "TF_NewTensor",
            *(FLOAT, shape, images.ndim, images.ctypes.data, images.nbytes, keep, None),
        )
        inputs, answers = (c_void_p * 1)(fed), (c_void_p * 1)()
        self.call(
            "TF_SessionRun",
            *(session, None, byref(source), inputs, 1, byref(target), answers, 1),
            *(None, 0, None, self.status),
        )
        self.check()
        (answer,) = answers
        assert self.call("TF_TensorType", answer) == FLOAT
        sides = [self.call("TF_Dim", answer, i) for i in range(self.call("TF_NumDims", answer))]
        data = ctypes.string_at(
            self.call("TF_TensorData", answer), self.call("TF_TensorByteSize", answer)
        )
        return np.frombuffer(data, np.float32).reshape(sides)


def main() -> None:
    path, tag, input_op, output_op, given, answered = sys.argv[1:]
    tf = TensorFlow()
    graph, session = tf.load(path, tag)
    source, target = tf.output(graph, input_op), tf.output(graph, output_op)
    kinds = [tf.call("TF_OperationOpType", each.operation).decode() for each in (source, target)]
    np.save(answered, tf.run(session, source, target, np.load(given)))
    tf.call("TF_CloseSession", session, tf.status)
    tf.check()
    assert not [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
    print(*kinds)


if __name__ == "__main__":
    main()
