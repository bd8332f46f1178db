"""What a comparison leaves in its folder and on the screen; the page is one file that needs nothing else."""

import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from self_pruner.agent.compare.figures import ComparedArms
from self_pruner.agent.compare.page import Axis, Series, chosen, curve_chart, curve_charts, render, show, write_all
from self_pruner.agent.compare.results import Results
from self_pruner.agent.compare.sentences import sentences
from self_pruner.agent.run_files.atomic_write import WriteError
from self_pruner.agent.settings.arms import ARM_NAMES
from self_pruner.agent.view import View
from tests.agent.compare.invented import curve, proposer, results, run_result, steady

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags close in order, and gathers what tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def searched(arm, perplexity, seed=0, sparsity=0.3, **values):
    yields = [
        proposer("brain", 12, 5),
        proposer("chance", 10, 2),
        proposer("switch", 9, 4),
        proposer("fallback", 0, 0, made=1),
    ]
    return run_result(
        arm, perplexity, seed=seed, sparsity=sparsity, recalibrated=perplexity * 0.95,
        curve=curve([1.5, 1.0, 0.8 + 0.01 * seed]), yields=yields, **values
    )  # fmt: skip


FULL = [
    *(
        searched(arm, perplexity * (1 + sparsity) + seed, seed, sparsity)
        for arm, perplexity in (("hybrid", 30.0), ("self", 36.0), ("evolution", 32.0))
        for sparsity in (0.2, 0.3, 0.5)
        for seed in range(3)
    ),
    *(run_result(arm, 45.0, sparsity=sparsity) for arm in ("owl", "uniform") for sparsity in (0.2, 0.3, 0.5)),
]
SHAPES = {
    "full": FULL,
    "one run": [searched("hybrid", 30.0)],
    "no runs": [],
    "closed forms": [run_result("owl", 30.0), run_result("uniform", 40.0)],
    "runs missing": [run for run in FULL if (run.arm, run.sparsity, run.seed) != ("hybrid", 0.5, 1)][1:-1],
    "all arms": [searched(arm, 30.0 + place, seed) for place, arm in enumerate(ARM_NAMES) for seed in range(2)],
    "no perplexity": [
        FULL[0],
        FULL[1].model_copy(
            update={"texts": [one.model_copy(update={"perplexity": math.inf}) for one in FULL[1].texts]}
        ),
    ],
    "nothing measured": [FULL[0].model_copy(update={"texts": [], "recalibrated": [], "curve": [], "fitness": None})],
    "one layer": [FULL[0].model_copy(update={"attention": [1], "mlp": [1]})],
}


def page(runs, **values):
    return Page(render(results(runs, **values)))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_page_is_well_formed_needs_nothing_else_and_says_its_charts_in_words(shape):
    text = render(results(SHAPES[shape]))
    found = Page(text)
    assert not found.named("script") and not found.named("link") and not found.named("img")
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", text)
    assert all(attrs["href"].startswith("#") for attrs in found.named("use") + found.named("a"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in found.named("svg"):
        if attrs.get("role") == "img":
            title, description = attrs["aria-labelledby"].split()
            assert title in ids and description in ids
        else:
            assert attrs["aria-hidden"] == "true"
    assert "None" not in " ".join(found.texts)
    assert not re.search(r"\b(nan|inf)\b", text)


@pytest.mark.parametrize("shape", ["full", "one run", "no runs", "closed forms"])
def test_the_summary_stands_first(shape):
    found = page(SHAPES[shape]).texts
    start = found.index(sentences(results(SHAPES[shape]))[0])
    assert found[start : start + len(sentences(results(SHAPES[shape])))] == sentences(results(SHAPES[shape]))


def test_a_full_page_has_every_section():
    found = page(FULL, missing=["cma at 30%, seed 2"])
    text = " ".join(found.texts)
    for heading in (
        "Final figures",
        "Best so far against cost",
        "Paired differences",
        "Who proposed what improved",
        "Generalisation",
        "Cost",
        "Profiles",
        "Arms",
        "Missing runs",
        "Reproduce",
    ):
        assert heading in text, heading
    for fact in ("cma at 30%, seed 2", "python main.py compare", "torch 2.13.0; 2 cores.", "evaluations = 20"):
        assert fact in text
    charts = [attrs for attrs in found.named("svg") if attrs.get("role") == "img"]
    assert len(charts) == 3 + 15  # curves, profiles


def test_sections_without_content_are_left_out():
    text = " ".join(page([run_result("owl", 30.0, fitness=None)], units={}).texts)
    for heading in ("Best so far", "Paired differences", "Who proposed", "Generalisation", "Profiles", "Missing runs"):
        assert heading not in text


def test_whatever_the_user_named_is_text_and_never_markup():
    odd = "hybrid:<script>alert(1)</script>&\"'"
    run = searched(odd, 30.0)
    texts = [one.model_copy(update={"text": f"<b>{one.text}</b>"}) for one in run.texts]
    dense = results([run]).dense
    found = page(
        [run.model_copy(update={"texts": texts})],
        model="<i>m</i>",
        command="compare --arms '<u>'",
        arms={odd: "<s>meaning</s>"},
        missing=["<script>"],
        dense=[one.model_copy(update={"text": f"<b>{one.text}</b>"}) for one in dense],
        settings={"<em>": "</pre>"},
        machine="<p>",
    )
    assert not any(found.named(tag) for tag in ("script", "b", "i", "u", "s", "em"))
    assert odd in found.texts


def test_bars_show_the_share_of_the_dense_model():
    found = page([run_result("owl", 30.0, attention=[4, 2, 0], mlp=[12, 6, 3])], units={"attention": 4, "mlp": 12})
    bars = [attrs for attrs in found.named("rect") if attrs.get("class") in ("a", "b") and "x" in attrs]
    assert [float(bar["height"]) for bar in bars] == [30.0, 30.0, 15.0, 15.0, 0.0, 7.5]


def test_curves_are_staircases_thin_for_each_of_several_runs_and_thick_for_the_mean():
    paths = [attrs for attrs in page([searched("hybrid", 30.0, seed) for seed in range(2)]).named("path")]
    thin = [attrs["d"] for attrs in paths if attrs.get("class", "").startswith("thin")]
    thick = [attrs["d"] for attrs in paths if attrs.get("class", "").startswith("thick")]
    assert len(thin) == 2 and len(thick) == 1
    assert all(re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}", path) for path in [*thin, *thick])
    assert not any("thin" in attrs.get("class", "") for attrs in page([searched("hybrid", 30.0)]).named("path"))


def test_the_run_that_is_kept_is_chosen_without_the_reported_figures():
    good = run_result("hybrid", 20.5, seed=0, holdout=0.5)
    lucky = run_result("hybrid", 22.0, seed=1, holdout=0.4)
    unknown = run_result("hybrid", 20.1, seed=2, holdout=None)
    assert chosen([good, lucky, unknown]).seed == 1
    assert chosen([unknown]).seed == 2


# --- the curves


@steady
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_on_the_axis(low, span):
    axis = Axis(low, low + span, 0, 100)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 6
    slack = 1e-6 * max(abs(low), span)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    step = ticks[1] - ticks[0]
    assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 3) in (1, 2, 5, 10)


def test_curves_run_from_left_to_right_and_better_is_further_down():
    chart = curve_chart("", [Series("a", [[(0.0, 1.0), (10.0, 0.5), (20.0, 0.5)]])])
    assert chart.x.start < chart.x.at(0.0) < chart.x.at(10.0) < chart.x.at(20.0) < chart.x.end
    assert 0 < chart.y.at(1.0) < chart.y.at(0.5) < chart.height


def test_a_level_near_the_curves_is_on_the_axis_and_one_far_off_is_not():
    levels = [Series("near", [], 1.2), Series("far", [], 50.0)]
    chart = curve_chart("", [Series("a", [[(0.0, 1.0), (10.0, 0.5)]]), *levels])
    assert chart.y.low < 0.5 and 1.2 < chart.y.high < 1.3


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_equal_values_still_make_an_axis(value):
    chart = curve_chart("", [Series("a", [[(value, value), (value, value)]])])
    assert chart.x.ticks() and chart.y.ticks() and math.isfinite(chart.x.at(value))


def test_without_curves_there_is_no_chart():
    assert curve_charts(ComparedArms(results([run_result("owl", 30.0)]))) == []


def test_a_chart_says_its_figures_in_words():
    chart = curve_chart("", [Series("a", [[(0.0, 1.0), (2000.0, 0.5)]]), Series("b", [], 0.7)])
    assert chart.description == "a ends at 0.5000 after 2,000 tokens; b is at 0.7000"


# --- files and the screen

RUNS = [run_result("hybrid", 30.0, seed=seed) for seed in range(2)] + [run_result("[bold]owl", 40.0)]


def screen(found):
    stream = io.StringIO()
    show(found, View(Console(file=stream, soft_wrap=True)))
    return stream.getvalue()


def test_the_same_results_make_the_same_files(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        write_all(folder, results(RUNS))
    assert {path.name for path in one.iterdir()} == {"results.json", "table.md", "table.csv", "compare.html"}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.parametrize("perplexity", [30.0, math.inf])
def test_results_are_read_back_as_they_were(tmp_path, perplexity):
    run = RUNS[0].model_copy(
        update={"texts": [one.model_copy(update={"perplexity": perplexity}) for one in RUNS[0].texts]}
    )
    found = results([run])
    write_all(tmp_path, found)
    assert Results.model_validate_json((tmp_path / "results.json").read_text(encoding="utf-8")) == found


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*results\.json: No such file or directory"):
        write_all(tmp_path / "gone", results(RUNS))


def test_the_screen_has_the_tables_the_sentences_and_what_is_missing():
    found = results(RUNS, missing=["cma at 30%"])
    shown = screen(found)
    for sentence in sentences(found):
        assert sentence in shown
    assert "[bold]owl" in shown  # names are text, not markup
    assert "Mean cost of a run" in shown and "warning: missing: cma at 30%" in shown
    assert max(map(len, (line for line in shown.splitlines() if line.startswith("│")))) <= 110


def test_of_no_runs_the_screen_says_so():
    assert "No run is finished yet." in screen(results([]))


@pytest.mark.parametrize("name", ["bundled", "c4"])
def test_results_of_an_older_format_make_the_very_table_that_was_made_of_them(tmp_path, name):
    kept = Path(__file__).parents[3] / "benchmarks" / "results" / name
    text = (kept / "results.json").read_text(encoding="utf-8")
    assert '"format": 1' in text and '"maker"' in text
    found = Results.model_validate_json(text)
    write_all(tmp_path, found)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == (kept / "table.md").read_text(encoding="utf-8")
    again = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert '"format": 2' in again and '"maker"' not in again and Results.model_validate_json(again) == found
