"""The page as one file of HTML: its script, its style and the chart library are in it, and nothing is loaded.

What a run or a brain wrote is data and never markup: it is embedded as JSON with every `<` escaped, and the script puts
it in as text. The policy lets no other script run, and none make HTML out of text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from self_pruner.memory.errors import ExportError

HERE = Path(__file__).parent
LIBRARY = HERE / "vendor" / "uplot"
SCRIPTS = (
    *("dom", "model", "card", "steer", "overview", "search", "profile", "lineage", "trace"),
    *("prompts", "runs", "compare", "curves", "main"),
)


def page_html(title: str, data: Mapping[str, Any]) -> str:
    """The page.

    Args:
        title: of the window.
        data: the document of a run or a comparison, to be shown as it is; or {"live": {...}}, what the server is asked
            for.
    """
    script, style = program(), look()
    connect = "'self'" if "live" in data else "'none'"
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        f"img-src data:; connect-src {connect}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return Template(_read(HERE / "index.html")).substitute(
        title=escape(title), policy=policy, style=style, script=script, plain=_plain(data), data=embedded(data)
    )


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that no text in it can end: without `<`, and without what only a script would take for the end of a line."""
    return as_json(data).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def as_json(data: Mapping[str, Any]) -> str:
    """JSON as a browser reads it: a damaged file may hold figures that are none, and halves of characters."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if "NaN" in text or "Infinity" in text:
        found = json.loads(text, parse_constant=lambda _: None)
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def program() -> str:
    """The library and the scripts of the page, in the order in which they need each other."""
    own = "\n".join(_read(HERE / "app" / f"{name}.js") for name in SCRIPTS)
    return f"{_library()}\n(() => {{\n'use strict';\n{own}}})();\n"


@cache
def look() -> str:
    """The style of the library and of the page."""
    sheet = LIBRARY / "uPlot.min.css"
    files = (*([sheet] if sheet.is_file() else []), HERE / "look.css", HERE / "app.css")
    return "\n".join(map(_read, files))


def _library() -> str:
    """The chart library with its licence; empty where it is not there, and the page says so in the place of a chart."""
    try:
        licence, code = (
            (LIBRARY / name).read_text(encoding="utf-8").strip() for name in ("LICENSE", "uPlot.iife.min.js")
        )
    except OSError:
        return ""
    return f"/* uPlot\n{licence} */\n{code}"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ExportError(f"the page cannot be made without {file}: install Self-Pruner anew") from error


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _plain(data: Mapping[str, Any]) -> str:
    """What is there without scripts: a sentence, and the name, the sentences and the tables of what it is a page of."""
    parts = ["<p>This page needs JavaScript for its charts, its trace and its search.</p>"]
    told: list[str] = []
    tables: list[Mapping[str, Any]] = []
    if "run" in data:
        found = data["overview"] or {"sentences": [["", "This run is not finished."]], "tables": []}
        told, tables = [sentence for _, sentence in found["sentences"]], found["tables"]
    elif "comparison" in data:
        told, tables = data["sentences"], list(data["tables"].values())
    if told:
        parts.append(f"<h1>{escape(data.get('run') or data['comparison'])}</h1>")
    parts += [f"<p>{escape(sentence)}</p>" for sentence in told]
    for table in tables:
        rows = [
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
            for row in [table["header"], *table["rows"]]
        ]
        parts.append(f"<h2>{escape(table['title'])}</h2>\n<table>\n" + "\n".join(rows) + "\n</table>")
        parts.append(f"<p>{escape(table['note'])}</p>")
    parts += [f"<p>{escape(gap)}</p>" for gap in data.get("gaps", ())]
    return "\n".join(parts)
