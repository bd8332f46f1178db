"""Every mutant is the module with one fault, and what is no behaviour is left alone."""

import ast

import pytest

from benchmarks.mutation.__main__ import ROOT, TESTS
from benchmarks.mutation.mutants import mutants

MODULE = '''
"""A text about the module."""

from typing import Literal

Kind = Literal["a", "b"]


def middle(low: int, high: int, kind: Kind = "a") -> int:
    """The middle."""
    if low > high or not kind:
        raise ValueError(f"{low} is above {high}")
    return (low + high) // 2
'''


def bodies(source: str) -> list[str]:
    """What the mutants of a function of one statement say in its place."""
    return [mutant.source.split("\n")[1].strip() for mutant in mutants(f"def f(a, b):\n    {source}\n")]


@pytest.mark.parametrize(
    ("statement", "faults"),
    [
        ("return a < b", {"return None", "return a <= b", "return a >= b"}),
        ("return 0 < a < 1", {"return None", "return 0 <= a < 1", "return 0 >= a < 1", "return 0 < a <= 1"}),
        ("return a and b", {"return None", "return a or b", "return a", "return b"}),
        ("return a // 2", {"return None", "return a * 2", "return a // 3"}),
        ("a.close()", {"pass"}),
        ("a += 1", {"pass", "a += 2"}),
        ("a = True", {"a = None", "a = False"}),
        ("return 'x' if a else b", {"return None", "return b if a else 'x'", "return '' if a else b"}),
        ("return -a", {"return None", "return a"}),
        ("return None", set()),
    ],
)
def test_a_statement_has_the_faults_that_a_careless_change_would_make(statement, faults):
    assert set(bodies(statement)) >= faults
    assert statement not in bodies(statement)


def test_every_mutant_is_a_module_with_one_fault_in_what_it_does():
    found = mutants(MODULE)
    sources = [mutant.source for mutant in found]
    assert len(set(sources)) == len(sources) > 10
    for mutant in found:
        compile(mutant.source, "mutant", "exec")
        assert ast.dump(ast.parse(mutant.source)) != ast.dump(ast.parse(MODULE))
        for kept in ("A text about the module.", "The middle.", "Literal['a', 'b']", "low: int, high: int"):
            assert kept in mutant.source
        assert "raise" not in mutant.source or "{low} is above {high}" in mutant.source


def test_the_line_of_a_mutant_is_the_line_of_its_fault():
    assert {mutant.line for mutant in mutants(MODULE) if "//" in mutant.change} == {13}


@pytest.mark.parametrize("module", TESTS)
def test_every_module_of_the_score_and_its_tests_are_there(module):
    assert (ROOT / module).is_file()
    paths = [word for word in TESTS[module] if word.startswith("tests/")]
    assert paths and all((ROOT / path).exists() for path in paths)
