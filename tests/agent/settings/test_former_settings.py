"""Settings of older files: what is gone changes nothing, or is refused in a sentence."""

import pytest

from self_pruner.agent.settings.former import FORMER, RENAMED, WITHOUT_EFFECT
from self_pruner.agent.settings.settings import Settings, make_settings
from self_pruner.memory.errors import SettingsError


def test_settings_that_are_gone_are_dropped_where_a_search_is_the_same_without_them():
    assert make_settings({**FORMER, "seed": 3}) == Settings(seed=3)
    assert not {*FORMER, *WITHOUT_EFFECT} & Settings.model_fields.keys()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_settings_that_never_changed_a_search_are_dropped_whatever_they_say(value):
    assert make_settings({"racing": value, "seed": 3}) == Settings(seed=3)


@pytest.mark.parametrize(("name", "value"), [("draws", 2), ("step_rule", "rounds")])
def test_settings_that_are_gone_and_would_make_another_search_are_refused_in_a_sentence(name, value):
    with pytest.raises(SettingsError) as refused:
        make_settings({name: value})
    assert f"setting '{name}' is of an older format" in str(refused.value) and repr(value) in str(refused.value)


def test_settings_that_have_another_name_now_are_known_by_that_of_then():
    assert make_settings({"slopes": 2, "slope_tokens": 1024}) == Settings(sensitivities=2, sensitivity_tokens=1024)
    assert {*RENAMED.values()} <= Settings.model_fields.keys() and not RENAMED.keys() & Settings.model_fields.keys()
