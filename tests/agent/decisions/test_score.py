"""Controls bound what a brain can score: chance gains nothing, an oracle all there is, the first is a position."""

import json
import math
from dataclasses import dataclass, replace
from statistics import fmean

import pytest

from self_pruner.agent.brain.calls import reply
from self_pruner.agent.brain.scripted import FREE, FirstBrain, ScriptedBrain, UniformBrain
from self_pruner.agent.compare.tables import ABSENT
from self_pruner.agent.decisions.choosers import Chooser, Said, SampledChooser
from self_pruner.agent.decisions.kinds import DEFAULT, KINDS
from self_pruner.agent.decisions.kinds.kind import orders_of
from self_pruner.agent.decisions.score import Row, always, decide, paired_gains, worth
from self_pruner.agent.decisions.statistics import apart, bootstrap_mean, more_needed
from self_pruner.agent.decisions.table import against_another, against_chance, against_chance_where_kept, gains, manners
from self_pruner.prompts.templates import PromptSet
from self_pruner.tools.profiles.shifts import EXPECTATIONS, what_came
from tests.scripted_brains import ScriptBrain

PROMPTS = PromptSet("default")


class Oracle(ScriptedBrain):
    """Knows the outcome of every option."""

    known: dict[str, tuple[float, bool]]  # the outcome, and whether something else is expected of it

    def answer(self, calls, seed, index):
        options = [value_of(schema) for schema in calls[0].parameters["anyOf"]]
        best = min(options, key=lambda option: self.known[json.dumps(option)])
        return reply("", calls[0].name, best, seed=seed, index=index, cost=FREE)

    @property
    def _llm_type(self):
        return "oracle"


def value_of(schema):
    """The only value of a schema of constants."""
    if "const" in schema:
        return schema["const"]
    if schema["type"] == "array":
        return [value_of(item) for item in schema["prefixItems"]]
    return {name: value_of(field) for name, field in schema["properties"].items()}


def row(brain, decision_set, kind, draws=64):
    chooser = SampledChooser(brain._llm_type, brain, draws)
    decided = [decide(one, chooser, PROMPTS) for one in decision_set.of(kind)]
    return Row(chooser.name, "default", chooser.how, kind, tuple(decided))


@pytest.mark.parametrize("kind", DEFAULT)
def test_chance_gains_nothing_within_its_interval(decision_set, kind):
    several = [replace(one, id=f"{one.id}.{number}") for one in decision_set.situations for number in range(5)]
    found = row(UniformBrain(), replace(decision_set, situations=tuple(several)), kind)
    assert len(found.decided) == 40
    gain = found.mean(lambda one: one.gain)
    assert gain.low <= 0 <= gain.high
    assert not apart(gain) and "is not told from chance" in against_chance(found)
    assert abs(found.first_quarter.value) < 0.05
    most = fmean(one.most_entropy for one in found.decided)
    assert 0.9 * most < found.mean(lambda one: one.entropy).value <= most


@pytest.mark.parametrize("kind", DEFAULT)
def test_an_oracle_has_no_regret_and_gains_all_there_is(decision_set, kind):
    for situation in decision_set.of(kind):
        known = {}
        for option in situation.options:
            calls = KINDS[kind].stated(option.call)
            for word, call in zip(EXPECTATIONS[: len(calls)], calls, strict=True):
                wrong = len(calls) > 1 and word != what_came(option.outcome, option.error)
                known[json.dumps(call["arguments"])] = (option.outcome, wrong)
        found = decide(situation, SampledChooser("oracle", Oracle(known=known), 2), PROMPTS)
        assert found.regret == pytest.approx(0, abs=1e-12)
        assert found.gain == pytest.approx(found.room) and found.gain > 0
        assert found.over_tool >= 0 and found.entropy == 0
        assert (found.predicted is not None) == (kind == "shift")
        if found.predicted is not None:
            assert found.predicted.brier == pytest.approx(0)
            assert found.predicted.said == pytest.approx(found.predicted.came)
        assert found.first_quarter == pytest.approx(0, abs=0.01)
        best = always(situation, situation.outcomes.index(min(situation.outcomes)))
        assert (best.gain, best.regret) == (pytest.approx(found.gain), 0)


@pytest.mark.parametrize("kind", DEFAULT)
def test_always_the_first_is_a_position_bias_and_its_gain_is_that_of_a_few_positions(decision_set, kind):
    found = row(FirstBrain(), decision_set, kind, draws=1)
    for one, situation in zip(found.decided, decision_set.of(kind), strict=True):
        count = len(situation.options)
        assert one.first_quarter == pytest.approx(1 - (count // 4) / count)
        firsts = [situation.outcomes[order[0]] for order in orders_of(count)]
        assert one.gain == pytest.approx(fmean(situation.outcomes) - fmean(firsts))


@dataclass
class Steady(Chooser):
    """Says of the first option that it is read first, and of the others nothing: it reads what a model would."""

    name: str = "steady"
    how: str = "exact"

    def choose(self, prompts, variables, tool, calls, name):
        shown = prompts.render(variables).text
        return Said([1.0, *[0.0] * (len(calls) - 1)], 1, 1, 0.0, shown=shown)


def test_nothing_is_known_of_a_position_where_the_prompt_is_the_same_in_every_order(decision_set):
    def of(kind, prompts):
        decided = tuple(decide(one, Steady(), PromptSet(prompts)) for one in decision_set.of(kind))
        found = Row("steady", prompts, "exact", kind, decided)
        (cells,) = manners([found]).rows
        return found, cells[4]

    for kind, same, varied in (("shift", "terse", "default"), ("edit", "paper", "default")):
        found, cell = of(kind, same)
        assert found.first_quarter is None and {one.first_quarter for one in found.decided} == {None} and cell == ABSENT
        found, cell = of(kind, varied)
        assert found.first_quarter.value == pytest.approx(0.75, abs=0.02) and cell.startswith("+0.7")
    mixed = replace(found, decided=(replace(found.decided[0], first_quarter=None), *found.decided[1:]))
    assert mixed.first_quarter.n == len(found.decided) - 1


@pytest.mark.parametrize("count", [4, 8, 12, 16])
def test_every_option_is_once_in_every_quarter(count):
    orders = orders_of(count)
    assert len(orders) == 4
    for option in range(count):
        assert sorted(order.index(option) // (count // 4) for order in orders) == [0, 1, 2, 3]


def test_over_the_orders_places_and_candidates_are_read_first_by_turns(decision_set):
    for situation in decision_set.situations:
        kind, calls = KINDS[situation.kind], [option.call for option in situation.options]
        orders = [[calls[index] for index in order] for order in orders_of(len(calls))]
        shown = [kind.shown(situation.variables, order) for order in orders]
        if situation.kind == "edit":
            for lists in ([one.hints.cut for one in shown], [one.hints.grow for one in shown]):
                assert len({each[0] for each in lists}) >= (4 if len(lists[0]) == 8 else 3)
        else:
            for brackets in zip(*(one.ask.brackets for one in shown), strict=True):
                firsts = [bracket[0] for bracket in brackets]
                assert max(map(firsts.count, firsts)) <= (3 if len(set(brackets[0])) > 1 else 4)


def test_few_options_are_asked_in_as_many_orders():
    assert orders_of(3) == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]


def test_the_prompt_shows_places_and_candidates_in_the_order_of_the_options(decision_set):
    situation = decision_set.of("edit")[0]
    order = orders_of(len(situation.options))[2]
    calls = [situation.options[index].call for index in order]
    shown = KINDS["edit"].shown(situation.variables, calls)
    first = calls[0]["arguments"]["edits"]
    assert (shown.hints.cut[0].layer, shown.hints.cut[0].part) == (first[0]["layer"], first[0]["part"])
    assert (shown.hints.grow[0].layer, shown.hints.grow[0].part) == (first[1]["layer"], first[1]["part"])
    assert set(shown.hints.cut) == set(situation.variables.hints.cut)
    situation = decision_set.of("survive")[0]
    calls = [option.call for option in situation.options[::-1]]
    shown = KINDS["survive"].shown(situation.variables, calls)
    assert [bracket[0] for bracket in shown.ask.brackets] == calls[0]["arguments"]["survivors"]
    assert [{*bracket} for bracket in shown.ask.brackets] == [{*each} for each in situation.variables.ask.brackets]


def test_replies_that_are_no_option_are_counted(decision_set):
    situation = decision_set.of("edit")[0]
    good = situation.options[0].call
    said = [{"name": good["name"], "args": good["arguments"]}, "no call"] * 4
    found = decide(situation, SampledChooser("script", ScriptBrain(replies=said), 2), PROMPTS)
    assert found.illegal == 4
    assert found.gain == pytest.approx(fmean(situation.outcomes) - situation.outcomes[0])


def test_the_interval_is_that_of_the_mean_and_few_values_tell_nothing():
    constant = bootstrap_mean([2.0] * 10)
    assert (constant.value, constant.low, constant.high) == (2.0, 2.0, 2.0) and apart(constant)
    assert not apart(bootstrap_mean([2.0] * 5))
    assert bootstrap_mean([1.0]).low is None
    spread = bootstrap_mean([float(value) for value in range(100)])
    # the standard error of this mean is 2.9
    assert spread.low == pytest.approx(49.5 - 1.96 * 2.89, abs=0.4)
    assert spread.high == pytest.approx(49.5 + 1.96 * 2.89, abs=0.4)


def test_what_rounding_leaves_of_a_gain_is_none(decision_set):
    one = always(decision_set.of("shift")[0], 0)
    rows = [
        Row("even", "terse", "exact", "shift", (replace(one, gain=gain, improvement=gain),) * 8)
        for gain in (1e-17, -1e-17, 2e-12)
    ]
    assert [apart(bootstrap_mean([each.gain for each in row.decided])) for row in rows] == [False, False, True]
    for noise in rows[:2]:
        assert "is not told from chance" in against_chance(noise)
        assert "is not told from chance" in against_chance_where_kept(noise, noise.improvement)
        assert "are not told apart" in against_another(noise, replace(rows[0], decided=(replace(one, gain=0.0),) * 8))


def test_where_only_what_is_better_is_kept_a_bold_brain_may_find_more_than_a_safe_one_of_a_better_gain(decision_set):
    one = decision_set.of("shift")[0]
    others = len(one.options) - 3
    came = (-0.04, 0.06, 0.0, *[0.01] * others)
    options = tuple(replace(option, outcome=each) for option, each in zip(one.options, came, strict=True))
    measured = replace(one, options=options, tool=2)
    bold, safe = worth(measured, [0.5, 0.5, 0.0, *[0.0] * others]), always(measured, 2)
    assert safe.gain > bold.gain
    chance = 0.04 / (others + 3)
    assert bold.improvement == pytest.approx(0.02 - chance) and safe.improvement == pytest.approx(-chance)
    rows = [Row(name, "terse", "exact", "shift", (each,) * 8) for name, each in (("bold", bold), ("safe", safe))]
    said = [against_chance_where_kept(row, row.improvement) for row in rows]
    assert "finds more than chance" in said[0] and "finds less than chance" in said[1]
    assert gains(rows).header[-1] == "improvement" and gains(rows).rows[0][-1].startswith(f"{20 - 1000 * chance:.2f}")
    of_before = replace(rows[0], decided=(*rows[0].decided[1:], replace(bold, improvement=None)))
    assert of_before.improvement is None and gains([of_before]).rows[0][-1] == ABSENT
    assert all(each.improvement is None for each in row(UniformBrain(), decision_set, "survive", 1).decided)


def test_how_many_more_situations_would_tell():
    values = [1.0, -1.0, 1.5, -0.5, 0.5, 0.0]  # mean 0.25, standard deviation 0.935
    assert more_needed(values) == math.ceil((2.8016 * 0.93541 / 0.25) ** 2) - 6
    assert more_needed([1.0, 1.0]) is None and more_needed([1.0, -1.0]) is None
    assert more_needed([1.0, 1.1, 0.9, 1.0]) == 0


def test_of_fewer_than_six_situations_it_is_said_that_they_tell_nothing(decision_set):
    one = always(decision_set.of("shift")[0], 0)

    def said(*gains):
        return against_chance(Row("b", "terse", "exact", "shift", tuple(replace(one, gain=gain) for gain in gains)))

    few = "; fewer than 6 situations tell nothing"
    ending = " situations more would tell a difference of that size, four times in five"
    assert said(0.005, 0.0062).endswith(f"{few}; about 4{ending}")  # the spread alone would ask for none
    assert said(0.004, -0.001, 0.003, 0.0042, 0.0012).endswith(f"{few}; about 3{ending}")
    assert said(0.005, -0.004, 0.003, 0.0042, -0.0012).endswith(f"{few}; about 55{ending}")
    assert said(0.005, 0.005, 0.005).endswith("gain" + few)
    assert "fewer than" not in said(*[0.005, -0.004] * 3)


def test_two_prompt_sets_are_compared_situation_by_situation(decision_set):
    one = row(UniformBrain(), decision_set, "edit", draws=4)
    better = replace(one, prompts="mine", decided=tuple(replace(each, gain=each.gain + 0.01) for each in one.decided))
    assert paired_gains(better.decided, one.decided) == pytest.approx([0.01] * len(one.decided))
    assert "mine is better than default: 10.00 [10.00, 10.00]" in against_another(better, one)
    alternating = tuple(
        replace(each, gain=each.gain + 0.01 * (-1) ** number + 0.001) for number, each in enumerate(one.decided)
    )
    said = against_another(replace(one, prompts="mine", decided=alternating), one)
    assert "mine and default are not told apart: 1.00 [" in said and "situations more would tell" in said
