"""The map of the packages in docs/contributing.md, made from the imports: `python -m tests.package_diagram` renews it.

A box is a folder of `agent` or `tools`, or a module that lies openly in one of them. An arrow says that something in
one box imports something in the other. Arrows that follow from others are left out (the transitive reduction), so a box
needs no more than can be reached from it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

from tests.test_layout import imports, room

PAGE = Path(__file__).parents[1] / "docs" / "contributing.md"
MARKED = re.compile(r"(?<=<!-- packages -->\n```mermaid\n).*?(?=```\n<!-- /packages -->)", re.DOTALL)


def needs() -> dict[str, set[str]]:
    """What each box imports of the others."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, others in imports().items():
        found[room(name)] |= {room(other) for other in others} - {room(name)}
    return found


def reduced(needs: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows of an acyclic graph that follow from no others, in the order of their names."""

    @cache
    def reachable(box: str) -> set[str]:
        return needs[box].union(*map(reachable, needs[box]))

    return [
        (box, other)
        for box in sorted(needs)
        for other in sorted(needs[box])
        if not any(other in reachable(between) for between in needs[box] - {other})
    ]


def diagram() -> str:
    """The map as a flowchart of mermaid."""
    graph = needs()
    boxes = sorted(name for name in graph if "." in name)
    lines = ["flowchart TD"]
    for package in ("agent", "tools"):
        lines.append(f"    subgraph {package}")
        inside = [name for name in boxes if name.startswith(f"{package}.")]
        lines += [f'        {name.replace(".", "_")}["{name.split(".")[1]}"]' for name in inside]
        lines.append("    end")
    lines += [f"    {a.replace('.', '_')} --> {b.replace('.', '_')}" for a, b in reduced(graph)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the map into the page."""
    PAGE.write_text(MARKED.sub(lambda _: diagram(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
