"""Runs with a budget in time: searched by a table, verified by measurement, resumed with the table they began with."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from main import main
from self_pruner.agent.prepare.time_budget import speed_facts
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import make_settings
from self_pruner.memory.profile import PARTS, Profile
from self_pruner.tools.latency.speed_facts import SpeedFacts
from self_pruner.tools.latency.table import Checked, LatencyTable, Milliseconds, Timed
from self_pruner.tools.latency.time_budget import LatencyBudget
from self_pruner.tools.profiles.space import Space
from tests.tiny import MLP_UNIT

SMALL = (
    "--sequence-length 64 --fidelity 128,256 --probe-tokens 64 --final-tokens 128 --reporting-tokens 128 --mlp-unit 8 "
    "--calibration-length 64 --calibration-sequences 4 --evaluations 6 --offspring 3 --initial 2 --population 2 "
    "--benchmarks 0 --brain first --no-recalibrate --latency-prompt 16 --latency-decode 4 --latency-repeats 2"
)
UNITS = {"attention": 4, "mlp": 12}


def table_of(**changes) -> LatencyTable:
    """A dense request of 100 ms, of which a group takes 1 ms and an MLP unit half of one."""
    timed = {
        **{"model": "tiny", "layers": 3, "units": UNITS, "mlp_unit": MLP_UNIT, "attention_unit": 1},
        **{"engine": "elsewhere", "device": "a device", "dtype": "float32", "prompt": 16, "decode": 4, "batch": 1},
    }
    rows = {
        part: {width: Milliseconds(unit * (width - UNITS[part]), 0.0) for width in range(1, UNITS[part] + 1)}
        for part, unit in (("attention", 1.0), ("mlp", 0.5))
    }
    return LatencyTable(Milliseconds(60.0, 10.0), rows, Timed(**{**timed, **changes}))


@pytest.fixture
def table(tmp_path):
    """A table of the tiny model, made elsewhere."""
    path = tmp_path / "table.json"
    path.write_text(json.dumps(table_of().to_json()))
    return path


@pytest.fixture
def run(model, cache, tmp_path, capfd):
    """Carries out a run in `tmp_path/runs`; returns (status, standard output, standard error)."""

    def run(*words):
        given = ["--model", model, "--runs", tmp_path / "runs", "--cache", cache, *SMALL.split(), *words]
        status = main([str(word) for word in given])
        output = capfd.readouterr()
        return status, " ".join(output.out.split()), output.err

    return run


def only_run(tmp_path):
    (path,) = (tmp_path / "runs").glob("tiny-*")
    return path


def test_every_candidate_is_predicted_to_be_as_fast_as_asked_for(run, table, tmp_path):
    status, printed, errors = run("--speedup", "1.1", "--latency-table", table, "--arm", "evolution")
    assert status == 0, errors
    outcome = read_outcome(only_run(tmp_path))
    found = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    assert table_of().speedup(found) == pytest.approx(1.1, rel=0.004)
    assert outcome.speed.asked == 1.1 and outcome.speed.measured is None  # the table is of another device
    assert "the latency table predicts 1.10. It is of elsewhere on a device" in printed
    card = (only_run(tmp_path) / "model" / "README.md").read_text()
    assert "(asked for: a request 1.1 times as fast; embeddings" in card
    assert "the latency table predicts 1.10" in card and "--speedup 1.1" in card and str(table) not in card


def test_a_table_is_measured_where_none_is_named_and_the_result_is_timed(run, tmp_path, cache):
    # a request so wide that the units of this small model take longer than what surrounds them
    words = ["--speedup", "1.15", "--no-export"]
    words += ["--latency-prompt", "256", "--latency-decode", "1", "--latency-batch", "16"]
    status, printed, _ = run(*words, "--dry-run")
    assert status == 0 and "models of random weights are timed for the latency table" in printed
    assert not list((cache / "latency").glob("*.json"))
    status, printed, errors = run(*words)
    if status == 2:  # a machine may be too uneven for a model so small; then what is reachable is said
        assert "the most that is reachable" in errors
        return
    assert status == 0, errors
    path = only_run(tmp_path)
    outcome = read_outcome(path)
    assert outcome.speed.measured > 0 and "error of the predicted time" in printed
    assert RunDirectory.open(path).settings["latency_table"] == str(path / "latency_table.json")
    status, printed, _ = run(*words, "--dry-run")
    assert status == 0 and "timed for the latency table" not in printed and "ms a request" in printed


def test_a_run_goes_on_with_the_table_it_began_with(run, table, tmp_path, monkeypatch):
    from self_pruner.agent import session

    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", None)  # it fails at its end
        with pytest.raises(TypeError):
            run("--latency-ms", "92", "--latency-table", table, "--no-export", "--arm", "evolution")
    table.write_text(json.dumps(table_of(model="another").to_json().update(dense={}) or {}))
    path = only_run(tmp_path)
    assert main(["resume", str(path)]) == 0
    outcome = read_outcome(path)
    found = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    assert table_of().predict(found).request(4) == pytest.approx(92.0, rel=0.004)


def test_both_budgets_are_met(run, table, tmp_path):
    status, _, errors = run(
        *("--sparsity", "0.3", "--speedup", "1.08", "--latency-table", table, "--no-export", "--arm", "evolution")
    )
    assert status == 0, errors
    outcome = read_outcome(only_run(tmp_path))
    found = Profile(tuple(outcome.attention), tuple(outcome.mlp))
    assert outcome.sparsity == pytest.approx(0.3, abs=0.01)
    assert table_of().speedup(found) >= 1.08 * 0.997
    assert all(sum(found.widths(part)) >= 3 for part in PARTS)


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--speedup", "0.9"], "--speedup: it takes a number above 1, got 0.9"),
        (["--speedup", "1.1", "--latency-ms", "90"], "give only one of them"),
        (["--speedup", "1.1", "--target", "uniform"], "not a budget in time"),
        (["--latency-table", "TABLE"], "give one of them"),
        (["--speedup", "9", "--latency-table", "TABLE"], "the most that is reachable"),
        (["--speedup", "1.25", "--sparsity", "0.1", "--latency-table", "TABLE"], "contradict each other"),
        (["--speedup", "1e15", "--latency-table", "TABLE"], "1e-13 ms is no time of a request"),
        (["--speedup", "1e15", "--sparsity", "0.1", "--latency-table", "TABLE"], "1e-13 ms is no time of a request"),
        (["--latency-ms", "1e-9", "--latency-table", "TABLE"], "1e-09 ms is no time of a request"),
        (["--latency-ms", "1e305", "--latency-table", "TABLE"], "takes the dense model 100.0 ms: name one nearer"),
        (["--engine", "vllm", "--benchmarks", "1"], "there is no vLLM here: install vllm==0.32.0"),
        (["--engine", "vllm", "--speedup", "1.1"], "there is no vLLM here"),
        (["--engine", "tensorrt"], "--engine: it takes torch, vllm or llama-cpp, got 'tensorrt'"),
        (["--speedup", "1.1", "--latency-table", "nowhere.json"], "cannot be read"),
        (["--speedup", "1.1", "--latency-table", "OTHER"], "does not fit: it is of another"),
        (
            ["--speedup", "1.1", "--latency-table", "SHARED"],
            "does not fit: it is of --tensor-parallel 2, and 1 is asked",
        ),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_loaded(run, table, tmp_path, monkeypatch, words, sentence):
    from self_pruner.agent import session

    (tmp_path / "other.json").write_text(json.dumps(table_of(model="another", layers=7).to_json()))
    shared = table_of(engine="vLLM 0.32.0", tensor_parallel=2)
    (tmp_path / "shared.json").write_text(json.dumps(shared.to_json()))
    monkeypatch.setattr(session, "prepare", None)
    named = {"TABLE": table, "OTHER": tmp_path / "other.json", "SHARED": tmp_path / "shared.json"}
    given = [named.get(word, word) for word in words]
    status, _, errors = run(*given)
    assert status == 2 and sentence in errors and errors.count("\n") == 1
    assert not list((tmp_path / "runs").glob("tiny*"))


@pytest.mark.parametrize(
    "measured, spread, said",
    [
        (1.45, 0.02, "as fast as asked for"),
        (1.39, 0.02, "0.7% short of it, within the spread of the repeats"),
        (1.20, 0.02, "14.3% short of it (error"),
    ],
)
def test_the_sentence_says_whether_it_is_fast_enough(measured, spread, said):
    facts = SpeedFacts(asked=1.4, predicted=1.41, measured=measured, spread=spread, table="torch on cpu")
    assert said in facts.sentence()


def test_what_is_said_to_be_predicted_is_what_the_budget_went_by(tmp_path):
    table = table_of()
    table.rows["mlp"][6] = Milliseconds(9.0, 0.0)  # slower than dense
    (tmp_path / "table.json").write_text(json.dumps(table.to_json()))
    space = Space(3, UNITS["attention"], UNITS["mlp"], 48, 9, 1000, MLP_UNIT)
    budget = LatencyBudget.of(space, table, 100.0 / 1.1)
    found = budget.project((2,) * 3, (6,) * 3).profile
    assert 6 in found.mlp and table.speedup(found) < 1.05  # by the rows as they were measured
    prepared = SimpleNamespace(bench=SimpleNamespace(budget=budget))
    settings = make_settings({"speedup": 1.1, "latency_table": tmp_path / "table.json"})
    facts = speed_facts(prepared, settings, found, {})
    assert facts.asked == 1.1
    assert facts.predicted == pytest.approx(1.1, rel=budget.tolerance / budget.target_time + 1e-6)


def test_the_error_of_the_predicted_time_is_that_of_the_table_check():
    facts = SpeedFacts(asked=1.4, predicted=1.5, measured=1.2, spread=None, table="torch on cpu")
    assert "(error of the predicted time -20.0%;" in facts.sentence()
    assert Checked("found", 1.5, 1.2).error == pytest.approx(-0.2)
