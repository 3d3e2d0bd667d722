"""The rules of the house, so that it stays one."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.mapping import read_folder

ROOT = Path(__file__).parents[1]
RELAY = ROOT / "relay"
MODULES = sorted(RELAY.rglob("*.py"))
EDGES = ("relay.web", "relay.cli", "relay.sandbox", "relay.demo", "relay.runtime", "relay.settings", "relay.telemetry")
CORE = (
    "relay.errors",
    "relay.model",
    "relay.signature",
    "relay.mapping",
    "relay.contract",
    "relay.translate",
    "relay.intake",
    "relay.dispatch.policy",
    "relay.dispatch.quota",
    "relay.dispatch.plan",
)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> Iterator[str]:
    """Every module that this file imports, whole; `from relay import x` counts as relay.x when that is a module."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            known = {_name(module) for module in MODULES}
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in inner)


def _importers(package: str) -> set[str]:
    return {_name(path) for path in MODULES if any(name.split(".")[0] == package for name in _imports(path))}


def _below(names: set[str], *allowed: str) -> set[str]:
    """The names that are not one of the allowed modules, nor below one."""
    return {name for name in names if not any(name == top or name.startswith(f"{top}.") for top in allowed)}


def test_the_event_loop_is_known_only_to_the_web_process():
    assert _importers("gevent") == {"relay.web.worker"}
    assert _below(_importers("gunicorn"), "relay.web") == set()


def test_flask_is_imported_only_by_the_web_side_and_the_sandbox():
    assert _below(_importers("flask"), "relay.web", "relay.sandbox") == set()


def test_requests_is_imported_only_by_destinations():
    assert _below(_importers("requests"), "relay.destinations") == set()


def test_sql_is_spoken_only_by_the_outbox():
    assert _below(_importers("sqlalchemy") | _importers("alembic") | _importers("psycopg"), "relay.outbox") == set()


def test_the_environment_is_read_only_by_the_settings():
    readers = {
        _name(path)
        for path in MODULES
        for node in ast.walk(_tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and _is_os(node.value))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and _names(node) & {"environ", "getenv"})
    }
    assert readers == {"relay.settings"}


def _names(node: ast.ImportFrom) -> set[str]:
    return {alias.name for alias in node.names}


def _is_os(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "os"


def test_no_module_knows_a_source_by_name():
    """A new source is one YAML file; nothing in Python may treat one of them differently."""
    # A source that is fed by the direct intake may be called as a destination is.
    files = [document.data for document in read_folder(ROOT / "mappings").documents]
    sources = {data["source"] for data in files if "direct" not in data}
    assert len(sources) >= 4
    sources.discard("release")  # also the name of a destination, and a word
    named = re.compile("|".join(rf"\b{re.escape(source)}\b" for source in sources))
    for path in MODULES:
        tree = _tree(path)
        texts = {
            node.value: node.lineno
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        names = {node.id: node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name)}
        told = [f"{path}:{line}: {text!r}" for text, line in {**texts, **names}.items() if named.search(text)]
        assert told == []


@pytest.mark.parametrize("path", [path for path in MODULES if _below({_name(path)}, *CORE) == set()], ids=_name)
def test_the_core_imports_no_edge(path):
    assert [name for name in _imports(path) if _below({name}, *EDGES, "flask", "requests", "sqlalchemy") == set()] == []


def test_the_core_reads_no_clock_and_no_randomness():
    for path in MODULES:
        if _below({_name(path)}, *CORE) == set():
            # A hash is no randomness, and `random.Random` as the type of an argument reads none.
            assert {"time", "secrets", "uuid"} & set(_imports(path)) == set(), path


def test_no_import_goes_in_a_circle():
    graph = {_name(path): {name for name in _imports(path) if name.startswith("relay")} for path in MODULES}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for imported in sorted(graph.get(name, ())):
                visit(imported, (*trail, name))
            done.add(name)

    done: set[str] = set()
    for name in graph:
        visit(name, ())


def test_modules_are_of_a_size_that_reads_well():
    long = {_name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
