"""The house is in order: imports run one way, no file is too long to read, no folder too full to look through."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["main.py", "agent", "prompts", "tools", "memory"]  # an import leads further right, or stays
LONGEST = 300  # lines of a file
FULLEST = 14  # entries of a folder
SHOWN = [".py", ".j2", ".toml", ".md"]


def modules() -> dict[str, Path]:
    """Every module of the program by its dotted name, without `self_pruner`."""
    files = [ROOT / "main.py", *(path for name in PACKAGES[1:] for path in (ROOT / name).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports() -> dict[str, set[str]]:
    """What each module imports of the others."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        asked: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                asked |= {each if each.removeprefix("self_pruner.") in known else node.module for each in inner}
            elif isinstance(node, ast.Import):
                asked |= {alias.name for alias in node.names}
        ours = {each.removeprefix("self_pruner.") for each in asked if each.startswith("self_pruner.")}
        found[name] = ours & known.keys() - {name}
        strays = {each for each in asked if each.split(".")[0] in {"agent", "prompts", "tools", "memory"}}
        assert not strays, f"{name} imports {strays} without the name that it has when installed"
    return found


def room(name: str) -> str:
    """The folder of a module below its package; a module that lies openly in its package is a room of its own."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] in {"agent", "tools"} else parts[0]


def test_imports_lead_from_main_over_the_agent_to_prompts_tools_and_memory():
    order = [name.removesuffix(".py") for name in PACKAGES]
    for name, others in imports().items():
        for other in others:
            assert order.index(name.split(".")[0]) <= order.index(other.split(".")[0]), f"{name} imports {other}"


def test_no_two_rooms_need_each_other():
    needs: dict[str, set[str]] = defaultdict(set)
    for name, others in imports().items():
        needs[room(name)] |= {room(other) for other in others} - {room(name)}
    TopologicalSorter(needs).prepare()  # raises CycleError, which names the rooms


def test_ray_is_imported_where_it_is_needed_and_not_by_importing_a_module():
    loading = set()
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            loading |= {name for each in named if each.split(".")[0] == "ray"}
    assert loading == {"tools.evaluation.workers.own_instance"}  # which is a program, and nobody imports it


@pytest.mark.parametrize("folder", [*PACKAGES[1:], "benchmarks", "tests", "docs"])
def test_files_are_short(folder):
    for path in (ROOT / folder).rglob("*.py"):
        length = len(path.read_text(encoding="utf-8").splitlines())
        assert length <= LONGEST, f"{path.relative_to(ROOT)} has {length} lines"


@pytest.mark.parametrize("folder", [*PACKAGES[1:], "benchmarks"])
def test_folders_are_not_full(folder):
    for place in [ROOT / folder, *(path for path in (ROOT / folder).rglob("*") if path.is_dir())]:
        entries = [path for path in place.iterdir() if path.suffix in SHOWN or path.is_dir() and any(path.glob("*.py"))]
        assert len(entries) <= FULLEST, f"{place.relative_to(ROOT)} has {len(entries)} entries"


def test_temporary_folders_are_named_after_their_owner_so_that_a_killed_ones_is_removed():
    plain = {name for name, path in modules().items() if "import tempfile" in path.read_text(encoding="utf-8")}
    assert plain == {"memory.partials", "tools.evaluation.workers.cluster"}  # Ray's sockets need a short name
