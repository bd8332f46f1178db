"""A run directory with any file damaged: shown with what is left and what is missing said, or refused in a sentence."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from main import main
from self_pruner.agent import session
from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.result.outcome import SPENT, Difference, Outcome, Row, Yield
from self_pruner.agent.result.result_file import write_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.trace import Act, Judge, Reply, Think, TraceWriter
from self_pruner.agent.settings.settings import Settings
from self_pruner.memory.errors import KeptFileError
from self_pruner.prompts.files import PromptError
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.latency.table import read_table

MARKUP = "</title><script>alert(1)</script>"
DAMAGES = {
    "missing": None,
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "text": b'"x"',
    "nan": b"NaN",
    "binary": b"\x00\xff\xfe\n\x80\n",
    "deep": b"[" * 100_000 + b"\n",
    "cut": "cut",
    "nulls": "nulls",
    "swapped": "swapped",
}
FILES = ("settings.toml", "environment.json", "status.json", "result.json", "trace.jsonl", "model/evaluation.json")


def finished_outcome() -> Outcome:
    names = ("dense", "uniform", "found")
    return Outcome(
        candidate="c1",
        attention=[1, 2],
        mlp=[1, 2],
        dense={"attention": 2, "mlp": 2},
        sparsity=0.3,
        stop="patience",
        rows=[Row(name=name, params=10, kl=0.1 * index, perplexity=9.0) for index, name in enumerate(names)],
        differences=[Difference(against="uniform", mean=-0.1, standard_error=0.01, sequences=4)],
        holdout={"c1": 0.2},
        measured_on=f"text {MARKUP}",
        latency_setting=None,
        spent=dict.fromkeys(SPENT, 1.0),
        yields=[Yield(proposed_by="brain", operator="mutation", made=3, compared=2, improved=1)],
        warnings=[],
        verified=0.0,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run with everything that a page shows, made by hand."""
    base = tmp_path_factory.mktemp("runs")
    settings = Settings(model=str(base / "no-model"), runs=base, memory=base / "memory.sqlite").to_toml()
    with RunDirectory.create(base, "tiny", settings, device="cpu", seed=0, now=datetime(2026, 1, 1)) as run:
        thought = f"cut {MARKUP}"
        with TraceWriter(run.trace) as trace:
            for step in range(1, 4):
                reply = Reply(raw=thought, thought=thought, call={"name": "evaluate", "args": {}})
                trace.write(Think(step=step, generation=1, prompt=MARKUP, replies=(reply,), error=MARKUP))
                rows = [{"id": "c1", "status": "ok", "fitness": 0.5, "change": [{"mean": 0.1}]}]
                answer = {"fidelity": 64, "results": rows}
                trace.write(Act(step=step, call=0, tool="evaluate", arguments={}, result=answer))
                note = {"generation": 1, "survivors": ["c1"], "best": "c1", "note": MARKUP}
                trace.write(Act(step=step, call=1, tool="record_population", arguments={}, result=note))
                trace.write(Judge(step=step, generation=1, spent={"tokens": step}, best="c1", fitness=0.5 / step))
        write_outcome(finished_outcome(), run.path)
        run.model.mkdir()
        models = [{"name": "dense", "parameters": None, "weights": "", "tasks": {"d": {"acc": [0.5, None]}}}]
        evaluation = {
            **dict(command="", harness="h", rows={"boolq": 1}, data=dict.fromkeys(TASKS, "x"), text=None),
            **dict(text_digest=None, length=8, dtype="float32", device="cpu", versions={}, models=models),
        }
        (run.model / "evaluation.json").write_text(json.dumps(evaluation))
        run.set_status("finished", "patience")
    return run.path


TASKS = ("boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")


def nulls(value):
    """The same keys, and nothing in them."""
    return dict.fromkeys(value) if isinstance(value, dict) else None


def damage(run: Path, file: str, how: str) -> None:
    path, kind = run / file, DAMAGES[how]
    before = path.read_bytes()
    path.unlink()
    if kind is None:
        return
    if kind == "cut":
        kind = before[: len(before) // 2]
    elif kind == "nulls":
        made = [json.dumps(nulls(json.loads(line))) for line in before.splitlines()] if file == "trace.jsonl" else None
        kind = ("\n".join(made) + "\n" if made else json.dumps(nulls({"status": 1, "versions": 2}))).encode()
    elif kind == "swapped":
        kind = (run / ("result.json" if file == "status.json" else "status.json")).read_bytes()
    path.write_bytes(kind)


def done(words, capfd) -> tuple[int, str]:
    """Exit status and all that was said by one command line, which must not fail in any other way."""
    status = main([str(word) for word in words])
    said = "".join(capfd.readouterr())
    assert status in (0, 2) and "Traceback" not in said
    assert status == 0 or said.count("error: ") == 1
    return status, said


def test_a_whole_run_is_shown_without_a_word_of_anything_missing(whole, capfd):
    status, said = done(["report", whole], capfd)
    assert status == 0 and "warning" not in said
    assert done(["trace", whole], capfd)[0] == 0


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", DAMAGES)
def test_no_damage_to_a_file_ends_in_anything_but_a_sentence(whole, tmp_path, capfd, file, how):
    # the others are not read before the model is
    commands = (
        ("report", "trace", "resume", "export") if file in ("settings.toml", "status.json") else ("report", "trace")
    )
    for command in commands:
        run = shutil.copytree(whole, tmp_path / command)
        damage(run, file, how)
        words = [command, run, *(("--output", tmp_path / "out") if command == "export" else ())]
        status, said = done(words, capfd)
        if command == "trace" and file == "trace.jsonl":
            assert status == 2 or "damaged" in said or "no step" in said or how in ("cut", "swapped")
        if command == "report" and file in ("trace.jsonl", "environment.json") and how in ("missing", "binary"):
            assert status == 0 and "warning: " in said and Path(file).name.partition(".")[0] in said
            assert "left out" in (run / "report.html").read_text()


def test_a_run_that_goes_on_without_its_trace_says_so(whole, tmp_path, capfd, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "check_target", lambda settings: None)
    monkeypatch.setattr(session, "placed", lambda *_given, **_named: SimpleNamespace(brain=lambda settings: ""))
    monkeypatch.setattr(session, "with_workers", lambda _settings, placement, _view: placement)
    monkeypatch.setattr(session, "prepare", interrupted)
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "checkpoint.sqlite").touch()
    (run / "status.json").write_text('{"status": "stopped"}')
    assert main(["resume", str(run)]) == 130 and "warning" not in capfd.readouterr().out
    (run / "trace.jsonl").unlink()
    assert main(["resume", str(run)]) == 130
    assert "warning: trace.jsonl is missing" in capfd.readouterr().out


def test_a_damaged_line_of_the_trace_is_counted_on_the_page_and_the_screen(whole, tmp_path, capfd):
    run = shutil.copytree(whole, tmp_path / "run")
    lines = (run / "trace.jsonl").read_bytes().splitlines(keepends=True)
    (run / "trace.jsonl").write_bytes(b"".join([lines[0], b"{}\n", *lines[1:]]))
    for command in ("report", "trace"):
        assert "warning: 1 line of the trace is damaged and was left out" in done([command, run], capfd)[1]
    assert "1 line of the trace is damaged and was left out" in (run / "report.html").read_text()


def test_an_answer_that_is_none_of_its_tool_is_no_traceback(whole, tmp_path, capfd):
    run = shutil.copytree(whole, tmp_path / "run")
    with TraceWriter(run / "trace.jsonl") as trace:
        for step, (tool, answer) in enumerate(
            [
                (tool, answer)
                for tool in ("prune_model", "evaluate", "record_population")
                for answer in ({}, [], 3, None)
            ]
        ):
            trace.write(Act(step=10 + step, call=0, tool=tool, arguments={}, result=answer))
    assert done(["trace", run], capfd)[1].count("an answer that cannot be read") == 12
    assert done(["report", run], capfd)[0] == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spent": {}}, "does not say 'evaluations'"),
        ({"rows": []}, "does not say 'dense'"),
        ({"dense": {"attention": 0, "mlp": 2}}, "does not say 'attention'"),
        ({"mlp": []}, "not one width a layer"),
        ({"yields": [{"proposed_by": "brain", "made": 1, "compared": 1, "improved": 2}]}, "more candidates improved"),
    ],
)
def test_a_result_that_no_run_wrote_is_refused(whole, tmp_path, capfd, change, sentence):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / "result.json").write_text(json.dumps(json.loads((run / "result.json").read_text()) | change))
    status, said = done(["report", run], capfd)
    assert status == 2 and sentence in said and "result.json is damaged" in said


@pytest.mark.parametrize("how", [how for how in DAMAGES if how not in ("missing", "swapped", "nulls")])
@pytest.mark.parametrize("file", ["plan.json", "dense.json", "runs/uniform-30-seed0/comparison.json"])
def test_no_damage_to_a_comparison_ends_in_anything_but_a_sentence(tmp_path, capfd, file, how):
    settings = Settings(model=str(tmp_path / "none"))
    comparison = ComparisonFolder(tmp_path / "compared", ("uniform",), (0.3,), (0,), settings)
    comparison.save()
    path = comparison.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = DAMAGES[how]
    path.write_bytes((comparison.path / "plan.json").read_bytes()[:40] if isinstance(kind, str) else kind)
    for words in (["report", comparison.path], ["resume", comparison.path]):
        done(words, capfd)


def test_what_a_brain_says_is_text_on_the_page_and_no_markup(whole, tmp_path, capfd):
    run = shutil.copytree(whole, tmp_path / "run")
    done(["report", run], capfd)
    page = (run / "report.html").read_text()
    assert page.count("<script") == page.count("</script") == 2 and "<script>alert" not in page
    assert "text &lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in page  # for readers without scripts
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    said = [record for record in data["trace"] if record["kind"] == "think"]
    assert [one["prompt"] for one in said] == [MARKUP] * 3 and said[0]["replies"][0]["thought"] == f"cut {MARKUP}"


@pytest.mark.parametrize("file", ["trace.jsonl", "environment.json", "result.json"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(whole, tmp_path, capfd, file):
    run = shutil.copytree(whole, tmp_path / "run")
    (run / file).unlink()
    os.mkfifo(run / file)
    for command in ("report", "trace"):
        done([command, run], capfd)


def test_brackets_without_end_are_no_latency_table_and_no_prompt_set(tmp_path):
    (tmp_path / "table.json").write_bytes(DAMAGES["deep"])
    with pytest.raises(KeptFileError, match="no latency table, or is damaged"):
        read_table(tmp_path / "table.json")
    PromptSet("default").copy_to(tmp_path / "prompts")
    (tmp_path / "prompts" / "set.toml").write_bytes(b"hints = " + DAMAGES["deep"])
    with pytest.raises(PromptError, match="set.toml, line 1: syntax error"):
        PromptSet("default", tmp_path / "prompts").check()
