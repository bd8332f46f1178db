"""The decision sets in the repository are whole and small, their tables and sentences those of their scores."""

from collections import Counter
from pathlib import Path

import pytest

from self_pruner.agent.brain.scripted import FirstBrain
from self_pruner.agent.decisions.choosers import SampledChooser
from self_pruner.agent.decisions.decision_set import FILE, read_set
from self_pruner.agent.decisions.kinds import KINDS
from self_pruner.agent.decisions.kinds.kind import orders_of
from self_pruner.agent.decisions.score import decide
from self_pruner.agent.decisions.scores import TABLE, known_rows
from self_pruner.agent.decisions.table import page
from self_pruner.prompts.templates import PromptSet

ROOT = Path(__file__).parents[3]
FOLDERS = sorted(path.parent for path in (ROOT / "benchmarks" / "results" / "decisions").glob(f"*/{FILE}"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_set_in_the_repository_is_whole_and_its_table_is_that_of_its_scores(folder):
    found = read_set(folder / FILE)
    assert found.complete and all(len(found.of(kind)) >= 24 for kind in found.kinds)
    assert sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".json", ".md")) < 1_000_000
    rows, gone = known_rows(folder, found)
    assert rows and not gone
    kinds = tuple(dict.fromkeys(row.kind for row in rows))
    assert (folder / TABLE).read_text(encoding="utf-8") == page(found, rows, kinds)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_places_and_candidates_of_a_set_are_read_first_equally_often(folder):
    for situation in read_set(folder / FILE).situations:
        kind, calls = KINDS[situation.kind], [option.call for option in situation.options]
        shown = [kind.shown(situation.variables, [calls[index] for index in order]) for order in orders_of(len(calls))]
        if situation.kind == "edit":
            assert len({one.hints.cut[0] for one in shown}) == len({one.hints.grow[0] for one in shown}) == 4
        if situation.kind == "survive":
            for brackets in zip(*(one.ask.brackets for one in shown), strict=True):
                firsts = Counter(bracket[0] for bracket in brackets)
                assert set(firsts.values()) == {4 // len(brackets[0])}


def test_where_every_candidate_is_first_as_often_always_the_first_gains_nothing():
    for folder in FOLDERS:
        found = read_set(folder / FILE)
        gains = [
            decide(one, SampledChooser("first", FirstBrain(), 1), PromptSet("default")).gain
            for one in found.of("survive")
        ]
        assert gains == pytest.approx([0.0] * len(gains), abs=1e-9)


def test_the_sentences_of_the_documentation_are_those_of_the_tables():
    part = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8").split("## Figures")[1].split("\n## ")[0]
    said = {line for line in part.splitlines() if line.startswith("- ")}
    known = {line for folder in FOLDERS for line in (folder / TABLE).read_text(encoding="utf-8").splitlines()}
    assert said and said <= known
