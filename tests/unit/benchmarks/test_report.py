"""What people read: the tables as Markdown."""

from __future__ import annotations

from benchmarks.report import markdown, scale_markdown, table_markdown
from benchmarks.tables import Cost, Results, Row
from tests.unit.benchmarks.test_tables import MACHINE, row, table, with_costs

COST = Cost(decode_s=0.004, predict_s=0.006)


def cells(text: str, name: str) -> list[str]:
    """The cells of the table line that begins with a name."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    assert len(lines) == 1, text
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_a_line_tells_rate_ratio_limit_efficiency_and_agreement() -> None:
    ours = with_costs(row("ours", 170, 180, 190), COST, None, None)
    text = table_markdown(table(ours, row("peer", 60, peer=True)), cores=2)
    wanted = ["ours", "180.0 (170.0–190.0)", "3.00×", "200.0 (3.33×)", "85.0%", "100.0%", "4.0"]
    assert cells(text, "ours") == wanted
    assert cells(text, "**peer**")[:5] == ["**peer**", "60.0 (60.0–60.0)", "1.00×", "", ""]
    assert "ours 4.00 + 6.00 ms" in text
    assert "run ours\nrun peer" in text
    assert "600 to 1900 images a run" in text


def test_who_is_absent_is_named_with_the_reason_and_has_no_line() -> None:
    absent = Row(name="ours", peer=False, command="", absent="millrace run does not know --engine")
    text = table_markdown(table(absent, row("peer", 1, peer=True)), cores=2)
    assert "- ours is absent: millrace run does not know --engine" in text
    assert "| ours |" not in text


def test_storage_that_costs_cpu_here_says_how_much() -> None:
    measured = row("ours", 100)
    samples = tuple(s.model_copy(update={"store_cpu_s": 0.25}) for s in measured.samples)
    from_s3 = table(measured.model_copy(update={"samples": samples}), storage="s3")
    assert cells(table_markdown(from_s3, cores=2), "ours")[-1] == "0.25"
    assert "S3 endpoint" not in table_markdown(table(measured), cores=2)


def test_scaling_says_what_each_run_is_compared_with() -> None:
    text = scale_markdown(table(row("1 process", 50), row("2 processes", 95, base="1 process")))
    assert cells(text, "1 process")[2:4] == ["", ""]
    assert cells(text, "2 processes")[2:4] == ["1.90×", "1 process"]


def test_the_report_names_machine_and_versions_and_holds_every_table() -> None:
    results = Results(machine=MACHINE, versions={"tensorflow": "2", "peers: ray": "3"})
    results = results.with_table(table(row("a", 1))).with_table(table(row("b", 1), storage="s3"))
    text = markdown(results.model_copy(update={"scale": table(row("c", 1))}))
    assert "2 cores of Abacus 3000, 8.0 GiB" in text
    assert "tensorflow 2, peers: ray 3." in text
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings[1:] == ["## m, small, disk", "## m, small, s3", "## Scaling: m, small"]
