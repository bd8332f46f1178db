"""A run whose brain is another model in the same process: it is billed, asked, named, and bound to its weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.placements import machine
from main import main
from self_pruner.agent import session
from self_pruner.agent.compare import runner
from self_pruner.agent.compare.kinds import kind_of
from self_pruner.agent.dry_run.first_prompt import first_prompt
from self_pruner.agent.dry_run.plan import plan_of
from self_pruner.agent.prepare import checks
from self_pruner.agent.prepare.bill import sizes_of
from self_pruner.agent.prepare.checks import check_target
from self_pruner.agent.prepare.placement import place
from self_pruner.agent.result.card_facts import brain_in_words
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Think, read_trace
from self_pruner.agent.settings.arms import ARMS
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.settings.stated import command_line
from self_pruner.memory.errors import SettingsError
from self_pruner.memory.read_only import read_prompt_uses
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.models.source import resolve
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
    assert place(beside, target).thinking(beside).thought_tokens == 0
    large = beside.model_copy(update={"brain": "qwen2.5-1.5b"})
    placement = place(large, check_target(large, weights=False))
    assert placement.thinking(large).thought_tokens == 32
    assert placement.applied(large).thought_tokens == "auto"  # as the command of the card states it
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


@pytest.fixture
def brain(other, tmp_path):
    """A copy of it that a test may change."""
    return Path(shutil.copytree(other, tmp_path / "thinker"))


def test_a_run_does_not_go_on_with_another_brain_and_is_finished_without_any(model, cache, brain, tmp_path, capfd):
    run = stopped_run(tmp_path / "runs", model, cache, "--brain", str(brain), "--export")
    other_weights = tiny_folder(tmp_path / "changed", "qwen2", seed=6, words=2048)
    other_template = Path(shutil.copytree(brain, tmp_path / "template"))
    (other_template / "chat_template.jinja").write_text("{% for one in messages %}{{ one.content }}{% endfor %}")
    for changed in (other_weights, other_template):
        capfd.readouterr()
        with in_place_of(brain, changed):
            assert main(["resume", str(run)]) == 2
        error = capfd.readouterr().err
        assert "was begun with the brain " in error and error.count("\n") == 1

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "export_and_verify", interrupted)
        assert main(["resume", str(run)]) == 130
    shutil.rmtree(brain)  # what is left needs it no more
    assert main(["resume", str(run)]) == 0
    assert RunDirectory.open(run).status == "finished"
    assert "another model, thinker" in (run / "model" / "README.md").read_text()
    assert main(["export", str(run), "--candidate", "c1", "--output", str(tmp_path / "exported")]) == 0


def test_a_folder_without_a_tokenizer_for_its_words_is_no_brain(carried_out, brain):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (brain / file).unlink()
    status, _, error = carried_out(*SMALL, "--brain", str(brain))
    assert status == 2 and "thinker" in error and "tokenizer" in error and error.count("\n") == 1


def test_what_does_not_fit_because_of_the_brain_says_so(model, cache):
    small = machine(memory=16)
    settings = Settings(model=str(model), cache=cache, brain="llama-2-70b", dtype="float32")
    target = check_target(settings, weights=False)
    found = place(settings, target, small)
    assert "with llama-2-70b as its brain" in found.fault and "--brain self would fit" in found.fault
    gpu = machine(80, memory=64)
    fitting = settings.model_copy(update={"brain": "qwen2.5-7b"})
    placed = place(fitting, check_target(fitting, weights=False), gpu)
    taken = placed.sizes.brain_weights + placed.sizes.brain_bytes
    assert placed.reserved("cuda") == placed.reserved("cuda:0") == taken > 0 == placed.reserved("cpu")


def test_a_long_prompt_is_measured_against_the_brains_context(cache, other, tmp_path):
    short = tiny_folder(tmp_path / "short", max_position_embeddings=1100)
    settings = Settings(model=str(short), cache=cache, brain=str(other), calibration_length=64, sequence_length=64)
    settings = settings.model_copy(update={"call_tokens": 1024, "fidelity": (64, 128)})
    target = check_target(settings, weights=False)
    prompts = PromptSet("terse", None)
    planned = plan_of(settings, ARMS["hybrid"], prompts, target.budget, 0)
    assert first_prompt(settings, target, prompts, planned).tokens > 0
    alone = settings.model_copy(update={"brain": "self"})
    with pytest.raises(SettingsError):
        first_prompt(alone, check_target(alone, weights=False), prompts, planned)


def test_arms_that_ask_nobody_or_the_target_are_prepared_without_it(model, cache, other, tmp_path, monkeypatch):
    seen = []

    def prepare(settings, *arguments, **options):
        seen.append(settings.brain)
        raise SettingsError("that is enough")

    monkeypatch.setattr(runner, "prepare", prepare)
    words = ["compare", "--model", model, "--cache", cache, "--runs", tmp_path, "--brain", other, "--seeds", "1"]
    for arms in ("ends", "ends,evolution,hybrid+brain=self", "hybrid"):
        assert main([str(word) for word in [*words, "--arms", arms]]) == 2
    assert seen == ["self", "self", str(other)]


def test_a_brain_and_a_target_of_the_hub_stay_at_the_commit_of_then(monkeypatch):
    commits = {"v1": "1" * 40, None: "a" * 40}

    def pinned(source):
        return replace(source, revision=commits.get(source.revision, source.revision))

    monkeypatch.setattr(checks, "pinned", pinned)
    settings = checks.at_commit(Settings(model="org/target@v1", brain="qwen2.5-7b"))
    assert (settings.model, settings.revision) == ("org/target", "1" * 40)
    assert settings.brain == f"Qwen/Qwen2.5-7B@{'a' * 40}"
    assert checks.at_commit(settings) == settings  # as a resumed run has it
    assert resolve(settings.model, settings.revision).revision == settings.revision
    with pytest.raises(SettingsError, match="--brain is self, .* revision 'v1' has no meaning for 'smollm2-135m'"):
        checks.at_commit(Settings(model="smollm2-135m", brain="smollm2-135m@v1"))


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
    assert {run["arm"]: run["brain"] is not None for run in found["runs"]} == {
        f"hybrid+brain={other}": True,
        "hybrid+brain=uniform": False,
    }
    capfd.readouterr()
    with in_place_of(other, tiny_folder(tmp_path / "changed", "qwen2", seed=6, words=2048)):
        more = [word if word != "1" else "2" for word in arms]
        assert main([*words, str(tmp_path / "compared"), *small, *more]) == 2
    assert "the brain of hybrid+brain=" in capfd.readouterr().err
    assert main([*words, str(tmp_path / "bad"), *small, "--arms", "hybrid+brain=unifrom", "--seeds", "1"]) == 2
    assert "unknown model 'unifrom'" in capfd.readouterr().err and not (tmp_path / "bad").exists()
