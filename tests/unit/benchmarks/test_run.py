"""Which tables a run makes."""

from __future__ import annotations

import pytest

from benchmarks.run import BASE, DEFAULT, parser, workloads
from benchmarks.tables import Workload


def asked(line: str) -> list[str]:
    return [workload.name for workload in workloads(parser().parse_args(line.split()))]


def test_without_options_there_are_four_each_one_thing_away_from_the_first() -> None:
    assert workloads(parser().parse_args([])) == DEFAULT
    assert DEFAULT[0] == BASE
    for other in DEFAULT[1:]:
        same = [getattr(other, name) == getattr(BASE, name) for name in Workload.model_fields]
        assert same.count(False) == 1


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("--quick", ["mobilenetv2, small, disk"]),
        ("--rounds 5 --storage s3", ["mobilenetv2, small, s3"]),
        ("--inputs large --models resnet50", ["resnet50, large, disk"]),
        (
            "--inputs small large --storage disk s3",
            [
                "mobilenetv2, small, disk",
                "mobilenetv2, small, s3",
                "mobilenetv2, large, disk",
                "mobilenetv2, large, s3",
            ],
        ),
        ("--pictures DIR --inputs large", ["mobilenetv2, own, disk"]),
    ],
)
def test_options_choose_others_and_what_is_not_chosen_is_the_first_ones(
    line: str, names: list[str]
) -> None:
    assert asked(line) == names


def test_who_races_alone_is_chosen_by_a_name_that_is_known() -> None:
    assert parser().parse_args(["--only", "tf-data"]).only == ["tf-data"]
    with pytest.raises(SystemExit):
        parser().parse_args(["--only", "nobody"])
