"""Pruned shapes beside dense ones, on tiny models: what is printed and refused, and how a giant is told from a part."""

from __future__ import annotations

import pytest

from benchmarks import shapes
from benchmarks.shapes import PAPER, depth_of, main
from self_pruner.tools.latency.shapes import some_of
from self_pruner.tools.models.aliases import PUBLISHED
from self_pruner.tools.profiles.budget import parse_params

SMALL = ["--latency-prompt", "8", "--latency-decode", "2", "--latency-repeats", "1", "--dtype", "float32"]


def test_shapes_are_timed_in_full_and_in_part(model, capfd):
    assert main(["--model", str(model), "--params", "0.36M", *SMALL]) == 0
    assert "3 of 3 layers" in capfd.readouterr().out
    assert main(["--model", str(model), "--params", "0.36M,0.37M", "--layers", "2", *SMALL]) == 0
    printed = capfd.readouterr().out
    assert "2 of 3 layers" in printed and "the rest is extrapolated" in printed
    assert printed.count("uniform") >= 2 and "of what its parameters promise" in " ".join(printed.split())


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--params", "49X"], "'49X' is no parameter count"),
        (["--params", "49B"], "cannot be reached: this model can keep"),
        (["--params", "0.36M", "--layers", "9"], "--layers takes 2 to 3 of this model, got 9"),
        (["--params", "0.36M", "--latency-prompt", "100000"], "must fit the model's context"),
    ],
)
def test_mistakes_are_one_sentence(model, capfd, words, sentence):
    assert main(["--model", str(model), *SMALL, *words]) == 2
    errors = capfd.readouterr().err
    assert sentence in errors and errors.count("\n") == 1


def test_what_does_not_fit_is_said_before_it_is_made(model, capfd, monkeypatch):
    monkeypatch.setattr(shapes, "MEMORY", 0.0)
    assert main(["--model", str(model), "--params", "0.36M", *SMALL]) == 2
    assert "too much here" in capfd.readouterr().err


def test_the_papers_figures_are_of_shapes_that_are_known():
    assert all(name in PUBLISHED and parse_params(count) for name, count in PAPER)


def test_a_giant_is_told_from_two_depths():
    # 80 layers of 10 ms beside 40 ms of the rest, of which 4 and 2 layers are timed
    depth = depth_of(80, 4, 80.0, 60.0)
    assert (depth.fixed, depth.layer, depth.whole) == pytest.approx((40.0, 10.0, 840.0))
    assert depth.share_of_layers == pytest.approx(800 / 840)
    # layers that take half: 4 of them and the rest take 60, the ratio is 80 / 60
    assert depth.speedup(80 / 60) == pytest.approx(840 / 440)
    assert depth.speedup(1.0) == pytest.approx(1.0)


def test_some_layers_stand_for_all():
    sizes = [(2, 10 * layer) for layer in range(1, 9)]
    weight = sum
    assert some_of(sizes, 8, weight) == sizes
    assert some_of(sizes[::-1], 2, weight) == [(2, 30), (2, 70)]
    assert some_of([(90, 1), (1, 20), (1, 10), (1, 30)], 4, weight)[-1] == (90, 1)  # by what a layer weighs in all
