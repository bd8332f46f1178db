"""The decision sets in the repository are whole and small, their tables and sentences those of their scores."""

from pathlib import Path

import pytest

from self_pruner.agent.decisions.decision_set import FILE, read_set
from self_pruner.agent.decisions.laboratory import TABLE, known_rows
from self_pruner.agent.decisions.table import page

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "benchmarks" / "results" / "decisions").glob(f"*/{FILE}"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_set_in_the_repository_is_whole_and_its_table_is_that_of_its_scores(folder):
    found = read_set(folder / FILE)
    assert found.complete and all(len(found.of(kind)) >= 24 for kind in found.kinds)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".json", ".md")) < 1_000_000
    rows = known_rows(folder, found)
    assert rows
    kinds = tuple(dict.fromkeys(row.kind for row in rows))
    assert (folder / TABLE).read_text(encoding="utf-8") == page(found, rows, kinds)


def test_the_sentences_of_the_documentation_are_those_of_the_tables():
    part = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").split("## Figures")[1].split("\n## ")[0]
    said = {line for line in part.splitlines() if line.startswith("- ")}
    known = {line for folder in FOLDERS for line in (folder / TABLE).read_text(encoding="utf-8").splitlines()}
    assert said and said <= known
