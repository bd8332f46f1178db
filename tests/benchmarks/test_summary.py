import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import summary
from self_pruner.agent.decisions.decision_set import FILE, read_set
from self_pruner.agent.decisions.score import Row, always
from self_pruner.agent.decisions.scores import SCORES, known_rows, stamp_of, write_rows
from tests.agent.compare.invented import results, run_result

SET = Path(__file__).parents[2] / "benchmarks" / "results" / "decisions" / "smollm2-135m-20-shifts"


def test_an_arm_is_a_row_and_a_sparsity_a_column_the_best_first_and_recalibration_beside_it():
    runs = [
        *(run_result("evolution", ppl, sparsity=share) for share, ppl in ((0.2, 40.0), (0.5, 90.0))),
        *(run_result("hybrid", ppl, sparsity=share, recalibrated=30.0) for share, ppl in ((0.2, 36.0), (0.5, 64.0))),
        run_result("self", 50.0, sparsity=0.5),
    ]
    head, _, dense, *rows = summary.short_table(results(runs))
    assert head == "| arm | seeds | 20% | 50% | all |"
    assert dense.startswith("| dense | - | ")
    assert rows == [
        "| `hybrid` | 1 | 36.00 | 64.00 | 48.00 |",
        "| `hybrid`, recalibrated | 1 | 30.00 | 30.00 | 30.00 |",
        "| `evolution` | 1 | 40.00 | 90.00 | 60.00 |",
        "| `self` | 1 | - | 50.00 | - |",
    ]


def test_seeds_give_an_interval():
    runs = [run_result("hybrid", ppl, seed=seed) for seed, ppl in enumerate((30.0, 31.0, 32.0))]
    assert summary.short_table(results(runs))[3].startswith("| `hybrid` | 3 | 30.99 ± 2.4")


def test_a_folder_without_results_is_refused_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["summary", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"holds no results\.json of a comparison$"):
        summary.main()
    (tmp_path / "results.json").write_text(json.dumps({"runs": []}))
    with pytest.raises(SystemExit, match=r"holds no results\.json of a comparison$"):
        summary.main()


def scored(folder, gains):
    """A decision set of shifts in `folder`, with brains that gain so many mnat in half of its situations and in all."""
    folder.mkdir()
    shutil.copy(SET / FILE, folder)
    found = read_set(folder / FILE)
    taken = [always(one, 0) for one in found.of("shift")]
    decided = {
        brain: tuple(replace(one, gain=low if index % 2 else high) for index, one in enumerate(taken))
        for brain, (low, high) in gains.items()
    }
    rows = [Row(brain.split()[0], "terse", brain.split()[1], "shift", decided[brain]) for brain in gains]
    write_rows(folder, found, [replace(row, stamp=stamp_of(found, row.decided)) for row in rows])
    return folder


def table_of(monkeypatch, capsys, *folders):
    monkeypatch.setattr(sys, "argv", ["summary", *map(str, folders)])
    summary.main()
    return capsys.readouterr().out.splitlines()


def test_of_decision_sets_a_brain_is_a_row_a_kind_a_column_and_what_is_told_from_chance_bold(
    tmp_path, monkeypatch, capsys
):
    one = scored(tmp_path / "one", {"mine exact": (0.002, 0.002), "yours exact": (-0.003, 0.003)})
    other = scored(tmp_path / "other", {"mine exact": (-0.001, -0.001)})
    head, _, *rows = table_of(monkeypatch, capsys, one, other)
    assert head == "| brain | prompts | shift, one | shift, other |"
    assert rows[0] == "| mine | terse | **2.0 [2.0, 2.0]** | **-1.0 [-1.0, -1.0]** |"
    assert rows[1].startswith("| yours | terse | 0.0 [-") and rows[1].endswith("| - |")
    assert [row.split("|")[1].strip() for row in rows[2:]] == ["(the best option)", "(the tool's own choice)"]


def test_a_brain_that_was_asked_in_two_ways_has_two_rows(tmp_path, monkeypatch, capsys):
    found = scored(tmp_path / "set", {"mine exact": (0.002, 0.002), "mine sampled": (0.001, 0.001)})
    rows = table_of(monkeypatch, capsys, found)[2:4]
    assert rows == [
        "| mine (exact) | terse | **2.0 [2.0, 2.0]** |",
        "| mine (sampled) | terse | **1.0 [1.0, 1.0]** |",
    ]
    assert "| shift | mine (sampled) | terse |" in (found / "table.md").read_text()


def test_two_sets_of_one_name_are_refused_and_so_are_damaged_scores(tmp_path, monkeypatch, capsys):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        scored(tmp_path / name / "set", {"mine exact": (0.002, 0.002)})
    with pytest.raises(SystemExit, match="2 folders are called set"):
        table_of(monkeypatch, capsys, tmp_path / "one" / "set", tmp_path / "other" / "set")
    (tmp_path / "one" / "set" / SCORES).write_text("{")
    with pytest.raises(SystemExit, match="cannot be read as scores"):
        table_of(monkeypatch, capsys, tmp_path / "one" / "set")


def test_a_row_of_fewer_situations_than_the_set_has_is_marked(tmp_path, monkeypatch, capsys):
    folder = scored(tmp_path / "set", {"mine exact": (0.002, 0.002)})
    found = read_set(folder / FILE)
    (row,) = known_rows(folder, found)[0]
    few = row.decided[:8]
    write_rows(folder, found, [replace(row, decided=few, stamp=stamp_of(found, few))])
    assert table_of(monkeypatch, capsys, folder)[2].startswith("| mine (exact, 8 of 24 situations) | terse | **2.0 ")


def test_several_folders_that_are_no_decision_sets_are_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"one comparison, or folders that all hold a decisions\.json$"):
        table_of(monkeypatch, capsys, scored(tmp_path / "set", {}), tmp_path)


def test_a_damaged_decision_set_is_refused_in_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(SystemExit, match="is cut short or is none"):
        table_of(monkeypatch, capsys, tmp_path)
