"""The page of a comparison in a real browser: each tab, by keyboard, narrow and wide, light and dark, hostile, live."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.keys import Keys

from self_pruner.agent.compare.folder import ComparisonFolder
from self_pruner.agent.compare.page import write_all
from self_pruner.agent.compare.page_data import of_folder
from self_pruner.agent.report.page.server import Watch
from self_pruner.agent.run_files.run_directory import RunDirectory
from tests.agent.compare.invented import FULL, results, searched
from tests.agent.report.page.browser import needs_browser, served
from tests.agent.report.page.made_up import MARKUP, made_up

pytestmark = needs_browser
TABS = ("overview", "curves", "brain", "profiles", "runs", "prompts", "reproduce")
HOSTILE = f"hybrid:{MARKUP}"


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> str:
    """The address of `compare.html`, whose arms, texts and settings have markup in them."""
    folder = tmp_path_factory.mktemp("compared")
    diff = ["--- default/ask_plan.j2", "+++ mine/ask_plan.j2", "@@ -1 +1 @@", "-Task.", f"+Task {MARKUP}."]
    runs = [*FULL, *(searched(HOSTILE, 29.0, seed, directory="runs/mine") for seed in range(2))]
    found = results(
        runs,
        missing=[f"cma at 30%, seed 2: {MARKUP}"],
        prompts={HOSTILE: diff},
        settings={"fitness_text": MARKUP, "evaluations": 20},
        command=f"python main.py compare {MARKUP}",
        measured_on=f"three texts {MARKUP}",
    )
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "settings.toml").touch()
    (folder / "runs" / "mine" / "report.html").write_text("<p id='main'>this run</p>")
    write_all(folder, found)
    return f"file://{folder}/compare.html"


def test_the_overview_has_the_verdict_and_the_tables(browser, compared):
    browser.open(compared)
    said = browser.text()
    for heading in ("What it comes to", "Final figures", "Paired differences", "Generalisation", "Cost", "Arms"):
        assert heading in said, heading
    assert browser.text(".lead").startswith("Of 5 ranked arms hybrid has the lowest perplexity")
    assert "35 of 36 runs finished" in said and "cma at 30%, seed 2" in said
    rows = "return document.querySelectorAll('#panel table')[0].tBodies[0].rows.length"
    assert browser.run(rows) == 6  # means over all sparsities, and the dense model
    browser.choose("sparsity", "30%")
    assert browser.run(rows) == 7
    browser.choose("sparsity", "")
    assert browser.run(rows) == 1 + 3 * 5 + 1 + 5
    assert "±" in browser.text("#panel table")


def test_curves_are_drawn_said_in_figures_and_left_out(browser, compared):
    browser.open(f"{compared}#curves")
    assert browser.run("return document.querySelectorAll('.uplot canvas').length") == 3
    words = browser.run("return document.querySelector('.uplot').getAttribute('aria-label')")
    assert "hybrid ends at 0.8100 after 3,000 tokens" in words and "owl is at" in words
    browser.click("#arm-0")
    assert "hybrid ends" not in browser.run("return document.querySelector('.uplot').getAttribute('aria-label')")
    assert browser.focus() == "arm-0"
    found = browser.run(
        """const over = document.querySelector('.u-over'); const box = over.getBoundingClientRect();
        for (let y = box.top; y < box.bottom; y += 6) {
          over.dispatchEvent(new MouseEvent('mousemove', { clientX: box.left + box.width / 2, clientY: y }));
          const hint = over.querySelector('.hint');
          if (!hint.hidden) return hint.textContent;
        }"""
    )
    assert found == "evolution: 1.0000"


def test_the_brain_profiles_and_what_made_them_are_there(browser, compared):
    browser.open(f"{compared}#brain")
    assert "of the brain's 108 candidates beat their parents" in browser.text() and "switch" in browser.text()
    browser.go("profiles")
    assert browser.run("return document.querySelectorAll('.gallery figure').length") == 16
    browser.go("reproduce")
    assert "--evaluations" in browser.text() and "2 cores" in browser.text() and "python main.py" in browser.text()


def test_a_run_leads_to_its_page_and_an_arm_to_its_prompts(browser, compared):
    browser.open(f"{compared}#runs")
    assert browser.run("return document.querySelectorAll('#panel tbody tr').length") == 35
    browser.click("#panel tbody a")
    browser.wait("return document.body.textContent.includes('this run')")
    browser.open(compared)
    browser.run("[...document.querySelectorAll('#panel a')].find((one) => one.textContent === 'its prompts').click()")
    browser.wait("return document.getElementById('panel').className === 'prompts'")
    lines = (
        "return [...document.querySelectorAll('#panel pre span')].map((one) => [one.className, one.textContent.trim()])"
    )
    assert browser.run(lines)[-2:] == [["gone", "-Task."], ["new", f"+Task {MARKUP}."]]


def test_every_tab_is_reached_by_keyboard(browser, compared):
    browser.open(compared)
    browser.press(Keys.TAB)
    assert browser.focus() == "tab-overview"
    for name in (*TABS[1:], TABS[0]):
        browser.press(Keys.ARROW_RIGHT)
        browser.wait("return document.getElementById('panel').className === arguments[0]", name)
        assert browser.focus() == f"tab-{name}"
    browser.press(Keys.ARROW_RIGHT)
    browser.wait("return document.getElementById('panel').className === arguments[0]", TABS[1])
    browser.press(Keys.TAB)
    assert browser.focus() == "arm-0"
    browser.press(Keys.SPACE)
    assert browser.wait("return !document.getElementById('arm-0').checked")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window_and_what_was_named_is_text(browser, compared, width, dark):
    browser.look(width=width, dark=dark)
    for name in TABS:
        browser.open(f"{compared}#{name}")
        browser.assert_fits(width, dark)
        assert "cannot be shown" not in browser.text()
        assert (
            browser.run("return document.querySelectorAll('img, iframe, script:not(#data):not(:last-of-type)').length")
            == 0
        )
        assert browser.driver.title.startswith("Self-Pruner: ")
    assert MARKUP in browser.text()


def test_without_scripts_the_sentences_and_the_tables_are_there(browser, compared):
    said = browser.text_without_scripts(compared)
    assert "has the lowest perplexity" in said and "evolution" in said and "geometric mean" in said


def test_a_comparison_that_goes_on_moves_on_its_page(browser, planned):
    comparison = ComparisonFolder.open(planned)
    run = next(run for run in comparison.planned() if run.spec.text == "hybrid")
    with served(Watch(planned.parent, compared=of_folder)) as address:
        browser.open(f"{address}/comparison/{planned.name}")
        browser.wait("return document.querySelector('header .badge')?.textContent === 'unfinished'")
        assert "No run is finished yet." in browser.text() and "0 of 3 runs finished" in browser.text()
        made = made_up(comparison.folder_of(run), "tiny", generations=1)
        with RunDirectory.open(made.path, exclusive=True):
            browser.wait("return document.querySelector('header .badge').textContent === 'running'")
            assert "4 of" not in browser.text(".pane table") and run.slug in browser.text(".pane table")
            browser.go("runs")
            browser.click("#panel table a")
            browser.wait("return document.querySelector('h1')?.textContent === arguments[0]", made.name)
            browser.driver.back()
            browser.wait("return document.getElementById('panel')?.className === 'runs'")
        place = str(made.path.relative_to(planned))
        comparison.keep(run, searched("hybrid", 30.0, directory=place))
        browser.go("overview")
        browser.wait("return document.getElementById('panel').textContent.includes('1 of 3 runs finished')")
        browser.go("prompts")
        assert "+Task: be brave." in browser.text()
        browser.go("runs")
        link = browser.run("return document.querySelector('#panel tbody tr td:last-child a')?.getAttribute('href')")
        assert link == f"/run/{planned.name}/{place}"
        (planned / "plan.json").write_text(json.dumps({"arms": []}))
        browser.wait("return document.getElementById('trouble')?.textContent.includes('damaged')")
        assert all("409" in one for one in browser.complaints())
        browser.driver.get("about:blank")
