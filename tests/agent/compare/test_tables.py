"""The table on screen, in Markdown and in CSV holds what was computed by hand."""

import csv
import io
import math

import pytest

from self_pruner.agent.compare.figures import MEASURES, ComparedArms, differences
from self_pruner.agent.compare.tables import (
    BRIEF,
    Table,
    as_csv,
    cost,
    count,
    generalisation,
    markdown,
    number,
    operator_yields,
    paired_differences,
    percent,
    percent_change,
    plus_minus,
    quality,
    table_rows,
)
from self_pruner.tools.profiles.statistics import IntervalEstimate
from tests.agent.compare.invented import TEXTS, proposer, results, run_result

RUNS = [
    run_result("evolution", [30.0, 40.0, 50.0], seed=0, cost=1000.0),
    run_result("evolution", [32.0, 44.0, 55.0], seed=1, cost=3000.0, repaired=2),
    run_result("hybrid", 28.0, seed=0, recalibrated=27.0),
    run_result("owl", 45.0, evaluations=1),
]


def rows_of(runs=RUNS, **values):
    return table_rows(ComparedArms(results(runs, **values)))


def named(rows, arm, where="30%"):
    return next(row for row in rows if (row.arm, row.where) == (arm, where))


def test_rows_are_the_dense_model_then_the_arms_from_the_best():
    rows = rows_of()
    assert [row.arm for row in rows] == ["dense", "hybrid", "evolution", "owl"]
    assert [row.seeds for row in rows] == [0, 1, 2, 1]


def test_a_row_has_means_and_half_widths_over_seeds():
    row = named(rows_of(), "evolution")
    assert row.perplexity["c4"].value == pytest.approx(42.0)
    assert row.perplexity["c4"].half_width == pytest.approx(12.7062 * math.sqrt(8 / 2), abs=1e-3)
    assert row.kl["c4"].value == pytest.approx(math.log(2.0) / 2 + math.log(2.2) / 2)
    assert row.geometric.value == pytest.approx((30 * 40 * 50 * 32 * 44 * 55) ** (1 / 6))
    assert row.costs["tokens"] == 2000.0 and row.costs["repaired"] == 1.5
    assert row.recalibrated is None
    assert named(rows_of(), "hybrid").recalibrated.value == pytest.approx(27.0)


def test_several_sparsities_end_with_their_means_for_arms_that_have_all():
    runs = [*RUNS, run_result("evolution", 90.0, sparsity=0.5), run_result("owl", 80.0, sparsity=0.5)]
    rows = rows_of(runs)
    assert [(row.arm, row.where) for row in rows[1:]] == [
        ("owl", "30%"),
        ("evolution", "30%"),
        ("hybrid", "30%"),
        ("owl", "50%"),
        ("evolution", "50%"),
        ("owl", "all"),
        ("evolution", "all"),
    ]
    assert named(rows, "owl", "all").geometric.value == pytest.approx(60.0)
    assert named(rows, "owl", "all").perplexity["c4"].value == pytest.approx(60.0)
    assert named(rows, "owl", "all").mean_kl == pytest.approx(math.log(60 / 20))


def test_the_dense_model_is_a_row_without_kl_or_cost():
    dense = rows_of()[0]
    assert (dense.where, dense.mean_kl, dense.costs) == ("0%", 0.0, {})
    assert dense.geometric.value == pytest.approx(20.0)


def test_a_comparison_without_runs_has_the_dense_model_alone():
    assert [row.arm for row in rows_of([])] == ["dense"]


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(47.756, 2, "47.76"), (None, 2, "-"), (math.inf, 2, "infinite"), (123456.7, 2, "123,457"), (0.0, 4, "0.0000")],
)
def test_figures_in_words(value, digits, expected):
    assert number(value, digits) == expected


def test_means_with_and_without_an_interval():
    assert plus_minus(IntervalEstimate(47.756, 47.0, 48.5, 3), 2) == "47.76 ± 0.75"
    assert plus_minus(IntervalEstimate(47.756, None, None, 1), 2) == "47.76"
    assert plus_minus(None, 2) == "-"


def test_counts_shares_and_changes_in_words():
    assert [count(value) for value in (3.0, 2.5, 12345.6, 0)] == ["3", "2.5", "12,346", "0"]
    assert [percent(share) for share in (0.3, 0.125, 0.2000001)] == ["30%", "12.5%", "20%"]
    assert [percent_change(math.log(ratio)) for ratio in (0.937, 1.5)] == ["-6.3%", "+50.0%"]


def parsed(text):
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")] for line in lines]


def test_markdown_has_a_cell_for_every_column():
    header, *lines = parsed(markdown(quality(rows_of(), TEXTS)))
    assert header[:4] == ["arm", "sparsity", "seeds", "KL, wikitext2"]
    assert all(len(line) == len(header) for line in lines)
    line = next(line for line in lines if line[0] == "hybrid")
    assert line[header.index("perplexity, c4")] == "28.00"
    assert line[header.index("recalibrated")] == "27.00"


def test_names_cannot_break_a_markdown_table():
    text = markdown(Table(["arm", "x"], [["a|b\nc", "<b>"]]))
    assert text.splitlines()[2] == "| a\\|b c | &lt;b> |"


def test_the_cost_table_has_every_run_mean():
    header, cells = cost(rows_of())
    line = next(line for line in cells if line[0] == "evolution")
    assert line[header.index("tokens")] == "2,000"
    assert line[header.index("repaired")] == "1.5"
    assert {line[0] for line in cells} == {"evolution", "hybrid", "owl"}


def test_the_brief_tables_fit_a_plain_screen():
    for header, cells in (quality(rows_of(), TEXTS, brief=True), cost(rows_of(), BRIEF)):
        widths = [max(len(line[column]) for line in [header, *cells]) for column in range(len(header))]
        assert sum(widths) + 3 * len(widths) + 1 <= 110


def test_csv_holds_unrounded_figures():
    lines = list(csv.DictReader(io.StringIO(as_csv(rows_of(), TEXTS))))
    line = next(line for line in lines if line["arm"] == "evolution")
    assert float(line["perplexity c4"]) == pytest.approx(42.0, abs=1e-12)
    assert float(line["perplexity c4 half-width"]) == pytest.approx(25.4124, abs=1e-3)
    assert (line["sparsity"], line["seeds"], line["recalibrated perplexity geometric mean"]) == ("0.3", "2", "")
    assert float(line["repaired units"]) == 2.0
    assert lines[0]["arm"] == "dense" and lines[0]["tokens"] == "" and lines[0]["sparsity"] == ""


def test_odd_arm_names_stay_one_cell_of_csv():
    arm = 'hybrid:my "odd", prompts'
    lines = list(csv.DictReader(io.StringIO(as_csv(rows_of([run_result(arm, 30.0)]), TEXTS))))
    assert lines[1]["arm"] == arm


def test_yields_add_up_over_runs_and_generations_in_the_order_of_proposers():
    first = [
        *(proposer("switch", 10, 4), proposer("brain", 6, 1, generation=1), proposer("brain", 4, 2, generation=2)),
        *(proposer(name, 1, 0) for name in ("memory", "chance")),
    ]
    second = [proposer("brain", 5, 1), proposer("brain", 0, 0, "initialise", made=7, survived=3)]
    runs = [run_result("hybrid", 30.0, seed=seed, yields=yields) for seed, yields in enumerate((first, second))]
    assert operator_yields(ComparedArms(results(runs))).rows == [
        ["hybrid", "brain", "initialise", "7", "0", "0", "3", "-"],
        ["hybrid", "brain", "mutation", "15", "15", "4", "1", "27% (11% to 52%)"],
        ["hybrid", "chance", "mutation", "1", "1", "0", "0", "0% (0% to 79%)"],
        ["hybrid", "switch", "mutation", "10", "10", "4", "2", "40% (17% to 69%)"],
        ["hybrid", "memory", "mutation", "1", "1", "0", "0", "0% (0% to 79%)"],
    ]


def test_generalisation_has_the_fitness_and_the_holdout_of_every_arm():
    runs = [run_result("evolution", 30.0, seed=seed, fitness=0.4, holdout=0.5) for seed in range(2)]
    found = generalisation(ComparedArms(results([*runs, run_result("owl", 40.0, fitness=None)])))
    assert found.rows == [["evolution", "30%", "0.4000 ± 0.0000", "0.5000 ± 0.0000"]]


def test_what_was_not_measured_in_every_pair_has_no_difference_and_the_table_says_so():
    first, *others = [
        run_result("hybrid", 30.0, seed=seed, recalibrated=29.0 if seed < 3 else None) for seed in range(7)
    ]
    theirs = [run_result("evolution", 31.0 + seed, seed=seed, recalibrated=30.0) for seed in range(7)]

    def row(*runs):
        return paired_differences(ComparedArms(results([*runs, *theirs])), "hybrid").rows[0]

    assert row(first, *others)[-2:] == ["4 of 7 pairs of runs were not measured", "-"]
    assert row(first, *others)[1] == "7" and "%" in row(first, *others)[2]
    failed = row(first.model_copy(update={"texts": []}), *others)
    assert failed[:6] == ["evolution", "7", *["1 of 7 pairs of runs was not measured", "-"] * 2]
    none = paired_differences(ComparedArms(results([others[-1], theirs[-1]])), "hybrid").rows[0]
    assert none[-2:] == ["-", "-"]


def test_too_few_pairs_have_the_least_possible_p_beside_theirs():
    def rows(seeds):
        runs = [run_result(arm, 30.0 + seed, seed=seed) for arm in ("hybrid", "evolution") for seed in range(seeds)]
        return paired_differences(ComparedArms(results(runs)), "hybrid").rows

    assert rows(3)[0][:4] == ["evolution", "3", "+0.0% (+0.0% to +0.0%) (t)", "1 (least 0.25)"]
    assert "least" not in str(rows(6))


def test_differences_are_made_once_a_measure_whether_there_is_a_test_of_them_or_not(monkeypatch):
    made = []

    def counted(compared, arm, baseline, measure):
        made.append(measure.name)
        return differences(compared, arm, baseline, measure)

    monkeypatch.setattr("self_pruner.agent.compare.tables.differences", counted)
    monkeypatch.setattr("self_pruner.agent.compare.figures.differences", counted)
    runs = [run_result(arm, 30.0 + seed, seed=seed) for arm in ("hybrid", "evolution") for seed in range(2)]
    (row,) = paired_differences(ComparedArms(results(runs)), "hybrid").rows
    assert "%" in row[2] and row[-2:] == ["-", "-"]
    assert made == [measure.name for measure in MEASURES]
