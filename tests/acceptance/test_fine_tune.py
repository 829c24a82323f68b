"""From a base to a running job: fine-tune on a folder of PNGs, export by tag, predict a folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.job_checks import check_job
from tests.support import millrace, millrace_json
from tests.unit.models.idx_files import COUNT, write_digit_folders

UNSEEN = range(0, COUNT, 3)
LEARNT = [number for number in range(COUNT) if number not in UNSEEN]


def test_a_base_learns_new_classes_and_serves_them_by_tag(tmp_path: Path) -> None:
    # The base: a network that tells the ten digits apart.
    small, base = write_digit_folders(tmp_path / "small", LEARNT), tmp_path / "base"
    millrace_json("train", "digits", "--data", str(small), "--run", str(base), env={})
    weights = max((base / "checkpoints").iterdir())

    # Fine-tuned on folders whose names are the classes.
    pictures = write_digit_folders(tmp_path / "pictures", LEARNT, side=32)
    for folder in list(pictures.iterdir()):
        folder.rename(pictures / f"digit {folder.name}")
    report = millrace_json(
        *("train", "fine-tune", "--base", "digits", "--weights", str(weights)),
        *("--data", str(pictures), "--run", str(tmp_path / "run"), "--epochs", "12"),
        *("--unfreeze", "4", "--learning-rate", "0.005", "--name", "numerals"),
        *("--to", str(tmp_path / "models"), "--tag", "myTag"),
        env={},
    )
    assert report["classes"] == [f"digit {n}" for n in range(10)]
    assert report["accuracy"] > 0.9
    card = json.loads(
        (tmp_path / "models" / "numerals" / "1" / "assets.extra" / "millrace.json").read_text()
    )
    assert card["tags"] == ["myTag"]

    # Digits that neither has seen, as a job.
    unseen = write_digit_folders(tmp_path / "unseen", UNSEEN, side=32)
    done = millrace(
        *("run", str(unseen), "--model", "numerals", "--models", str(tmp_path / "models")),
        *("--out", str(tmp_path / "out"), "--json"),
        env={},
    )
    assert done.returncode == 0, done.stderr
    status = json.loads(done.stdout)
    outcomes = check_job(f"{tmp_path}/out/{status['job_id']}", status)
    assert len(outcomes) == len(UNSEEN)
    right = sum(
        outcome["predictions"][0]["label"] == f"digit {outcome['key'].partition('/')[0]}"
        for outcome in outcomes
    )
    accuracy = right / len(outcomes)
    print(f"accuracy of the job: {accuracy:.2%}")
    assert accuracy > 0.9
