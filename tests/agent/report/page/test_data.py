"""The document of a page: what is in it of finished, running, failed and begun runs, and that nothing is changed."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from typing import get_args

import pytest

from self_pruner.agent.report.html_report import write_report
from self_pruner.agent.report.page import html
from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.report.page.html import embedded, page_html, program
from self_pruner.agent.report.page.trace_lines import read_lines
from self_pruner.agent.report.result_tables import final_table
from self_pruner.agent.result.result_file import read_outcome
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.errors import ExportError
from self_pruner.memory.records import Proposer
from tests.agent.command_line.test_parser import HEAVY
from tests.agent.report.page.made_up import LAYERS, MARKUP
from tests.stopped import stopped_run


def data_of(path, start=0):
    return page_data(RunDirectory.open(path, strict=False), start)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_has_its_tables_sentences_and_choice(runs):
    data = data_of(runs / "finished")
    outcome = read_outcome(runs / "finished")
    header, rows = final_table(outcome)
    table = data["overview"]["tables"][0]
    assert (table["header"], table["rows"], table["marked"]) == (list(header), [list(row) for row in rows], "found")
    said = dict(data["overview"]["sentences"])
    assert "1,000 become 900" in said["Result"] and "below the best baseline" in said["Search"]
    assert data["state"] == {"state": "finished", "reason": "16 evaluations are used up"}
    assert (
        data["overview"]["chosen"] == "c1" and data["gaps"] == [] and data["budget"] == "30.0% of the decoder removed"
    )
    assert [one["holdout"] for one in data["candidates"][:3]] == [0.3, None, 0.4]


@pytest.mark.parametrize("line", ['speedup = "fast"', 'sparsity = "x"'])
def test_a_budget_that_somebody_spoilt_by_hand_spoils_nothing_else(runs, tmp_path, line):
    folder = shutil.copytree(runs / "finished", tmp_path / "run")
    settings = folder / "settings.toml"
    kept = [one for one in settings.read_text().splitlines() if one.split(" ")[0] != line.split(" ")[0]]
    settings.write_text("\n".join([line, *kept]) + "\n")
    data = data_of(folder)
    assert data["budget"] in ("a budget that cannot be read", "30.0% of the decoder removed") and data["gaps"]


def test_every_candidate_has_its_scores_by_tokens_and_text(runs):
    data = data_of(runs / "finished")
    first = data["candidates"][0]
    assert first["detail"] == "uniform" and first["latency"]["speedup"] == 1.2 and first["repaired"] == 2
    mean = first["scores"]["128"]  # of two sequences, 0.01 apart
    assert first["scores"]["256"] == pytest.approx(mean + 0.01)
    assert first["texts"] == pytest.approx({"passages": mean + 0.005, "papers": mean + 0.015})  # they take turns
    assert any(one["scores"].keys() == {"128"} for one in data["candidates"])
    assert {one["proposed_by"] for one in data["candidates"]} == {"seed", "brain", "switch", "cross", "chance"}
    assert [one["number"] for one in data["generations"]] == [0, 1, 2]


def test_what_earlier_runs_had_learnt_is_there_with_the_model_it_is_of(runs):
    (known,) = data_of(runs / "finished")["remembered"]
    assert (known["take"], known["give"], known["verdict"], known["run"]) == ("mlp 0-1", "mlp 4-5", "held", "earlier")
    assert known["model"] == f"Small {MARKUP}" and "evidence" not in known  # candidates of another run are none of this


def test_a_lesson_of_before_other_models_had_any_is_of_the_model_itself(runs, tmp_path):
    folder = shutil.copytree(runs / "finished", tmp_path / "run")
    with sqlite3.connect(folder / "records.sqlite") as connection:
        connection.execute("ALTER TABLE lesson DROP COLUMN model")
    connection.close()
    assert data_of(folder)["remembered"][0]["model"] == ""


def test_probes_and_sensitivities_are_told_by_place(runs):
    data = data_of(runs / "finished")
    found = [(one["layer"], one["part"], one["width"], one["kl"]) for one in data["probes"]]
    assert found == [(layer, "mlp", 8, 0.1 / (layer + 1)) for layer in range(LAYERS)]
    (one,) = data["sensitivities"]
    assert one["mlp"][0] == [0.1, 0.1] and len(one["attention"]) == LAYERS
    assert data["dense"] == {"attention": 3, "mlp": 12}


def test_a_run_that_goes_on_is_told_as_far_as_it_is_and_half_a_line_is_left_alone(runs):
    data = data_of(runs / "running")
    assert data["state"]["state"] == "running" and data["overview"] is None and data["gaps"] == []
    assert data["progress"]["evaluations"] == 8 and data["trace"][-1]["kind"] == "judge"
    whole = (runs / "running" / "trace.jsonl").read_bytes()
    assert data["trace_end"] == whole.rindex(b"\n") + 1


def test_only_what_is_new_of_a_trace_is_told_where_that_is_asked_for(runs, tmp_path):
    path = shutil.copytree(runs / "running", tmp_path / "run")
    before = data_of(path)
    with open(path / "trace.jsonl", "ab") as trace:
        trace.write(b'eration": 1, "prompt": "", "a new field": {"held": [1]}}\n{}\nno json\n')
    after = data_of(path, before["trace_end"])
    assert [(one["step"], one["a new field"]) for one in after["trace"]] == [(99, {"held": [1]})]
    assert after["trace_from"] == before["trace_end"] and after["gaps"] == [
        "2 lines of the trace are damaged and were left out"
    ]
    assert after["progress"] == before["progress"]
    again = data_of(path, before["trace_end"] - 7)  # no line begins there: another file
    assert again["trace_from"] == 0 and len(again["trace"]) == len(before["trace"]) + 1


def test_a_step_that_was_run_again_is_told_once(tmp_path):
    lines = [{"kind": "act", "step": 1, "call": 0, "tool": "evaluate", "arguments": {}, "tokens": n} for n in (1, 2)]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (record,) = read_lines(tmp_path / "trace.jsonl").records
    assert record["tokens"] == 2 and record["words"] == "called evaluate"


@pytest.mark.parametrize("arguments", [None, [], 3, {"edits": 3}, {"edits": [3]}, {"parents": 7}])
def test_arguments_that_no_tool_takes_are_no_traceback(tmp_path, arguments):
    line = {"kind": "act", "step": 1, "call": 0, "tool": "prune_model", "arguments": arguments}
    (tmp_path / "trace.jsonl").write_text(json.dumps(line) + "\n")
    assert len(read_lines(tmp_path / "trace.jsonl").records) == 1


def test_failed_begun_stopped_and_killed_runs_say_what_they_are(runs, tmp_path):
    assert data_of(runs / "failed")["state"] == {"state": "failed", "reason": "RuntimeError: the disk <b>is</b> full"}
    begun = data_of(runs / "begun")
    assert begun["state"]["state"] == "running" and begun["gaps"] == [] and begun["candidates"] == []
    killed = shutil.copytree(runs / "running", tmp_path / "killed")
    (killed / ".lock").write_text("999999999")
    assert data_of(killed)["state"]["state"] == "interrupted" and "resume" in data_of(killed)["state"]["reason"]
    RunDirectory.open(killed).set_status("stopped", "stopped by the user")
    assert data_of(killed)["state"]["state"] == "stopped"


def test_what_is_missing_or_damaged_is_said_and_the_rest_is_there(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    (path / "records.sqlite").write_bytes(b"no database" * 100)
    (path / "trace.jsonl").unlink()
    (path / "settings.toml").write_text('model = "tiny"\nof_tomorrow = 3\n')
    data = data_of(path)
    assert [gap for gap in data["gaps"] if "of_tomorrow" in gap] and [
        gap for gap in data["gaps"] if "records.sqlite" in gap
    ]
    assert "trace.jsonl is missing: what the brain said, and what came of it, is left out" in data["gaps"]
    assert data["candidates"] == [] and data["overview"]["chosen"] == "c1" and data["dense"]["mlp"] == 12
    (strange,) = [one for one in data["reproduce"]["settings"] if one["panel"] == "Of another version"]
    assert strange["value"] == 3


def test_a_row_that_no_program_wrote_is_said(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    with sqlite3.connect(path / "records.sqlite") as connection:
        connection.execute("UPDATE candidate SET parents = 'none' WHERE id = 'c1'")
    connection.close()
    assert any("corrupt" in gap for gap in data_of(path)["gaps"])


@pytest.mark.parametrize("kind", ["finished", "running", "failed", "begun"])
def test_looking_changes_nothing(runs, kind):
    before = contents(runs / kind)
    data_of(runs / kind)
    assert contents(runs / kind) == before


def test_settings_are_told_with_their_help_and_keys_are_not(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    environment = json.loads((path / "environment.json").read_text())
    secret = "hf_" + 20 * "x"
    (path / "environment.json").write_text(
        json.dumps(environment | {"command": ["main.py", "--sparsity", "0.3", secret]})
    )
    told = data_of(path)["reproduce"]
    assert told["command"] == "python main.py --sparsity 0.3 [redacted]"
    named = {one["name"]: one for one in told["settings"]}
    assert (
        named["sparsity"]["value"] == 0.3
        and named["sparsity"]["default"] is None
        and "remove" in named["sparsity"]["help"]
    )
    assert named["patience"]["panel"] == "How long the search takes"


def test_the_page_holds_its_data_and_loads_nothing(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    assert write_report(RunDirectory.open(path)) == []
    page = (path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "$" not in page.partition("<style>")[0]
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["overview"]["tables"][0]["note"].count(MARKUP) == 1
    assert page.count("<script") == page.count("</script") == 2 and MARKUP not in page
    assert "The MIT License" in page and 'src="' not in page and "@import" not in page and "connect-src 'none'" in page
    assert len(page) - len(embedded(data)) < 1.5e6
    plain = page.partition("<noscript>")[2].partition("</noscript>")[0]
    assert "needs JavaScript" in plain and "<td>found</td><td>900</td>" in plain


def test_the_script_makes_no_markup_out_of_text():
    own = program().partition("'use strict'")[2]
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert way not in own
    assert "</script" not in program() and "<!--" not in program()


def test_a_page_without_its_library_is_made_and_one_without_its_script_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(html, "LIBRARY", tmp_path)
    monkeypatch.setattr(html, "program", html.program.__wrapped__)  # nothing is remembered
    monkeypatch.setattr(html, "look", html.look.__wrapped__)
    assert "uPlot.iife" not in page_html("a", {"live": {}}) and "MIT" not in page_html("a", {"live": {}})
    monkeypatch.setattr(html, "HERE", tmp_path)
    with pytest.raises(ExportError, match="cannot be made without .*dom.js"):
        page_html("a", {"live": {}})


def test_the_page_has_words_for_every_proposer():
    words = (html.HERE / "app" / "model.js").read_text().partition("MAKERS = {")[2].partition("};")[0]
    assert set(re.findall(r"(\w+): '", words)) == set(get_args(Proposer))
    assert "fallback: 'the tool, at random'" in words  # also where no brain is asked, in whose place it could be


def test_what_would_end_the_script_is_escaped():
    data = {"live": {}, "text": "</script>\u2028<!--"}
    text = embedded(data)
    assert "<" not in text and "\u2028" not in text and json.loads(text) == data
    assert "<title>a &lt;b&gt;</title>" in page_html("a <b>", data)


def test_figures_that_are_none_and_half_characters_are_read_by_a_browser(runs, tmp_path):
    path = shutil.copytree(runs / "finished", tmp_path / "run")
    with open(path / "trace.jsonl", "a") as trace:
        trace.write(
            '{"kind": "judge", "step": 90, "spent": {"tokens": NaN, "minutes": 1e999}, "best": "\\ud800 Infinity"}\n'
        )
    write_report(RunDirectory.open(path))
    text = (path / "report.html").read_text().partition('id="data">')[2].partition("</script>")[0]
    last = json.loads(text, parse_constant=lambda name: pytest.fail(name))["trace"][-1]
    assert last["spent"] == {"tokens": None, "minutes": None} and last["best"] == "? Infinity"


def test_a_real_run_is_told_whole(tmp_path, model, cache):
    path = stopped_run(tmp_path, model, cache)
    data = data_of(path)
    assert data["gaps"] == [] and data["state"]["state"] == "stopped"
    assert len(data["candidates"]) >= 10 and len(data["probes"]) == 2 * 3  # both parts of three layers
    last = data["generations"][-1]
    by_id = {one["id"]: one for one in data["candidates"]}
    judge = next(one for one in reversed(data["trace"]) if one["kind"] == "judge")
    assert by_id[last["best"]]["scores"]["256"] == pytest.approx(judge["fitness"])
    asked = [one for one in data["trace"] if one["kind"] == "act" and one["tool"] == "evaluate"]
    for row in (row for act in asked for row in act["result"]["results"]):
        assert row["fitness"] in [pytest.approx(value) for value in by_id[row["id"]]["scores"].values()]
    assert data["sensitivities"] and {one["name"] for one in data["prompts"]} > {"system.j2", "set.toml"}


LOADED = """
import sys
from pathlib import Path
from self_pruner.agent.report.page import server
from self_pruner.agent.report.page.data import page_data
from self_pruner.agent.run_files.run_directory import RunDirectory
for name in ("finished", "running", "failed", "begun"):
    page_data(RunDirectory.open(Path(sys.argv[1]) / name, strict=False))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_a_page_is_made_without_what_takes_seconds_to_load(runs):
    done = subprocess.run([sys.executable, "-c", LOADED, str(runs)], capture_output=True, text=True, check=True)
    assert not HEAVY.intersection(done.stdout.split())
