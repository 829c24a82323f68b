"""What `inspect` found, for people and for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from millrace.cli.show import grid, print_table
from millrace.core.bundle import compute_digest
from millrace.core.sizes import shown_bytes

if TYPE_CHECKING:
    from millrace.cli.inspect import Inspected
    from millrace.cli.model_trial import EngineTrial, Trial
    from millrace.export.inspect import GraphFacts, SavedModelFacts
    from millrace.export.inspect_tensors import Tensor

COMMONEST = 8
"""Types of operations that are shown to people."""

NOT_IN_GRAPH = "the graph does not tell the scale of its input: say --scale, and --labels FILE"


def operations(facts: SavedModelFacts) -> list[dict[str, Any]]:
    return [
        {"tags": list(graph.tags), **asdict(operation)}
        for graph in facts.graphs
        for operation in graph.operations
    ]


def list_operations(facts: SavedModelFacts) -> None:
    """`name type`, one a line; what is within a function after its name."""
    for graph in facts.graphs:
        if len(facts.graphs) > 1:
            print(f"# {','.join(graph.tags)}")
        for each in graph.operations:
            print(f"{each.name} {each.type}" + (f" in {each.function}" if each.function else ""))


def as_json(found: Inspected) -> dict[str, Any]:
    bundle, facts = found.bundle, found.facts
    return {
        "path": str(facts.path),
        "form": facts.form,
        "files": facts.files,
        "bytes": facts.bytes,
        "card": None if bundle is None else bundle.card.model_dump(mode="json"),
        "card_problem": found.card_problem,
        "labels": None if bundle is None else len(bundle.labels),
        "intact": _intact(found),
        "graphs": [_graph_json(graph, found) for graph in facts.graphs],
    }


def _graph_json(graph: GraphFacts, found: Inspected) -> dict[str, Any]:
    ends, trial = graph.interface, found.trials.get(graph.tags)
    return {
        "tags": list(graph.tags),
        "tensorflow": graph.tensorflow,
        "signatures": {
            each.name: {
                "inputs": [_tensor_json(tensor) for tensor in each.inputs],
                "outputs": [_tensor_json(tensor) for tensor in each.outputs],
            }
            for each in graph.signatures
        },
        "likely": None
        if ends is None
        else {
            "input": _tensor_json(ends.input),
            "output": _tensor_json(ends.output),
            "other_inputs": [_tensor_json(tensor) for tensor in ends.other_inputs],
            "other_outputs": [_tensor_json(tensor) for tensor in ends.other_outputs],
            "signature": ends.signature,
            "flags": ends.flags,
        },
        "parameters": {**asdict(graph.parameters), "total": graph.parameters.total},
        "ops": graph.ops,
        "operations": len(graph.operations),
        "functions": graph.functions,
        "tried_with": None if trial is None else found.sizes[graph.tags],
        "trial": None if trial is None else asdict(trial),
    }


def _tensor_json(tensor: Tensor) -> dict[str, Any]:
    return {**asdict(tensor), "batch": tensor.batch}


def show(found: Inspected) -> None:
    """For people."""
    facts, table = found.facts, grid()
    table.add_row("model", escape(str(facts.path)))
    form = "" if facts.form == "binary" else f", as {facts.form}"
    files = f"{facts.files:,} file{'' if facts.files == 1 else 's'}"
    table.add_row("size", f"{shown_bytes(facts.bytes)} in {files}{form}")
    for name, text in _card_rows(found):
        table.add_row(name, text)
    print_table(table)
    for graph in facts.graphs:
        table = grid()
        for name, text in _graph_rows(graph, found):
            table.add_row(name, text)
        print()
        print_table(table)


def _intact(found: Inspected) -> bool | None:
    """Whether the files are those of the card's digest; None if there is none."""
    bundle = found.bundle
    if bundle is None or bundle.card.digest is None:
        return None
    return compute_digest(bundle.path, bundle.card) == bundle.card.digest


def _card_rows(found: Inspected) -> list[tuple[str, str]]:
    if found.card_problem:
        return [("card", f"[red]{escape(found.card_problem)}[/]")]
    if found.bundle is None:
        return [("card", "none")]
    card, labels = found.bundle.card, found.bundle.labels
    version = f":{card.version}" if card.version else ""
    takes = f"{card.height} × {card.width} {card.channels}, scale {card.normalisation.spelled}"
    intact = _intact(found)
    wrong = "  [red]which is not that of its files[/]" if intact is False else ""
    return [
        ("card", escape(f"{card.name}{version}, {card.task}")),
        ("takes", escape(f"{takes}, {card.resize}, {card.filter}")),
        ("answers", f"{card.scores}, the best {card.top_k}, {len(labels):,} labels"),
        ("written by", escape(", ".join(f"{k} {v}" for k, v in card.frameworks.items()) or "-")),
        ("digest", f"{card.digest or '-'}{wrong}"),
    ]


def _graph_rows(graph: GraphFacts, found: Inspected) -> list[tuple[str, str]]:
    from millrace.export.session_graph import OBJECTS_ALONE

    ends = graph.interface
    rows = [("graph", f"[bold]{escape(','.join(graph.tags) or '(no tags)')}[/]")]
    rows.append(("written by", escape(f"TensorFlow {graph.tensorflow or '(unknown)'}")))
    for each in graph.signatures:
        rows.append(("signature", escape(each.name)))
        rows += [("  input", escape(f"{x.key}: {x}, batch {x.batch}")) for x in each.inputs]
        rows += [("  output", escape(f"{x.key}: {x}")) for x in each.outputs]
    if not graph.signatures:
        rows.append(("signature", "none"))
    if ends is None:
        rows.append(("", f"[yellow]{escape(OBJECTS_ALONE)}[/]"))
    else:
        if ends.signature is None:
            rows.append(("likely input", escape(f"{ends.input}, batch {ends.input.batch}")))
            rows.append(("likely output", escape(str(ends.output))))
            rows += [("  or input", escape(str(x))) for x in ends.other_inputs]
            rows += [("  or output", escape(str(x))) for x in ends.other_outputs]
        if found.bundle is None:
            rows.append(("flags", escape(ends.flags or "none needed")))
            rows.append(("", f"[dim]{NOT_IN_GRAPH}[/]"))
    rows.append(("parameters", _parameters(graph)))
    rows.append(("operations", _operations(graph)))
    return rows + _trial_rows(found.trials.get(graph.tags), found.sizes.get(graph.tags), graph)


def _parameters(graph: GraphFacts) -> str:
    count = graph.parameters
    if not count.constants:
        return f"{count.variables:,} in variables"
    if not count.variables:
        return f"{count.constants:,} in constants"
    return f"{count.total:,}: {count.variables:,} in variables, {count.constants:,} in constants"


def _operations(graph: GraphFacts) -> str:
    total = sum(graph.ops.values())
    some = [f"{op} {number:,}" for op, number in list(graph.ops.items())[:COMMONEST]]
    more = len(graph.ops) - len(some)
    rest = f", {more} more types" if more else ""
    return escape(f"{total:,} that count of {len(graph.operations):,}: {', '.join(some)}{rest}")


def _trial_rows(
    trial: Trial | None, size: tuple[int, int] | None, graph: GraphFacts
) -> list[tuple[str, str]]:
    if trial is None or size is None:
        return [("runs", "not tried: it does not look like a model of images")]
    ran = trial.tensorflow
    free = graph.interface is not None and graph.interface.size is None
    tried = f" at {size[0]} × {size[1]}, which --size changes" if free else ""
    if not ran.runs:
        rows = [("runs", f"[red]no[/]{tried}: {escape(ran.why or '')}")]
    else:
        one = "" if ran.batch is None else f", [yellow]in batches of {ran.batch}[/]"
        rows = [("runs", f"[green]yes[/]{one}{tried}")]
        why = "" if trial.frozen else f": {escape(trial.why_not_frozen or '')}"
        rows.append(("freezes", ("[green]yes[/]" if trial.frozen else "[yellow]no[/]") + why))
    return [*rows, ("OpenVINO", _openvino(trial.openvino))]


def _openvino(trial: EngineTrial | None) -> str:
    if trial is None:
        return "not installed"
    if not trial.runs:
        return f"[yellow]does not take it[/]: {escape(trial.why or '')}"
    return "[green]takes it[/]" + ("" if trial.batch is None else f", in batches of {trial.batch}")
