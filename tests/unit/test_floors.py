"""The house as DESIGN.md draws it, checked by reading imports."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

MAY_IMPORT = {
    "core": set[str](),
    "models": {"core"},
    "export": {"core", "models"},
    "producer": {"core"},
    "worker": {"core"},
    "cli": {"core", "models", "export", "producer", "worker"},
}
LONGEST = 350


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("millrace", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {
    module_name(path): path for floor in MAY_IMPORT for path in sorted((ROOT / floor).rglob("*.py"))
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(nodes: Iterator[ast.AST], module: str = "") -> set[str]:
    """The modules that import statements among `nodes` name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative imports do not say which floor they reach"
            assert node.module is not None
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` imports the module; anything else, the package.
            found |= {name if name in MODULES else node.module for name in names}
    return found


@cache
def all_imports(module: str) -> set[str]:
    return imported(ast.walk(tree(MODULES[module])), module)


def imports_on_loading(nodes: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported; type checkers' blocks do not."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for body in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from imports_on_loading(getattr(node, body, []))


def floor_of(module: str) -> str | None:
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "millrace" else None


def within(module: str, packages: set[str]) -> bool:
    return module.partition(".")[0] in packages


@pytest.mark.parametrize("module", MODULES)
def test_a_floor_imports_only_the_floors_below_it(module: str) -> None:
    own = floor_of(module)
    assert own is not None
    reached = {floor for name in all_imports(module) if (floor := floor_of(name))}
    assert reached - {own} <= MAY_IMPORT[own]


def test_every_import_of_ours_names_a_module_that_is_there() -> None:
    for module in MODULES:
        ours = {name for name in all_imports(module) if within(name, {"millrace"})}
        assert ours <= set(MODULES), module


def test_nothing_imports_a_bare_floor() -> None:
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    for path in [*MODULES.values(), *others]:
        bare = {name for name in imported(ast.walk(tree(path))) if within(name, set(MAY_IMPORT))}
        assert not bare, f"{path.relative_to(ROOT)} imports {bare}"


def test_only_tests_import_tests() -> None:
    for module in MODULES:
        assert not [name for name in all_imports(module) if within(name, {"tests", "benchmarks"})]


def test_no_module_imports_itself_in_the_end() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        direct = imported(imports_on_loading(tree(path).body))
        reached = {name for name in direct if name in MODULES}
        # Importing a module runs the packages it lies in, but for those we are in already.
        for name in set(reached):
            while (name := name.rpartition(".")[0]) and name in MODULES:
                if not module.startswith(f"{name}.") and module != name:
                    reached.add(name)
        graph[module] = reached
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


TENSORFLOW = {"tensorflow", "keras", "tf_keras"}


def test_only_the_session_of_a_worker_knows_tensorflow() -> None:
    for module in MODULES:
        if floor_of(module) == "worker" and module != "millrace.worker.session":
            names = all_imports(module)
            assert not [name for name in names if within(name, TENSORFLOW)]
            assert "millrace.core.load_tensorflow" not in names


def test_tensorflow_is_imported_late() -> None:
    for module, path in MODULES.items():
        on_loading = imported(imports_on_loading(tree(path).body))
        assert not [name for name in on_loading if within(name, TENSORFLOW)], module


PICTURES = "millrace.core.pictures"


def test_core_and_producer_do_without_the_libraries_of_the_others() -> None:
    foreign = {"numpy", "PIL", "typer", "rich"}
    for module in MODULES:
        if floor_of(module) in ("core", "producer") and module != PICTURES:
            assert not [name for name in all_imports(module) if within(name, foreign)], module


def test_core_and_producer_import_pictures_late() -> None:
    for module, path in MODULES.items():
        if floor_of(module) in ("core", "producer"):
            assert PICTURES not in imported(imports_on_loading(tree(path).body)), module


def test_importing_the_command_line_loads_the_command_line_alone() -> None:
    needed, loaded = ["millrace.cli.main"], set[str]()
    while needed:
        module = needed.pop()
        if module not in loaded:
            loaded.add(module)
            direct = imported(imports_on_loading(tree(MODULES[module]).body))
            needed += [name for name in direct if name in MODULES]
    assert {floor_of(module) for module in loaded} == {"cli"}


def test_a_module_is_about_one_idea() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > LONGEST} == {}


def test_a_module_says_what_it_is_for() -> None:
    for module, path in MODULES.items():
        assert ast.get_docstring(tree(path)) or not path.read_text().strip(), module


def test_the_packages_are_the_folders_that_are_there() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    assert set(config["packages"]) == folders
    for package, folder in config["package-dir"].items():
        assert package == f"millrace.{folder}"
        assert (ROOT / folder).is_dir()
    tops = {package for package in folders if package.count(".") == 1}
    assert set(config["package-dir"]) == tops


def test_every_module_lies_in_a_package() -> None:
    for path in MODULES.values():
        assert (path.parent / "__init__.py").exists(), path


def test_there_is_no_folder_called_millrace() -> None:
    assert not (ROOT / "millrace").exists()


def test_every_script_in_lua_is_packaged() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "lua/*.lua" in config["package-data"]["millrace.core"]
