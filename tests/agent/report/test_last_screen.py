"""The last screen of a run: an honest verdict, one table, where things are, in 24 lines of 80 columns."""

from __future__ import annotations

import io
import json
import shlex

import pytest

from main import main
from self_pruner.agent.report.last_screen import facts_of, show_ended, show_outcome
from self_pruner.agent.report.result_tables import account, serving
from self_pruner.agent.report.verdict import verdict
from self_pruner.agent.result.outcome import Difference, Outcome, Recalibration, Row, Yield
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import Screen, View
from tests.agent.report.page.made_up import finish, made_up

BASELINES = {"uniform": (1.2557, 84.37), "uniform-mlp": (0.8835, 57.27), "ends": (0.7594, 50.57)}
FIGURES = {"dense": (0.0, 26.09), **BASELINES, "closed form": (0.6818, 46.15), "found": (0.6705, 45.52)}
BETTER = ("found, recalibrated", (0.5718, 41.14))
UNSEARCHED = [Yield(proposed_by="seed", operator="initialise", made=3, compared=0, improved=0)]


def row(name: str, kl: float | None, perplexity: float | None) -> Row:
    timed = dict(prefill_ms=124.9, decode_ms=22.5, tokens_per_second=35.1, speedup=1.18)
    params = 134_515_008 if name == "dense" else 102_682_944
    return Row(name=name, params=params, kl=kl, perplexity=perplexity, **(timed if name in ("dense", "found") else {}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with a name of the usual length, to be looked at only."""
    return finish(made_up(tmp_path_factory.mktemp("last") / "runs", "smollm2-135m"))


@pytest.fixture
def default(run) -> Outcome:
    """What a default run comes to."""
    outcome = read_outcome(run.path)
    assert outcome is not None
    rows = [row(name, *figures) for name, figures in [*FIGURES.items(), BETTER]]
    return outcome.model_copy(
        update={
            "rows": rows,
            "sparsity": 0.2998,
            "measured_on": "passages (reporting part), 5120 tokens in sequences of 512",
            "latency_setting": "x86_64 2 threads, torch 2.13.0+cpu, batch 1, decode_tokens 16, prompt_tokens 256",
            "differences": [Difference(against="closed form", mean=-0.01, standard_error=0.01, sequences=10)],
            "recalibration": Recalibration(searched=0.69, recalibrated=0.58),
            "warnings": [],
        }
    )


def shown(say, outcome, run, width=80) -> list[str]:
    console = Screen(file=io.StringIO(), force_terminal=True, width=width, color_system=None, highlight=False)
    say(outcome, run, View(console))
    return console.file.getvalue().splitlines()


def test_a_default_run_ends_in_one_screen(default, run, monkeypatch):
    monkeypatch.chdir(run.path.parents[1])
    here = type(run).open(run.path.relative_to(run.path.parents[1]))
    lines = shown(show_ended, default, here)
    assert len(lines) <= 23 and max(map(len, lines)) <= 80  # and the prompt of the shell
    text = "\n".join(lines)
    assert (
        text.index("30.0% of the decoder is removed") < text.index("perplexity   speed-up") < text.index("Checkpoint")
    )
    for name, (kl, perplexity) in [*FIGURES.items(), BETTER]:
        assert any(line.startswith(name) and f"{kl:.4f}" in line and f"{perplexity:.2f}" in line for line in lines)
    assert f"Checkpoint   {here.model}" in lines and f"All figures  python main.py report {here.path}" in lines
    assert str(run.path) not in text  # as it was typed


@pytest.mark.parametrize("verified", [None, 0.0])
@pytest.mark.parametrize("say", [show_ended, show_outcome])
def test_commands_to_copy_name_the_run_whatever_its_path(default, tmp_path, say, verified):
    run = finish(made_up(tmp_path / "it's my run", "tiny"))
    lines = shown(say, default.model_copy(update={"verified": verified}), run, 400)
    commands = [shlex.split(line[line.index("python main.py") :], comments=True) for line in lines if "main.py" in line]
    assert {words[2] for words in commands} >= {"trace", "export" if verified is None else "evaluate"}
    assert all(words[3] == str(run.path) for words in commands)
    served = serving(Settings(target="vllm"), run.model)
    assert served is not None and shlex.split(served)[:3] == ["cd", str(run.model), "&&"]


@pytest.mark.parametrize("width", [120, 60, 20])
def test_other_widths_lose_no_figure(default, run, width):
    text = "".join(shown(show_ended, default, run, width)).replace(" ", "")
    for _, perplexity in FIGURES.values():
        assert f"{perplexity:.2f}" in text
    assert str(run.model) in text


def test_nothing_is_lost_that_the_last_screen_leaves_out(default, run):
    text = "\n".join(shown(show_outcome, default, run, 200))
    for said in ("124.9", "22.50", "35.1", "1.18", "Latency: x86_64", "KL on the holdout", *account(default)):
        assert said in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "The search alone is 1.7% better than closed form in KL (less than two standard errors, so perhaps by"),
        ({}, "recalibrated, which no baseline is, it is 16.1% better."),
        ({"differences": [(-0.01, 0.001)]}, "1.7% better than closed form in KL (more than two standard errors);"),
        ({"differences": [(0.0, 0.0)]}, "The search found nothing better than closed form; recalibrated,"),
        ({"found": 0.75, "differences": [(0.07, 0.01)]}, "The search alone is 10.0% worse than closed form in KL"),
        ({"recalibration": Recalibration(searched=0.5, recalibrated=0.6)}, "; recalibration did not help."),
        (
            {"recalibration": Recalibration(searched=None, recalibrated=None, failure="no room")},
            "recalibrated (no room).",
        ),
        ({"recalibration": None}, "(less than two standard errors, so perhaps by chance)."),
        ({"differences": [(-0.01, None)]}, "than closed form in KL (on a single sequence, so perhaps by chance);"),
        ({"yields": UNSEARCHED}, "What was taken without a search is 1.7% better than closed form in KL (less than"),
        ({"yields": UNSEARCHED, "differences": [(0.0, 0.0)]}, "What was taken without a search equals closed form;"),
        ({"yields": UNSEARCHED, "differences": []}, "What was taken without a search could not be measured beside"),
        ({"found": None, "recalibration": None}, "could not be measured on the reporting text."),
    ],
)
def test_the_verdict_is_honest(default, change, said):
    change = dict(change)
    if "differences" in change:
        change["differences"] = [
            Difference(against="closed form", mean=mean, standard_error=error, sequences=10)
            for mean, error in change["differences"]
        ]
    if "found" in change:
        found = change.pop("found")
        change["rows"] = [row("found", found, found and 46.0) if one.name == "found" else one for one in default.rows]
    assert said in verdict(default.model_copy(update=change))


def test_a_program_gets_the_figures_and_the_paths(default, run):
    facts = json.loads(json.dumps(facts_of(default, run)))
    assert facts["checkpoint"] == str(run.model) and facts["found"] == "found, recalibrated"
    assert {one["name"]: one["kl"] for one in facts["rows"]}["found, recalibrated"] == 0.5718
    assert facts["verdict"] == verdict(default)


def test_report_shows_all_of_it(run, capfd):
    assert main(["report", str(run.path)]) == 0
    said = capfd.readouterr().out
    assert "of the decoder is removed" in said and "Proposed by: brain 3" in said and "tokens/s" in said
