"""What a comparison leaves in its folder and on the screen."""

import io
import math
from pathlib import Path

import pytest
from rich.console import Console

from self_pruner.agent.compare.page import show, write_all
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.sentences import sentences
from self_pruner.agent.run_files.atomic_write import WriteError
from self_pruner.agent.view import View
from tests.agent.compare.invented import results, run_result

RUNS = [run_result("hybrid", 30.0, seed=seed) for seed in range(2)] + [run_result("[bold]owl", 40.0)]


def screen(found):
    stream = io.StringIO()
    show(found, View(Console(file=stream, soft_wrap=True)))
    return stream.getvalue()


def test_the_same_results_make_the_same_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write_all(folder, results(RUNS))
    assert {path.name for path in one.iterdir()} == {"results.json", "table.md", "table.csv", "compare.html"}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.parametrize("perplexity", [30.0, math.inf])
def test_results_are_read_back_as_they_were(tmp_path, perplexity):
    run = RUNS[0].model_copy(
        update={"texts": [one.model_copy(update={"perplexity": perplexity}) for one in RUNS[0].texts]}
    )
    found = results([run])
    write_all(tmp_path, found)
    assert Results.model_validate_json((tmp_path / "results.json").read_text(encoding="utf-8")) == found


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*results\.json: No such file or directory"):
        write_all(tmp_path / "gone", results(RUNS))


def test_the_screen_has_the_tables_the_sentences_and_what_is_missing():
    found = results(RUNS, missing=["cma at 30%"])
    shown = screen(found)
    for sentence in sentences(found):
        assert sentence in shown
    assert "[bold]owl" in shown  # names are text, not markup
    assert "Mean cost of a run" in shown and "warning: missing: cma at 30%" in shown
    assert max(map(len, (line for line in shown.splitlines() if line.startswith("│")))) <= 110


def test_of_no_runs_the_screen_says_so():
    assert "No run is finished yet." in screen(results([]))


@pytest.mark.parametrize("name", ["bundled", "c4"])
def test_results_of_an_older_format_make_the_very_table_that_was_made_of_them(tmp_path, name):
    kept = Path(__file__).parents[3] / "benchmarks" / "results" / name
    text = (kept / "results.json").read_text(encoding="utf-8")
    assert '"format": 1' in text and '"maker"' in text
    found = Results.model_validate_json(text)
    write_all(tmp_path, found)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == (kept / "table.md").read_text(encoding="utf-8")
    again = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert '"format": 2' in again and '"maker"' not in again and Results.model_validate_json(again) == found
