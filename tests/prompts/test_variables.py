import re
from dataclasses import fields
from pathlib import Path

from self_pruner.prompts import variables as v

README = Path(v.__file__).parent / "README.md"
ROWS = {
    "sensitivity": v.SensitivityRow,
    "candidate": v.CandidateRow,
    "move": v.Move,
    "proposer": v.ProposerYield,
    "place": v.Hint,
    "stretch": v.StretchRow,
    "lesson": v.LessonRow,
    "step": v.StepRow,
}
FACTS = {
    "model": v.ModelVariables,
    "budget": v.BudgetVariables,
    "dense": v.DenseVariables,
    "uniform": v.UniformVariables,
    "spent": v.Spent,
    "hints": v.Hints,
    "ask": v.Ask,
}


def documented() -> list[str]:
    text = README.read_text(encoding="utf-8").split("## Variables")[1].split("## Filters")[0]
    return re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)


def test_the_table_lists_exactly_the_variables_once_each():
    nested = {f"{name}.{field.name}" for name, record in (FACTS | ROWS).items() for field in fields(record)}
    expected = (v.TURN_NAMES - FACTS.keys()) | nested
    assert sorted(documented()) == sorted(expected)


def test_every_record_of_the_module_is_in_the_table():
    records = {value for value in vars(v).values() if isinstance(value, type) and value.__module__ == v.__name__}
    assert records == {*ROWS.values(), *FACTS.values(), v.RunVariables, v.History, v.Variables}


def test_variables_of_a_run_are_those_above_the_line():
    text = README.read_text(encoding="utf-8")
    above = text.split("| **of a run**")[1].split("| **of a turn**")[0]
    named = {name.split(".")[0] for name in re.findall(r"^\| `([\w.]+)` \|", above, re.MULTILINE)} - ROWS.keys()
    assert named == v.SYSTEM_NAMES


def test_a_turn_sees_the_run_and_the_history_flat():
    from self_pruner.prompts.sample import sample_variables

    variables = sample_variables("vary", ("mutation-edits",))
    assert variables.for_system().keys() == v.SYSTEM_NAMES
    assert variables.for_turn().keys() == v.TURN_NAMES
    assert variables.for_turn()["best"] is variables.history.best
    assert variables.for_turn()["model"] is variables.run.model
