"""The page: one well-formed file that needs nothing else, whatever was finished."""

import math
import re
from html.parser import HTMLParser

import pytest

from self_pruner.agent.arms import ARM_NAMES
from self_pruner.agent.compare.page import render
from self_pruner.agent.compare.sentence import sentences
from tests.agent.compare.invented import curve, maker, results, run_result

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
    yields = [maker("brain", 12, 5), maker("chance", 10, 2), maker("switch", 9, 4), maker("fallback", 0, 0, made=1)]
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
def test_the_page_is_well_formed_and_needs_nothing_else(shape):
    text = render(results(SHAPES[shape]))
    found = Page(text)
    assert not found.named("script") and not found.named("link") and not found.named("img")
    assert not re.search(r"https?://|url\(|@import|\bon\w+=", text)
    assert all(attrs["href"].startswith("#") for attrs in found.named("use") + found.named("a"))
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert "None" not in " ".join(found.texts)
    assert not re.search(r"\b(nan|inf)\b", text)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_chart_has_a_title_and_a_description_and_others_are_hidden(shape):
    found = page(SHAPES[shape])
    ids = {attrs["id"] for _, attrs in found.tags if "id" in attrs}
    for attrs in found.named("svg"):
        if attrs.get("role") == "img":
            assert len(attrs["aria-labelledby"].split()) == 2 and set(attrs["aria-labelledby"].split()) <= ids
        else:
            assert attrs["aria-hidden"] == "true"


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
        "Perplexity of every arm",
        "Paired differences",
        "Over seeds",
        "Over text",
        "Every pair of arms",
        "Who made what improved",
        "Generalisation",
        "Cost",
        "The same quality at what share of the tokens",
        "Profiles",
        "Arms",
        "Missing runs",
        "Reproduce",
    ):
        assert heading in text, heading
    for fact in ("cma at 30%, seed 2", "python main.py compare", "torch 2.13.0; 2 cores.", "evaluations = 20"):
        assert fact in text
    charts = [attrs for attrs in found.named("svg") if attrs.get("role") == "img"]
    assert len(charts) == 3 + 3 + 1 + 3 + 15  # curves, perplexities, forest, makers, profiles


def test_sections_without_content_are_left_out():
    text = " ".join(page([run_result("owl", 30.0, fitness=None)]).texts)
    for heading in ("Best so far", "Paired differences", "Who made what", "Generalisation", "Missing runs"):
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


def test_the_matrix_marks_what_the_test_tells_apart():
    found = page(FULL).texts
    assert any(re.fullmatch(r"-\d+\.\d%\*", text) for text in found)
    few = page([run for run in FULL if run.seed == 0]).texts
    assert not any(re.fullmatch(r"-\d+\.\d%\*", text) for text in few)
    assert any("least 0.25" in text for text in few)
