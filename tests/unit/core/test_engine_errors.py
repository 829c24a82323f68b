"""An engine's error becomes one line that says what is wrong."""

from __future__ import annotations

import pytest

from millrace.core.engine_errors import LONGEST, as_model_errors, telling_line
from millrace.core.errors import MissingExtra, ModelError

OPENVINO = """Exception from src/inference/src/cpp/core.cpp:111:
FrontEnd API failed with OpConversionFailure:
Check 'unconverted.empty()' failed at src/frontends/tensorflow/src/frontend.cpp:465:
[TensorFlow Frontend] no conversion rule for NonMax
"""

UNCONVERTED = """Exception from src/inference/src/cpp/core.cpp:84:
Check 'false' failed at src/frontends/common_translators/src/unconverted_ops_report.cpp:151:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted. Failed operations detailed log:
-- VariableV2 with a message:
Variable or resource `t0` is not initialized, model is inconsistent
Summary:
-- Conversion is failed for: VariableV2
"""

WITHOUT_RULE = """Exception from src/inference/src/cpp/core.cpp:84:
FrontEnd API failed with OpConversionFailure:
Model wasn't fully converted.
Summary:
-- No conversion rule found for operations: WriteFile
"""

TRUNCATED = """Graph execution error:

Detected at node 'save/RestoreV2' defined at (most recent call last):
Node: 'save/RestoreV2'
Read less bytes than requested
  [[{{node save/RestoreV2}}]]
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (UNCONVERTED, "Variable or resource `t0` is not initialized, model is inconsistent"),
        (WITHOUT_RULE, "-- No conversion rule found for operations: WriteFile"),
        (TRUNCATED, "Read less bytes than requested"),
        (OPENVINO, "[TensorFlow Frontend] no conversion rule for NonMax"),
        ("Graph execution error:\n\n  Table not initialized.\n", "Table not initialized."),
        ("Check failed: one\n", "Check failed: one"),
        ("x" * 999, "x" * LONGEST),
        (" \n", "ValueError"),
    ],
)
def test_one_line_says_what_is_wrong(text: str, said: str) -> None:
    assert telling_line(ValueError(text)) == said


def test_whatever_is_raised_is_a_model_error() -> None:
    with pytest.raises(ModelError) as caught, as_model_errors("the model stumbles", hint="tie it"):
        raise KeyError("shoe")
    assert caught.value.message == "the model stumbles: 'shoe'"
    assert caught.value.hint == "tie it"
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_model_error_passes_as_it_is() -> None:
    error = ModelError("no signature", hint="it has others")
    with pytest.raises(ModelError) as caught, as_model_errors("the model stumbles"):
        raise error
    assert caught.value is error


def test_what_is_missing_passes_as_it_is() -> None:
    error = MissingExtra("TensorFlow", "worker")
    with pytest.raises(MissingExtra) as caught, as_model_errors("the model stumbles"):
        raise error
    assert caught.value is error
