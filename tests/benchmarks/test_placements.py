"""The bill of a model on machines that are not here, and the table of it in the documentation."""

import re
from pathlib import Path

import pytest

from benchmarks.placements import MACHINES, arguments, main, table
from self_pruner.agent.settings.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"


def test_the_table_of_the_documentation_is_the_one_that_is_printed():
    found = re.search(r"<!-- placements -->\n(.*?)\n<!-- /placements -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    settings = Settings(model="llama-2-70b", params="49B", cache=Path("no-cache"))
    assert found is not None and found[1].splitlines() == table(settings, arguments().parse_args([]))


def test_a_default_run_of_70b_goes_through_streamed_layers_at_most_60_times(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["placements", "llama-2-70b", "--params", "49B"])
    main()
    said = capsys.readouterr().out
    assert all(f"\n{name}" in said for name in MACHINES) and "disk 2" in said
    passes = {
        row.split(" | ")[0].strip("| "): row.split(" | ")[-1].strip(" |")
        for row in table(
            Settings(model="llama-2-70b", params="49B", cache=Path("no-cache")), arguments().parse_args([])
        )
    }
    assert 30 < int(passes["1 x 80 GB, 128 GB of memory"]) <= 60


@pytest.mark.usefixtures("warm")
def test_a_run_with_its_layers_streamed_finds_what_one_in_memory_does(model, monkeypatch, capsys):
    words = (
        "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 "
        "--calibration-length 64 --calibration-sequences 4 --evaluations 6 --offspring 3 --initial 2 --population 2 "
        "--arm evolution --sparsity 0.3 --remembered 0 --dtype float32"
    )
    monkeypatch.setattr("sys.argv", ["placements", str(model), "--run", *words.split()])
    main()
    said = capsys.readouterr().out
    assert "candidates and scores the same, checkpoint the same; streamed takes" in said
