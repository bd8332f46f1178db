"""The page of a run: its tables have the figures of the last screen, and the result's row is marked."""

import re
from types import SimpleNamespace

from self_pruner.agent.report.html_report import final_table, write_report
from self_pruner.agent.result.outcome import Outcome, Row
from self_pruner.agent.settings.settings import Settings

SPENT = {"evaluations": 3.0, "weight_bytes": 2.69e8}


def outcome():
    return Outcome(
        candidate="c2",
        attention=[1, 2],
        mlp=[3, 4],
        dense={"attention": 2, "mlp": 4},
        sparsity=0.3,
        stop="3 evaluations are used up",
        rows=[
            Row(name="dense", params=134_515_008, kl=0.0, perplexity=26.1, prefill_ms=307.9, speedup=1.0),
            Row(name="uniform", params=102_664_512, kl=1.2594, perplexity=1084.61),
            Row(name="found", params=102_682_944, kl=0.6644, perplexity=45.43),
        ],
        differences=[],
        holdout={},
        measured_on="passages",
        latency_setting=None,
        spent=SPENT,
        yields=[],
        warnings=[],
    )


def test_the_page_has_the_final_table_of_the_screen_and_marks_the_result(tmp_path):
    run = SimpleNamespace(
        name="tiny-1",
        trace=tmp_path / "trace.jsonl",
        model=tmp_path / "model",
        report=tmp_path / "report.html",
        fault="",
        status="finished",
        environment={"device": "cpu", "versions": {"torch": "2.13.0"}},
    )
    missing = write_report(run, Settings(), outcome())
    page = run.report.read_text()
    assert page.startswith("<!doctype html>")
    rows = re.findall(r"<tr(?: class=\"found\")?><td>.*?</tr>", page, re.DOTALL)
    header, cells = final_table(outcome())
    assert [re.findall("<td>(.*?)</td>", row) for row in rows[:3]] == [list(row) for row in cells]
    assert [row[0] for row in cells] == ["dense", "uniform", "found"] and len(header) == len(cells[0]) == 8
    assert cells[1][3] == "1,084.61" and cells[1][4] == "-"
    (marked,) = re.findall(r'<tr class="found"><td>(.*?)</td>', page)
    assert marked == "found"
    assert missing == ["trace.jsonl is missing: what the brain said, and what came of it, is left out"]
