"""The plan of who may import whom, held to the imports.

Imports run one way, from the bottom of `LEVELS` to the top: a module may import modules of lower
levels only, so the two services, which share a level, never import each other. Each library has one
floor. Inside `shared`, the standard library is limited to what can neither wait nor roll dice, and
so are the built-in functions and what is taken from NumPy.

The load generator imports none of the other packages: it knows the services by what they say over
HTTP. Its one exception is the module that asks no service at all, and says so in its name.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).parent.parent

LEVELS = [
    {"shared.values"},
    {"shared.lines"},
    {"shared.clusters", "shared.picture"},
    {"shared.digest", "shared.drawing"},
    {"shared.rank_shift"},
    {"shared.protocol", "shared.distribution"},
    {"shared.wording", "shared.rows"},
    {"shared.outbox", "shared.ledger"},
    {"shared.tracker", "shared.serving"},
    {"worker_service", "coordinator_service"},
]
ALONE = {"loadgen"}  # speaks HTTP only
BUT = {"loadgen.simulate": "shared.tracker"}  # speaks to nobody: all is in its own process
WAITS = "shared.serving"  # the one room of shared that may: sockets, clocks, the environment
PACKAGES = {"shared", "worker_service", "coordinator_service", "loadgen"}

HOMES = {
    "numpy": {"shared", "worker_service", "coordinator_service", "loadgen"},
    "msgpack": {"shared", "worker_service.intake", "coordinator_service.store", "loadgen"},
    "rich": {"loadgen"},
    "typer": {"loadgen"},
    "certifi": {"shared.serving.tls", "loadgen"},
    "httpx": {"worker_service.courier", "loadgen"},
    "fastapi": {
        "worker_service.app", "coordinator_service.app", "coordinator_service.pages", WAITS,
    },
    "starlette": {"coordinator_service.app", WAITS},
    "pydantic": {
        "worker_service.app", "worker_service.settings",
        "coordinator_service.told", "coordinator_service.settings", WAITS,
    },
    "pydantic_core": {"worker_service.intake"},
    "pydantic_settings": {"shared.serving.settings"},
    "prometheus_client": {
        "worker_service.app", "worker_service.metrics",
        "coordinator_service.app", "coordinator_service.metrics", "shared.serving.metrics",
    },
    "uvicorn": {
        "shared.serving.server", "shared.serving.connections", "shared.serving.crowd",
    },
    "httptools": {"shared.serving.connections"},
}  # fmt: skip
PURE = {
    "array", "bisect", "collections", "dataclasses", "enum", "functools", "hashlib", "math",
    "typing",
}  # fmt: skip


IMPURE = {"open", "input", "print", "exec", "eval", "__import__", "breakpoint"}
IMPURE_OF_NUMPY = {"random", "load", "save", "savez", "loadtxt", "savetxt", "fromfile", "tofile"}


class Import(NamedTuple):
    importer: str
    imported: str


def imports_of(importer: str, source: str) -> list[Import]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(importer, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            inside = package in PACKAGES
            names = [f"{package}.{alias.name}" for alias in node.names] if inside else [package]
            found += [Import(importer, "." * node.level + name) for name in names]
    return found


def impure(source: str) -> set[str]:
    """Names that read, write, wait or roll dice without an import of their own."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    names |= {
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    attributes |= {part for module in modules for part in module.split(".")}
    return names & (IMPURE | IMPURE_OF_NUMPY) | attributes & IMPURE_OF_NUMPY


def level(module: str) -> int | None:
    """Where a module stands, by its own name or its package's; None: not in the plan."""
    parts = module.split(".")
    names = {".".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
    return next((height for height, rooms in enumerate(LEVELS) if rooms & names), None)


def inside(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def room(module: str) -> str:
    """A package, or the room of `shared` that waits."""
    return WAITS if inside(module, {WAITS}) else module.partition(".")[0]


def offence(step: Import) -> str | None:
    """What an import breaks, in a sentence; None where it is as planned."""
    importer, imported = step
    top, imported_top = importer.partition(".")[0], imported.partition(".")[0]
    if imported.startswith("."):
        return f"{importer} imports {imported}: relative imports hide who imports whom"
    if imported_top in PACKAGES:
        if room(importer) == room(imported) != "shared" or BUT.get(importer) == imported:
            return None
        mine, theirs = level(importer), level(imported)
        if top in ALONE or mine is None or theirs is None or theirs >= mine:
            return f"{importer} imports {imported}: imports run from low levels to high ones"
    elif imported_top in sys.stdlib_module_names:
        if room(importer) == "shared" and imported_top not in PURE:
            return f"{importer} imports {imported}: shared is pure"
    elif not inside(importer, HOMES.get(imported_top, set())):
        return f"{importer} imports {imported}: that library lives elsewhere"
    return None


def modules() -> list[tuple[str, Path]]:
    files = [path for package in PACKAGES for path in (TOP / package).rglob("*.py")]
    named = [(".".join(path.relative_to(TOP).with_suffix("").parts), path) for path in files]
    return sorted((name.removesuffix(".__init__"), path) for name, path in named)


def test_every_import_is_as_planned() -> None:
    steps = [step for name, path in modules() for step in imports_of(name, path.read_text())]
    assert [found for step in steps if (found := offence(step))] == []


def test_shared_is_pure_in_what_it_needs_no_import_for() -> None:
    found = {name: impure(path.read_text()) for name, path in modules() if room(name) == "shared"}
    assert {name: names for name, names in found.items() if names} == {}


def test_no_invariant_of_shared_vanishes_under_python_o() -> None:
    asserts = [
        name
        for name, path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


@pytest.mark.parametrize(
    "source",
    [
        "open('x')",
        "np.random.default_rng()",
        "from numpy.random import default_rng",
        "from numpy import random",
        "np.save('x', y)",
        "values.tofile('x')",
        "__import__('time')",
    ],
)
def test_what_is_impure_without_an_import_is_seen(source: str) -> None:
    assert impure(source)


def test_every_module_is_in_the_plan() -> None:
    names = [name for name, _ in modules() if name not in {"shared", *ALONE}]
    assert [name for name in names if level(name) is None and not inside(name, ALONE)] == []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("shared.digest", "import asyncio"),
        ("shared.digest", "from time import monotonic"),
        ("shared.digest", "import random"),
        ("shared.digest", "import httpx"),
        ("shared.digest", "from shared import tracker"),
        ("shared.ledger", "from shared.serving.server import clock"),
        ("shared.serving.server", "from worker_service.app import create_app"),
        ("shared.tracker", "import fastapi"),
        ("shared.digest", "from shared.ledger import Ledger"),
        ("shared.outbox", "import shared.ledger"),
        ("shared.outbox", "from . import ledger"),
        ("shared.unheard_of", "from shared.digest import Digest"),
        ("worker_service.app", "from coordinator_service.answers import Answer"),
        ("worker_service.store", "import fastapi"),
        ("loadgen.replay", "from shared.tracker import simulate"),
        ("loadgen.replay", "from shared import tracker"),
        ("loadgen.watching.page", "from shared.values import as_values"),
        ("loadgen.simulate", "from shared.ledger import Ledger"),
        ("loadgen.simulate", "from shared import tracker, values"),
        ("loadgen.simulate", "from coordinator_service.app import create_app"),
        ("coordinator_service.answers", "import pandas"),
    ],
)
def test_an_import_against_the_plan_is_seen(importer: str, source: str) -> None:
    assert [found for step in imports_of(importer, source) if (found := offence(step))] != []


@pytest.mark.parametrize(
    ("importer", "source"),
    [
        ("shared.digest", "from shared.values import as_values\nimport numpy as np"),
        ("shared.tracker", "import shared.ledger"),
        ("worker_service.app", "from worker_service.intake import decode\nimport asyncio, fastapi"),
        ("coordinator_service.answers", "from shared.ledger import Ledger"),
        ("worker_service.courier", "import httpx"),
        ("worker_service.app", "from shared.serving.errors import Problem"),
        ("shared.serving.errors", "import fastapi, time\nfrom shared.serving.logs import facts"),
        ("loadgen.watching.page", "from loadgen.calls import DEFAULT\nimport httpx, rich"),
        ("loadgen.simulate", "from shared.tracker import simulate"),
        ("loadgen.simulate", "from shared import tracker"),
    ],
)
def test_an_import_along_the_plan_is_not(importer: str, source: str) -> None:
    assert [found for step in imports_of(importer, source) if (found := offence(step))] == []
