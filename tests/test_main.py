"""The command line: every bad input is one sentence, a non-zero exit, and nothing left half-written."""

import json
import shutil
import sqlite3

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.settings.settings import Settings, make_settings
from tests.command_line import given

SMALL = [
    *("--sequence-length", "64", "--fidelity", "128,256", "--probe-tokens", "64", "--final-tokens", "128"),
    *("--reporting-tokens", "128", "--calibration-length", "64", "--calibration-sequences", "4"),
    *("--evaluations", "4", "--offspring", "3", "--initial", "2", "--population", "2", "--benchmarks", "0"),
    *("--sparsity", "0.3", "--brain", "first"),
]


@pytest.fixture
def run(model, cache, tmp_path, capfd):
    """Runs the command line on the tiny model; returns (status, standard output, standard error)."""

    def run(*words, small=True, runs=tmp_path / "runs"):
        options = ["--model", model, "--runs", runs, "--cache", cache, *SMALL] if small else []
        status = main([str(word) for word in [*options, *words]])
        output = capfd.readouterr()
        return status, output.out, output.err

    return run


def assert_refused(result, tmp_path, *words):
    """One sentence with these words, exit status 2, no run left behind."""
    status, _, errors = result
    assert status == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors
    for word in words:
        assert word in errors
    assert not list((tmp_path / "runs").glob("tiny*")) if (tmp_path / "runs").is_dir() else True


BAD_SETTINGS = {
    "contradictory targets": (["--params", "49B"], ["--sparsity and --params", "only one"]),
    "sparsity out of range": (["--sparsity", "1.5"], ["--sparsity", "1.5"]),
    "sparsity impossible": (["--sparsity", "0.99"], ["cannot be reached", "0."]),
    "not a number": (["--sparsity", "much"], ["--sparsity", "much"]),
    "unknown option": (["--sparsty", "0.3"], ["--sparsty", "--help"]),
    "unknown importance": (["--importance", "wonder"], ["--importance", "wonder", "wanda-sp"]),
    "fidelity that falls": (["--fidelity", "256,128"], ["--fidelity", "256,128"]),
    "fidelity of nothing": (["--fidelity", "0,128"], ["--fidelity", "0"]),
    "latency beyond the context": (["--benchmarks", "1", "--latency-prompt", "4096"], ["--latency-prompt", "2048"]),
    "calls that leave no room for a prompt": (["--brain", "self", "--call-tokens", "2000"], ["prompt", "tokens"]),
    "fidelity off the sequence length": (["--fidelity", "100"], ["--fidelity", "multiple", "64"]),
    "unit that does not fit": (["--mlp-unit", "40"], ["40"]),
    "text that is not known": (["--calibration", "wikitxt2"], ["wikitxt2", "wikitext2"]),
    "text file that is missing": (["--calibration", "missing.txt"], ["missing.txt", "does not exist"]),
    "prompt set that is not known": (["--prompt-set", "defalt"], ["defalt", "default"]),
    "prompt folder that is missing": (["--prompts", "no-such-folder"], ["no-such-folder"]),
    "device that is not there": (["--device", "cuda:7"], ["cuda:7"]),
    "device that does not exist": (["--device", "abacus"], ["--device", "abacus"]),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting_is_one_sentence(run, tmp_path, case):
    words, said = BAD_SETTINGS[case]
    assert_refused(run(*words), tmp_path, *said)


def test_params_beyond_the_model_name_the_feasible_range(model, cache, tmp_path, capfd):
    small = [word for word in SMALL if word not in ("--sparsity", "0.3")]
    words = ["--model", model, "--runs", tmp_path / "runs", "--cache", cache, *small, "--params", "49B"]
    status = main([str(word) for word in words])
    assert_refused((status, "", capfd.readouterr().err), tmp_path, "49,000,000,000 parameters cannot be reached")


def test_a_parameter_count_that_is_none_is_refused_before_anything_is_loaded(tmp_path, capfd):
    status = main(["--params", "49X", "--runs", str(tmp_path / "runs")])
    assert_refused((status, "", capfd.readouterr().err), tmp_path, "--params", "49X")


def test_an_unknown_alias_names_close_ones(run, tmp_path):
    assert_refused(run("--model", "llama-2-7"), tmp_path, "llama-2-7b")


def test_a_folder_without_a_config_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_refused(run("--model", tmp_path / "empty"), tmp_path, "config.json")


def test_a_truncated_checkpoint_is_refused(run, model, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(model, cut)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert_refused(run("--model", cut), tmp_path, "model.safetensors")


def test_a_pickle_checkpoint_is_refused(run, model, tmp_path):
    pickled = tmp_path / "pickled"
    shutil.copytree(model, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert_refused(run("--model", pickled), tmp_path, "safetensors")


def test_an_unsupported_family_names_the_supported_ones(run, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    config = json.loads((other / "config.json").read_text()) | {"model_type": "gpt2"}
    (other / "config.json").write_text(json.dumps(config))
    assert_refused(run("--model", other), tmp_path, "gpt2", "llama", "qwen3")


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("Just one line.", "token")])
def test_an_empty_or_tiny_text_is_refused(run, tmp_path, text, said):
    (tmp_path / "mine.txt").write_text(text)
    assert_refused(run("--calibration", tmp_path / "mine.txt"), tmp_path, said, "mine.txt")


@pytest.mark.parametrize(
    ("text", "said"), [("{{ modle.name }}", "modle"), ("{% if %}", "turn.j2"), ('{% include "../x.j2" %}', "../x.j2")]
)
def test_a_bad_prompt_file_is_named_with_its_line(run, tmp_path, text, said):
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "turn.j2").write_text(f"first line\n{text}\n")
    assert_refused(run("--prompts", tmp_path / "prompts"), tmp_path, said, "turn.j2, line 2")


def test_a_file_that_is_no_memory_is_left_as_it_is(run, tmp_path):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (a)")
    before = other.read_bytes()
    assert_refused(run("--memory", other), tmp_path, "other.sqlite")
    assert other.read_bytes() == before
    (tmp_path / "text.sqlite").write_text("not a database at all, but long enough to be looked at" * 20)
    assert_refused(run("--memory", tmp_path / "text.sqlite"), tmp_path, "text.sqlite")


def test_a_place_that_cannot_be_written_is_refused(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, errors = run(runs=tmp_path / "file" / "runs")
    assert status == 2 and errors.count("\n") == 1 and "file" in errors
    assert_refused(run("--memory", tmp_path / "file" / "memory.sqlite"), tmp_path, "file")


def test_a_run_in_use_is_not_resumed_by_another_process(run, tmp_path):
    with RunDirectory.create(tmp_path / "runs", "mine", {"model": "x"}, device="cpu", seed=0) as held:
        status, _, errors = run("resume", held.path, small=False)
    assert status == 2 and errors.count("\n") == 1 and "use" in errors


@pytest.mark.usefixtures("believed")
def test_a_run_made_with_relative_paths_is_resumed_from_anywhere(model, cache, tmp_path, monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(session, "choose", interrupted)
        words = ["--model", str(model), "--cache", str(cache), "--runs", "mine", *SMALL]
        assert main(words) == 130
    said = capfd.readouterr().out
    assert "Run mine/tiny-" in said and "resume mine/tiny-" in said and str(tmp_path) not in said  # as it was typed
    (path,) = (tmp_path / "mine").glob("tiny-*")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    renamed = path.rename(tmp_path / "renamed")
    assert main(["resume", str(renamed)]) == 0
    assert not list((tmp_path / "elsewhere").iterdir())
    evaluated = json.loads((renamed / "result.json").read_text())["spent"]["evaluations"]
    assert evaluated >= 4 and f"report {renamed}" in capfd.readouterr().out


@pytest.mark.parametrize("command", ["resume", "report", "trace"])
def test_a_folder_that_is_no_run_is_refused(run, tmp_path, command):
    status, _, errors = run(command, tmp_path, small=False)
    assert status == 2 and "there is no run" in errors and errors.count("\n") == 1


@pytest.mark.usefixtures("believed")
@pytest.mark.parametrize("phase", ["prepare", "with_probes", "run_search", "choose", "refit", "write_report"])
def test_ctrl_c_in_any_phase_leaves_a_run_that_can_be_resumed(run, tmp_path, monkeypatch, phase):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, phase, interrupted)
        status, output, errors = run()
    assert status == 130 and not errors
    (path,) = (tmp_path / "runs").glob("tiny-*")
    assert f"resume {path}" in output
    assert RunDirectory.open(path).status == "stopped"
    status, output, _ = run("resume", path, small=False)
    assert status == 0
    assert RunDirectory.open(path).status == "finished"
    assert (path / "model" / "model.safetensors").exists() and (path / "report.html").exists()


@pytest.mark.usefixtures("believed")
def test_a_disk_that_fills_up_during_export_loses_nothing_but_the_export(run, tmp_path, monkeypatch):
    import errno

    from self_pruner.tools.export import checkpoint

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_sharded", full)
        status, _, errors = run()
    assert status == 2 and errors.count("\n") == 1 and "space" in errors
    (path,) = (tmp_path / "runs").glob("tiny-*")
    assert not (path / "model").exists() and not list(path.glob("*.partial"))
    assert run("resume", path, small=False)[0] == 0


def test_every_setting_has_an_option_and_the_command_line_only_names_what_differs():
    named = given(["--sparsity", "0.3", "--fidelity", "512,1024", "--no-trust-remote-code"])
    assert named == {"sparsity": 0.3, "fidelity": (512, 1024), "trust_remote_code": False}
    assert make_settings(named).sparsity == 0.3
    assert set(given(everything())) == set(Settings.model_fields)


def everything():
    words = []
    for name, field in Settings.model_fields.items():
        option = "--" + name.replace("_", "-")
        value = {"fidelity": "512", "device": "cpu"}.get(name, str(field.default or 1))
        words += [option] if isinstance(field.default, bool) else [option, value]
    return words
