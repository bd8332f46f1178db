"""A run whose brain is another model in the same process: it is billed, asked, named, and bound to its weights."""

import json
import shutil

import pytest

from main import main
from self_pruner.agent.compare.kinds import kind_of
from self_pruner.agent.prepare.bill import sizes_of
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.placement import place
from self_pruner.agent.result.card_facts import brain_in_words
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Think, read_trace
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.settings.stated import command_line
from self_pruner.memory.read_only import read_prompt_uses
from tests.stopped import SMALL, in_place_of, stopped_run
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another model, of another family, with its own tokenizer."""
    return tiny_folder(tmp_path_factory.mktemp("brains") / "thinker", "qwen2", seed=5, words=2048)


def replies(run):
    return [
        (one.call["name"], one.call["args"])
        for record in read_trace(run / "trace.jsonl")
        if isinstance(record, Think)
        for one in record.replies
        if one.call
    ]


def test_it_is_asked_in_the_place_of_the_target_model_and_named_wherever_a_brain_is(carried_out, other, tmp_path):
    status, _, error = carried_out(*SMALL, "--brain", str(other), "--export")
    assert status == 0, error
    (run,) = (tmp_path / "runs").glob("tiny-*")
    asked = replies(run)
    assert asked and any(one.input_tokens for one in read_trace(run / "trace.jsonl") if isinstance(one, Think))
    card = (run / "model" / "README.md").read_text()
    assert "another model, thinker" in card and "--brain thinker" in card and str(other) not in card
    assert [use["brain"] for use in read_prompt_uses(tmp_path / "runs" / "memory.sqlite")] == ["thinker"]
    assert carried_out(*SMALL, "--brain", "self", "--runs", str(tmp_path / "own"))[0] == 0
    assert replies(next((tmp_path / "own").glob("tiny-*"))) != asked


def test_its_weights_and_its_cache_are_on_the_bill_and_its_size_says_whether_it_thinks(model, cache, other):
    alone = Settings(model=str(model), cache=cache)
    beside = Settings(model=str(model), cache=cache, brain=str(other))
    target = check_target(beside)
    sizes = sizes_of(beside, target)
    assert sizes.brain_params == sum(one.numel() for one in target.brain.model.parameters()) > 0
    bills = [
        {line.what: line.bytes for line in place(settings, check_target(settings)).lines}
        for settings in (alone, beside)
    ]
    assert "Keys and values of the brain" in bills[0] and "Keys and values of the brain" not in bills[1]
    assert bills[1]["The brain, its keys and values"] == sizes.brain_weights + sizes.brain_bytes
    assert place(beside, target).applied(beside).thought_tokens == 0
    assert check_target(beside.model_copy(update={"arm": "evolution"})).brain is None  # that arm asks nobody


def test_a_dry_run_states_it(model, cache, other, capfd):
    words = ["--model", str(model), "--cache", str(cache), "--brain", str(other), "--dry-run"]
    assert main(words) == 0
    shown = capfd.readouterr().out
    assert "The brain, its keys and values" in shown and "The brain is asked from generation 1 on" in shown


@pytest.mark.parametrize(
    ("brain", "said"),
    [
        ("unifrom", "--brain is self, vllm, uniform, first or a model, and: unknown model 'unifrom'"),
        ("./nowhere", "the folder './nowhere' does not exist"),
        ("", "--brain: "),
    ],
)
def test_what_is_no_brain_is_refused_before_anything_is_made(carried_out, tmp_path, brain, said):
    status, _, error = carried_out("--brain", brain)
    assert status == 2 and said in error and error.count("\n") == 1
    assert not list((tmp_path / "runs").glob("tiny-*"))


def test_a_run_does_not_go_on_with_other_weights_of_its_brain(model, cache, other, tmp_path, capfd):
    brain = shutil.copytree(other, tmp_path / "thinker")
    run = stopped_run(tmp_path / "runs", model, cache, "--brain", str(brain))
    capfd.readouterr()
    changed = tiny_folder(tmp_path / "changed", "qwen2", seed=6, words=2048)
    with in_place_of(brain, changed):
        assert main(["resume", str(run)]) == 2
    error = capfd.readouterr().err
    assert "the weights of the brain" in error and error.count("\n") == 1
    assert main(["resume", str(run)]) == 0
    assert RunDirectory.open(run).status == "finished"
    shutil.rmtree(brain)  # the result needs it no more
    assert main(["export", str(run), "--output", str(tmp_path / "exported")]) == 0
    assert "another model, thinker" in (tmp_path / "exported" / "README.md").read_text()


def test_a_folder_of_a_relative_name_is_found_from_anywhere_and_an_alias_is_no_folder(other, monkeypatch, tmp_path):
    monkeypatch.chdir(other.parent)
    (other.parent / "self").mkdir()
    assert Settings(brain="thinker").anchored().brain == str(other)
    assert Settings().anchored().brain == "self" and Settings(brain="smollm2-135m").anchored().brain == "smollm2-135m"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2-135m").mkdir()
    assert Settings().anchored().model == "smollm2-135m"  # the bundled model, as everywhere


def test_an_arm_may_name_one_and_is_one_that_asks_a_brain(model, cache, other, tmp_path, capfd):
    assert kind_of(f"hybrid+brain={other}") == "brain"
    assert command_line(Settings(brain=str(other))) == "python main.py --brain thinker"
    assert brain_in_words(Settings(brain=str(other))) == "another model, thinker"
    words = ["compare", "--model", str(model), "--cache", str(cache), "--runs", str(tmp_path), "--into"]
    small = [word for word in SMALL if word not in ("--no-recalibrate", "--no-export")]
    small = small[: small.index("--evaluations")] + small[small.index("--offspring") :]
    arms = ["--arms", f"hybrid+brain={other},hybrid+brain=uniform", "--seeds", "1", "--tokens", "4000"]
    assert main([*words, str(tmp_path / "compared"), *small, *arms]) == 0
    found = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert not found["missing"] and len(found["runs"]) == 2
    assert main([*words, str(tmp_path / "bad"), *small, "--arms", "hybrid+brain=unifrom", "--seeds", "1"]) == 2
    assert "unknown model 'unifrom'" in capfd.readouterr().err and not (tmp_path / "bad").exists()
