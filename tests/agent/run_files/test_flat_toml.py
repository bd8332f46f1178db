"""What is written as TOML is what the standard library reads back."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.agent.run_files.flat_toml import NotUnicodeError, dumps

TEXT = st.text(st.characters(codec="utf-8"))
SCALAR = st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
TABLE = st.dictionaries(TEXT, SCALAR | st.lists(SCALAR | st.lists(SCALAR)))


@settings(deadline=None, derandomize=True)
@given(TABLE)
def test_a_table_is_read_back_as_it_was(table):
    back = tomllib.loads(dumps(table))
    assert back == table
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in table.items()}


def test_none_is_left_out_and_a_tuple_is_a_list():
    assert dumps({"model": "tiny", "params": None, "fidelity": (1024, 4096), "dry": True}) == (
        'model = "tiny"\nfidelity = [1024, 4096]\ndry = true\n'
    )


@pytest.mark.parametrize("value", [{"a": 1}, object(), [None], b"bytes"])
def test_a_value_that_settings_never_have_is_refused_by_name(value):
    with pytest.raises(TypeError, match="'wrong'"):
        dumps({"wrong": value})


def test_a_file_name_that_is_not_unicode_is_refused_in_a_sentence():
    with pytest.raises(NotUnicodeError, match="is not valid Unicode"):
        dumps({"calibration": "caf\udce9.txt"})
