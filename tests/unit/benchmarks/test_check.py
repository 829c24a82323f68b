"""Nobody cheats: missing, doubled, failed and other answers are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.check import Cheated, agreement, millrace_answers, peer_answers

REFERENCE = [7, 8]


def answers(*top: int) -> dict[str, int]:
    return {f"{number:06d}.jpg": value for number, value in enumerate(top)}


def test_agreement_is_the_share_of_equal_top_classes() -> None:
    assert agreement(answers(7, 8, 7, 8), 4, REFERENCE) == 1.0
    mostly = answers(*[7, 8] * 9, 7, 9)
    assert agreement(mostly, 20, REFERENCE) == 0.95


def test_a_missing_image_is_found() -> None:
    with pytest.raises(Cheated, match="3 predictions for 4 images"):
        agreement(answers(7, 8, 7), 4, REFERENCE)


def test_an_image_that_was_not_given_is_found() -> None:
    with pytest.raises(Cheated, match=r"^it predicted 000002\.jpg, which it was not given$"):
        agreement(answers(7, 8, 7), 2, REFERENCE)


def test_other_answers_are_found() -> None:
    with pytest.raises(Cheated, match=r"only 50.0%"):
        agreement(answers(7, 7), 2, REFERENCE)


def test_millraces_outcome_lines_are_read(tmp_path: Path) -> None:
    part = tmp_path / "results" / "part-00000"
    part.mkdir(parents=True)
    line = {"key": "a/000000.jpg", "predictions": [{"index": 7, "score": 0.5}, {"index": 1}]}
    (part / "chunk-0000000.jsonl").write_text(json.dumps(line) + "\n")
    assert millrace_answers(tmp_path) == {"000000.jpg": 7}
    (part / "chunk-0000001.jsonl").write_text(json.dumps({"key": "b", "error": {}}) + "\n")
    with pytest.raises(Cheated, match="error line"):
        millrace_answers(tmp_path)
    (part / "chunk-0000001.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(Cheated, match="answered twice"):
        millrace_answers(tmp_path)


def test_a_peers_file_or_directory_of_files_is_read(tmp_path: Path) -> None:
    first = json.dumps({"key": "s3://x/000000.jpg", "indices": [7, 1]}) + "\n"
    second = json.dumps({"key": "000001.jpg", "indices": [8]}) + "\n"
    (tmp_path / "one.json").write_text(first + second)
    assert peer_answers(tmp_path / "one.json") == answers(7, 8)
    assert peer_answers(tmp_path) == answers(7, 8)
    (tmp_path / "two.json").write_text(second)
    with pytest.raises(Cheated, match="answered twice"):
        peer_answers(tmp_path)
    assert peer_answers(tmp_path / "none.json") == {}
