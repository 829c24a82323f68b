"""Commands say JSON in the end, or why they do not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from benchmarks.command import Failed, run_json
from tests.support import wait_until


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("print('{\\n \"a\": 1\\n}')", {"a": 1}),
        ("print('loading …'); print('{\"a\": 2}'); print()", {"a": 2}),
    ],
    ids=["over several lines", "as the last line"],
)
def test_the_answer_is_what_is_printed_last(script: str, answer: object) -> None:
    assert run_json(python(script), os.environ) == answer


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; sys.exit('first\\nthe reason\\n\\n')", "^the reason$"),
        ("import sys; sys.exit(7)", "^exit code 7$"),
        ("import os; os.kill(os.getpid(), 9)", "^exit code -9$"),
        ("", "^it printed no JSON but ''$"),
        ("print('all is well')", "^it printed no JSON but 'all is well'$"),
    ],
    ids=["complaint", "exit code", "killed", "nothing", "no JSON"],
)
def test_a_failure_is_told_in_its_last_words(script: str, words: str) -> None:
    with pytest.raises(Failed, match=words):
        run_json(python(script), os.environ)


def test_it_gets_the_environment_given_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "1")
    script = "import json, os; print(json.dumps([os.getenv('OF_THE_CALLER'), os.getenv('GIVEN')]))"
    assert run_json(python(script), {"GIVEN": "2"}) == [None, "2"]


@pytest.mark.parametrize(
    ("ending", "within_s", "words"),
    [
        ("wait", 3, "^not done within 3 s$"),
        ("exit 0", 3, "^not done within 3 s$"),  # the child keeps its output open
        ("exec >&- 2>&-; exit 7", 60, "^exit code 7$"),
    ],
)
def test_all_it_started_is_ended_with_it(
    ending: str, within_s: float, words: str, tmp_path: Path
) -> None:
    noted, out = tmp_path / "child", ">&- 2>&-" if "exec" in ending else ""
    script = f"sleep 600 {out} & echo $! > {noted}; {ending}"
    with pytest.raises(Failed, match=words):
        run_json(["sh", "-c", script], os.environ, within_s)
    child = Path("/proc", noted.read_text().strip(), "stat")

    def ended() -> bool:
        # Whoever adopts it may leave it a zombie.
        return not child.exists() or child.read_text().rpartition(") ")[2].startswith("Z")

    wait_until(ended, 10, "the command's child is ended")
