"""What is written as TOML is what the standard library reads back."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from self_pruner.agent.run_files.tables import settings_file
from self_pruner.memory.errors import SettingsError

TEXT = st.text(st.characters(codec="utf-8"))
SCALAR = st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
TABLE = st.dictionaries(TEXT, SCALAR | st.lists(SCALAR | st.lists(SCALAR)))


@settings(deadline=None, derandomize=True)
@given(TABLE)
def test_a_table_is_read_back_as_it_was(table):
    back = tomllib.loads(settings_file(table))
    assert back == table
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in table.items()}


def test_none_is_left_out_and_a_tuple_is_a_list():
    assert settings_file({"model": "tiny", "params": None, "fidelity": (1024, 4096), "dry": True}) == (
        'model = "tiny"\nfidelity = [\n    1024,\n    4096,\n]\ndry = true\n'
    )


@pytest.mark.parametrize("value", [object(), [None], b"bytes"])
def test_a_value_that_toml_does_not_know_is_refused(value):
    with pytest.raises(TypeError, match="not TOML serializable"):
        settings_file({"wrong": value})


def test_a_file_name_that_is_not_unicode_is_refused_in_a_sentence():
    with pytest.raises(SettingsError, match="calibration.*is not valid Unicode"):
        settings_file({"calibration": "caf\udce9.txt"})
