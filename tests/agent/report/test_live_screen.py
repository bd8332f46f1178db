"""The live screen: what is spent and what is left, from the records of the trace alone."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from self_pruner.agent.report.live_screen import SearchScreen
from self_pruner.agent.run_files.trace import NOTHING_NEW, Act, Judge, Reply, Think
from self_pruner.agent.search.initial_population import Baseline
from self_pruner.agent.settings.limits import about, minutes_left
from self_pruner.agent.settings.settings import Settings
from self_pruner.agent.view import Screen, View

ENDS, UNIFORM = Baseline("ends", 0.8, 0.5, 4096), Baseline("uniform", 1.0, 0.55, 1024)
LESSON = dict(verdict="held", amount="some", take="mlp 3-5", give="mlp 0-2", change=-0.01, error=0.004, expected="same")
HYPOTHESIS = {"amount": "much", "take": "mlp 20-24", "give": "mlp 25-29", "expect": "better"}
HOSTILE = "\x1b[2J\u202e剪枝 \U0001f469\u200d\U0001f467\ufe0f\U0001f1e9\U0001f1ea\ttab\r\n[red]" * 20


def judge(generation, evaluations, minutes, step=1, tokens=0, brain_tokens=0, stop=None):
    spent = {"evaluations": evaluations, "tokens": tokens, "brain_tokens": brain_tokens, "minutes": minutes}
    return Judge(step=step, generation=generation, spent=spent, best="c3", fitness=0.5, stop=stop)


@pytest.fixture
def shown():
    """Makes a screen on plain text or a terminal, with what it has printed."""

    def shown(terminal=False, **settings):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=160, highlight=False)
        return SearchScreen(View(console), Settings(**settings), lambda best: {}), file

    return shown


def rendered(screen, width=160, height=24):
    console = Screen(file=io.StringIO(), width=width, height=height, highlight=False)
    console.print(screen.frame(), end="")
    return console.file.getvalue()


def test_a_generation_that_ended_is_one_plain_line_with_spent_and_left(shown):
    screen, file = shown(evaluations=60)
    for record in (judge(0, 0, 0.0), judge(0, 6, 1.0, tokens=9_000), judge(1, 6, 2.0, tokens=10_000, brain_tokens=500)):
        screen.see(record)
    assert file.getvalue() == (
        "generation 0: 6 of 60 evaluated, 10,500 tokens, 2.0 min, about 18 min left. "
        "Best: c3, fitness 0.5000 (dense 0)\n"
    )
    assert "\x1b" not in file.getvalue()


def test_the_best_stands_beside_the_best_baseline_which_is_looked_up_once_a_turn(shown):
    screen, _ = shown(evaluations=60)
    asked = []
    screen.baselines = lambda best: asked.append(best) or {"uniform": UNIFORM, "ends": ENDS}
    screen.see(judge(0, 6, 1.0))
    said = "Best: c3, fitness 0.5000 (dense 0); best baseline (ends) 0.8000 (-37.5%)"
    assert [screen.best() for _ in range(5)] == [said] * 5
    assert "KL 0.5000 (c3), 37.5% below ends (0.8000), the best baseline, 45.0% below uniform" in rendered(screen)
    assert asked == ["c3"]


def test_nothing_is_said_to_be_left_before_a_generation_has_ended(shown):
    screen, _ = shown(evaluations=60)
    screen.see(judge(0, 0, 0.0))
    screen.see(judge(0, 6, 1.0))
    assert "left" not in screen.spent()
    assert "6 of 60 evaluated" in rendered(screen)


def test_within_a_generation_the_time_left_counts_down_and_does_not_jump(shown):
    screen, _ = shown(evaluations=60)
    for record in (judge(0, 0, 0.0), judge(1, 10, 10.0)):
        screen.see(record)
    assert "about 50 min left" in screen.spent()
    screen.see(judge(1, 22, 12.0))  # the first stage of many candidates at once
    assert "about 48 min left" in screen.spent()
    screen.see(judge(1, 22, 22.0))
    assert "about 38 min left" in screen.spent()


def test_a_resumed_search_is_judged_by_the_pace_of_this_session(shown):
    screen, _ = shown(evaluations=60)
    for record in (judge(2, 30, 100.0, step=9), judge(3, 40, 105.0, step=12)):
        screen.see(record)
    assert "about 10 min left" in screen.spent()


def test_a_search_that_stopped_has_nothing_left(shown):
    screen, file = shown(evaluations=12)
    for record in (judge(0, 0, 0.0), judge(1, 12, 3.0, stop="12 evaluations are used up")):
        screen.see(record)
    assert "left" not in file.getvalue() and "12 of 12 evaluated" in file.getvalue()


def test_limits_that_are_set_stand_beside_what_is_spent(shown):
    screen, _ = shown(evaluations=60, tokens=100_000, minutes=30)
    screen.see(judge(0, 6, 1.0, tokens=9_000, brain_tokens=1_000))
    assert screen.spent() == "6 of 60 evaluated, 10,000 of 100,000 tokens, 1.0 of 30 min"


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"evaluations": 100}, 16.0),  # 80 more at five a minute
        ({"evaluations": 100, "tokens": 30_000}, 4.0),  # 10,000 more at 2,500 a minute
        ({"evaluations": 100, "minutes": 6.0}, 1.0),
        ({"evaluations": 20}, 0.0),
    ],
)
def test_the_nearest_limit_says_what_is_left(limits, left):
    first = {"evaluations": 0, "tokens": 9_000, "brain_tokens": 1_000, "minutes": 1.0}
    now = {"evaluations": 20, "tokens": 15_000, "brain_tokens": 5_000, "minutes": 5.0}
    assert minutes_left(Settings(**limits), first, now) == pytest.approx(left)


def test_without_a_pace_nothing_is_left_to_say():
    moment = {"evaluations": 7, "tokens": 100, "minutes": 2.0}
    assert minutes_left(Settings(), moment, moment) is None


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (0.2, "less than a minute"),
        (1.4, "about 1 min"),
        (17.6, "about 18 min"),
        (89.0, "about 89 min"),
        (150.0, "about 2.5 h"),
    ],
)
def test_time_left_is_said_as_roughly_as_it_is_known(minutes, said):
    assert about(minutes) == said


def test_a_terminal_shows_the_same_beside_bars(shown):
    screen, _ = shown(terminal=True, evaluations=60)
    with screen.shown():
        for record in (judge(0, 0, 0.0), judge(1, 6, 2.0)):
            screen.see(record)
        screen.progress(3, 12)
        page = rendered(screen)
    assert "6 of 60 evaluated" in page and "about 18 min left" in page and "25% measured" in page
    screen.see(judge(1, 6, 2.5))
    assert "measured" not in rendered(screen)


@pytest.mark.parametrize(("failed", "stood_in"), [(True, ", 1 stood in for"), (False, "")])
def test_a_turn_that_found_nothing_new_says_so_and_who_failed_only_where_somebody_did(shown, failed, stood_in):
    screen, file = shown(evaluations=60)
    screen.see(Think(step=4, generation=1, prompt=NOTHING_NEW, fallback=failed))
    said = file.getvalue()
    assert "step 4: nothing new was found" in said
    assert ("the tool stands in for the brain" in said) == failed
    assert f"0 min{stood_in}\n" in rendered(screen)


def busy(screen):
    """The records of a search in its second generation, and the screen after each."""
    screen.baselines = lambda best: {"uniform": UNIFORM, "ends": ENDS}
    reply = Reply(raw="{}", thought="Cut " * 99)
    for record in (
        judge(0, 0, 0.0),
        judge(1, 6, 2.0),
        Think(step=2, generation=1, prompt="", replies=(reply,), plan={"hypotheses": [HYPOTHESIS] * 3}),
        Act(step=2, call=0, tool="record_population", arguments={}, result={"generation": 1, "lessons": [LESSON] * 3}),
        judge(10**7, 10**9, 10.0**6, tokens=10**15),
        Think(step=3, generation=2, prompt="", error=HOSTILE, fallback=True),
        Think(step=4, generation=2, prompt="", replies=(Reply(raw="{}", thought=HOSTILE),)),
        Act(step=4, call=0, tool="prune_model", arguments={"operator": "mutation", "parents": [HOSTILE] * 9}),
    ):
        screen.see(record)
        yield screen
    screen.progress(5, 7)
    yield screen


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (60, 20), (40, 12), (20, 24), (3, 3)])
def test_the_screen_has_as_many_lines_whatever_happens_and_none_is_too_long(shown, width, height):
    screen, _ = shown(evaluations=60, tokens=10**9, minutes=90)
    shapes = set()
    for state in busy(screen):
        page = rendered(state, width, height)
        lines = page.split("\n")
        assert lines.pop() == "" and max(map(cell_len, lines)) < width
        assert not set("\x1b\r\t\u202e\u200d\ufe0f") & set(page)
        shapes.add(len(lines))
    assert shapes == {min(9, max(1, height - 2))}


def test_what_matters_fits_eighty_columns_and_sixty(shown):
    screen, _ = shown(evaluations=60)
    *_, third, _ = [rendered(state, 80) for state, _ in zip(busy(screen), range(4), strict=False)]
    assert third.startswith("Search  ") and "10%, about 18 min left\n" in third
    assert "Spent   6 of 60 evaluated, 0 tokens, 2.0 min\n" in third
    assert (
        "Best    KL 0.5000 (c3), 37.5% below ends (0.8000), the best baseline, 45.0%\n        below uniform\n" in third
    )
    assert "Plan    takes much of mlp 20-24 for mlp 25-29 (expects better), takes much of\n" in third
    narrow = rendered(screen, 60)
    assert "Learnt  held: some of mlp 3-5 for mlp 0-2 -0.0100 ± 0.0040\n" in narrow


@pytest.mark.parametrize("width", [80, 60, 20])
def test_a_generation_is_one_line_in_a_terminal(width):
    file = io.StringIO()
    view = View(Screen(file=file, force_terminal=True, width=width, color_system=None, highlight=False))
    screen = SearchScreen(view, Settings(evaluations=60), lambda best: {"ends": ENDS})
    for record in (judge(0, 0, 0.0), judge(1, 6, 2.0, tokens=9_000)):
        screen.see(record)
    assert file.getvalue().count("\n") == 1
    said = "generation 0: KL 0.5000, 37.5% below ends, 6 of 60"
    assert file.getvalue()[:-1] == (said if width > len(said) else f"{said[: width - 2].rstrip()}…")


def test_an_arm_that_asks_no_brain_has_no_rows_for_one(shown):
    screen, _ = shown(arm="evolution")
    assert "Plan" not in rendered(screen) and "Learnt" not in rendered(screen)


def test_text_of_a_model_is_shown_as_it_is(shown):
    screen, file = shown(terminal=True)
    screen.thought = "[bold red]not markup[/]"
    screen.view.console.width = 160
    screen.see(Think(step=1, generation=0, prompt="", error="[blink]odd[/blink]"))
    screen.see(Act(step=1, call=0, tool="evaluate", arguments={}, error="[b]none[/b]"))
    assert "[bold red]not markup[/]" in rendered(screen)
    assert "[blink]odd[/blink]" in file.getvalue() and "[b]none[/b]" in file.getvalue()


def test_decisions_of_the_brain_are_said_in_words_and_those_of_the_tool_are_not(shown):
    screen, file = shown(evaluations=60)
    screen.see(judge(0, 0, 0.0))
    screen.see(Think(step=1, generation=0, prompt="asked", replies=(Reply(raw="{}"),)))
    screen.see(Act(step=1, call=0, tool="prune_model", arguments={"operator": "mutation", "parents": ["c1"]}))
    screen.see(Act(step=1, call=1, tool="prune_model", arguments={"operator": "mutation"}, error="refused"))
    assert "Plan    mutated c1" in rendered(screen)
    screen.see(Think(step=2, generation=0, prompt="(the tool's operators)"))
    screen.see(Act(step=2, call=0, tool="benchmark_latency", arguments={"candidate": "c9"}))
    screen.see(judge(1, 6, 2.0))
    assert " ".join(file.getvalue().split()).endswith("fitness 0.5000 (dense 0) | brain: mutated c1")
    assert "in the making" in rendered(screen)  # the next generation begins with nothing decided


def test_what_a_brain_thought_is_shown_while_it_goes_on_and_not_kept(shown):
    screen, file = shown(evaluations=60)
    for record in (judge(0, 0, 0.0), Think(step=1, generation=0, prompt="", replies=(Reply(raw="", thought="Cut."),))):
        screen.see(record)
    assert "Plan    Cut." in rendered(screen)
    screen.see(judge(1, 6, 2.0))
    assert "Cut." not in file.getvalue()


def test_a_brain_that_is_never_asked_has_no_line(shown):
    for settings in ({"brain_share": 0}, {"plan": "rule"}):
        screen, _ = shown(**settings)
        assert "Plan" not in rendered(screen) and "Learnt" in rendered(screen)
