"""The tables of a result, as screen and page show them."""

from self_pruner.agent.report.result_tables import account, final_table
from self_pruner.agent.result.outcome import SPENT, Outcome, Row, Yield


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
        spent=dict.fromkeys(SPENT, 1.0) | {"evaluations": 3.0, "tokens": 70000.0},
        yields=[
            Yield(proposed_by="brain", made=1, compared=0, improved=0),
            Yield(proposed_by="switch", made=3, compared=1, improved=0),
        ],
        warnings=[],
    )


def test_the_final_table_has_a_row_a_model_and_a_dash_where_nothing_was_measured():
    header, cells = final_table(outcome())
    assert [row[0] for row in cells] == ["dense", "uniform", "found"] and len(header) == len(cells[0]) == 8
    assert cells[0] == ("dense", "134,515,008", "0.0000", "26.10", "307.9", "-", "-", "1.00")
    assert cells[1][3] == "1,084.61" and cells[1][4] == "-"


def test_the_account_says_what_was_evaluated_and_who_proposed():
    said = " ".join(account(outcome()))
    assert "3 candidates evaluated on 70,000 tokens in 1 generation, 1.0 minutes" in said and "Brain: 1 turn, " in said
    assert "Proposed by: brain 1 (25%), switch 3 (75%)" in said
