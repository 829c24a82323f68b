"""`millrace worker`: nonsense is told once, before any process is started."""

from __future__ import annotations

import pytest

from millrace.core.errors import ExitCode
from tests.unit.cli.conftest import Invoke


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either a model"),
        (["--model", "m", "--saved-model", "x"], "either a model"),
        (["--saved-model", "x"], "needs a name"),
        (["--model", "m", "--size", "8y"], "'8y' is not an input size"),
        (["--model", "m", "--channels", "RGBA"], "MILLRACE_CHANNELS: "),
        (["--model", "m", "--batch-size", "5000"], "MILLRACE_BATCH_SIZE: "),
        (["--model", "m", "--log-level", "loud"], "MILLRACE_LOG_LEVEL: "),
        (["--model", "m", "--redis-url", "http://x"], "MILLRACE_REDIS_URL: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options_that_make_no_sense_are_a_usage_error(
    run: Invoke, arguments: list[str], words: str
) -> None:
    said = run("worker", *arguments)
    assert (said.code, said.out) == (ExitCode.USAGE, "")
    assert said.err.startswith("millrace: ")
    assert words in said.err
