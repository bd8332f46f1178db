"""A run goes on with what it was begun with, or not at all, and says what differs."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from main import main
from self_pruner.agent import session
from self_pruner.agent.run_files.binding import FILE, check_settings, keep_prompts, write_binding
from self_pruner.agent.run_files.conditions import Conditions, conditions_of, tokenizer_digest
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.agent.view import View
from self_pruner.memory.errors import RunDirectoryError, SettingsError
from tests.stopped import copied, in_place_of, stopped_run
from tests.tiny import tiny_folder


@pytest.fixture(scope="module")
def stopped(model, cache, tmp_path_factory) -> Path:
    return stopped_run(tmp_path_factory.mktemp("runs"), model, cache)


@pytest.fixture
def run(stopped, tmp_path) -> Path:
    return copied(stopped, tmp_path)


def changed_binding(run, **changes):
    """The run as if it had been begun under other conditions."""
    file = run / FILE
    content = json.loads(file.read_text())
    content["conditions"] |= changes
    file.write_text(json.dumps(content))


def refused(capfd, *words):
    """One sentence and status 2."""
    capfd.readouterr()
    status = main([str(word) for word in words])
    error = capfd.readouterr().err
    assert status == 2 and error.startswith("error: ") and error.count("\n") == 1, error
    return error


def test_what_a_run_depends_on_is_written_down_before_anything_is_measured(model, cache, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("self_pruner.agent.prepare.workbench.calibrate", interrupted)
    monkeypatch.setattr("self_pruner.agent.prepare.workbench.keep", interrupted)
    main(["--model", str(model), "--cache", str(cache), "--runs", str(tmp_path), "--sparsity", "0.3"])
    (run,) = tmp_path.glob("tiny-*")
    found = json.loads((run / FILE).read_text())
    assert found["settings"] == RunDirectory.open(run).settings
    conditions = found["conditions"]
    assert conditions["dtype"] in ("float32", "bfloat16") and conditions["device"] in ("cpu", "cuda")
    assert set(conditions["texts"]) == {"calibration", "fitness", "reporting passages"}
    assert conditions["versions"]["torch"].startswith("2.")
    assert len(conditions["weights"]) == len(conditions["tokenizer"]) == 64


def test_other_weights_are_refused_and_the_run_goes_on_with_its_own(run, model, tmp_path, capfd):
    other = tiny_folder(tmp_path / "other" / "tiny", seed=1)
    memory = run.parent  # copies share the memory of the run they were made of
    with in_place_of(model, other):
        error = refused(capfd, "resume", run)
    assert f"the run {run} was begun with the weights" in error and "tokenizer" not in error
    assert RunDirectory.open(run).status == "stopped" and memory.exists()
    assert main(["resume", str(run)]) == 0
    with in_place_of(model, other):
        for command in (["tasks", run], ["export", run, "--output", tmp_path / "exported"]):
            assert "was begun with the weights" in refused(capfd, *command)
        gguf = ["export", run, "--format", "gguf", "--output", tmp_path / "exported"]
        assert "was begun with the weights" in refused(capfd, *gguf)
    assert not (tmp_path / "exported").exists()


def test_another_tokenizer_is_refused(run, model, tmp_path, capfd):
    other = Path(shutil.copytree(model, tmp_path / "other"))
    file = other / "chat_template.jinja"
    file.write_text(file.read_text() + "{# changed #}")
    with in_place_of(model, other):
        error = refused(capfd, "resume", run)
    assert "the tokenizer" in error and "weights" not in error and "text" not in error


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": "float64"}, "the dtype float64 (now "),
        ({"device": "cuda"}, "the device cuda (now cpu)"),
        ({"commit": "0" * 40}, f"the commit {'0' * 40} (now None)"),
        ({"texts": {"calibration": "abc"}}, "the calibration text abc (now "),
        ({"versions": {"torch": "1.13.1"}}, "torch 1.13.1 (now 2."),
    ],
)
def test_other_conditions_are_refused_by_name(run, capfd, changes, said):
    if "texts" in changes:
        known = json.loads((run / FILE).read_text())["conditions"]["texts"]
        changes = {"texts": known | changes["texts"]}
    changed_binding(run, **changes)
    error = refused(capfd, "resume", run)
    assert said in error


def test_a_patch_of_a_version_and_a_moved_memory_are_said_and_go_on(run, capfd):
    import torch

    known = json.loads((run / FILE).read_text())["conditions"]["versions"]
    versions = known | {"torch": ".".join([*torch.__version__.split(".")[:2], "99"])}
    changed_binding(run, versions=versions, memory="/elsewhere/memory.sqlite")
    assert main(["resume", str(run)]) == 0
    shown = capfd.readouterr().out
    assert "with torch 2." in shown and "with the memory /elsewhere/memory.sqlite (now " in shown


def test_a_refused_resume_leaves_the_status_as_it_was(run, capfd, monkeypatch):
    def refuse(*arguments):
        raise SettingsError("nobody is there")

    before = (run / "status.json").read_text()
    monkeypatch.setattr(session, "check_brain", refuse)
    assert "nobody is there" in refused(capfd, "resume", run)
    assert (run / "status.json").read_text() == before and RunDirectory.open(run).status == "stopped"


def test_a_run_that_sent_its_content_goes_on_without_sending_anything(run, capfd):
    for name in ("settings.toml", FILE):
        text = (run / name).read_text()
        for field in ("otel", "otel_content"):
            text = text.replace(f"{field} = false", f"{field} = true").replace(f'"{field}": false', f'"{field}": true')
        (run / name).write_text(text)
    assert RunDirectory.open(run).settings["otel_content"] is True
    assert main(["resume", str(run), "--no-otel", "--yes"]) == 0, capfd.readouterr().err


def test_prompts_are_copied_whole_or_not_at_all_and_again_where_a_run_has_none(run, monkeypatch):
    directory = RunDirectory.open(run)
    own = {file.name: file.read_text() for file in directory.prompts.iterdir()}
    keep_prompts(directory, Settings(prompt_set="paper"))
    assert {file.name: file.read_text() for file in directory.prompts.iterdir()} == own  # they stay the run's own
    shutil.rmtree(directory.prompts)
    directory.prompts.mkdir()

    def full(self, text, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space"):
            keep_prompts(directory, Settings())
    assert not any(directory.prompts.iterdir())
    keep_prompts(directory, make_settings(directory.settings))
    assert {file.name: file.read_text() for file in directory.prompts.iterdir()} == own


def test_a_memory_that_the_run_made_itself_is_no_other_memory(bundled, tmp_path):
    file, copy = tmp_path / "memory.sqlite", tmp_path / "copy"

    def found(memory):
        return conditions_of(bundled, "cpu", "float32", {}, memory)

    before = found(file)
    file.touch()
    after = found(file)
    assert before.differences(after) == after.differences(after) == {}
    shutil.copy(file, copy)
    assert list(before.differences(found(copy))) == list(after.differences(found(copy))) == ["memory"]
    copy.replace(file)
    assert list(after.differences(found(file))) == ["memory"]


@pytest.mark.parametrize(
    ("line", "edited", "said"),
    [
        ("    128,\n    256,\n", "    64,\n    128,\n", "fidelity [128, 256] (now [64, 128] in its settings.toml)"),
        ('importance = "wanda-sp"', 'importance = "magnitude"', "importance wanda-sp (now magnitude"),
        ("evaluations = 10", "", "evaluations 10 (now None"),
        ("sparsity = 0.3", 'params = "100M"', "sparsity 0.3 (now None in its settings.toml) and params None (now 100M"),
    ],
)
def test_edited_settings_are_refused_by_name_before_anything_is_loaded(run, capfd, monkeypatch, line, edited, said):
    monkeypatch.delattr(session, "prepare")
    file = run / "settings.toml"
    text = file.read_text()
    assert line in text
    file.write_text(text.replace(line, edited))
    assert said in refused(capfd, "resume", run)
    assert said in refused(capfd, "report", run)


def test_a_run_of_before_goes_on_only_where_its_candidates_are_of_this_model(run, model, tmp_path, capfd):
    (run / FILE).unlink()
    with in_place_of(model, tiny_folder(tmp_path / "other" / "tiny", seed=1)):
        assert "none of its candidates is known" in refused(capfd, "resume", run)
    assert not (run / FILE).exists()
    assert main(["resume", str(run)]) == 0
    assert "did not write down what a run depends on" in capfd.readouterr().out
    assert (run / FILE).exists()


@pytest.mark.parametrize("content", ["{", "[]", "{}", "\x00"])
def test_a_damaged_binding_is_named(run, capfd, content):
    (run / FILE).write_text(content)
    assert f"{FILE} is damaged" in refused(capfd, "resume", run)


def test_the_runs_own_latency_table_is_bound_wherever_the_run_is_moved(tmp_path):
    conditions = Conditions(
        **dict(
            weights="a", commit=None, device="cpu", dtype="float32", texts={}, tokenizer="b", versions={}, memory="c"
        )
    )
    with RunDirectory.create(tmp_path, "tiny", {"latency_table": "/measured"}, device="cpu", seed=0) as run:
        run.latency_table.write_text("{}")
        write_binding(run, conditions)
    moved = RunDirectory.open(run.path.rename(tmp_path / "moved"))
    check_settings(moved, View())
    moved.latency_table.write_text("{ }")
    with pytest.raises(RunDirectoryError, match=r"was begun with another latency_table\.json"):
        check_settings(moved, View())


def test_a_tokenizer_is_known_by_what_it_does_not_by_how_it_was_called(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    before = tokenizer_digest(tokenizer)
    tokenizer(["one", "one and two"], truncation=True, max_length=2, padding="max_length")
    assert tokenizer_digest(tokenizer) == before
    tokenizer.add_tokens(["<|mine|>"])
    assert tokenizer_digest(tokenizer) != before


def test_the_device_is_bound_by_its_kind(bundled, tmp_path):
    first, second = (conditions_of(bundled, device, "bfloat16", {}, tmp_path) for device in ("cuda", "cuda:1"))
    assert first == second and first.device == "cuda"
