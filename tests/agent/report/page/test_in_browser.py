"""The page in a real browser: each tab, by keyboard alone, narrow and wide, light and dark, hostile and large."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from selenium.webdriver.common.keys import Keys

from self_pruner.agent.report.why import read_origin
from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.memory.profile import PARTS
from tests.agent.report.page.browser import needs_browser
from tests.agent.report.page.conftest import page_of
from tests.agent.report.page.made_up import LAYERS, MARKUP, finish, made_up

pytestmark = needs_browser
TABS = ("overview", "search", "profile", "lineage", "trace", "prompts", "reproduce")


def test_the_overview_says_what_was_decided_and_why(browser, finished):
    browser.open(finished)
    said = browser.text()
    assert "1,000 become 900" in said and "below the best baseline" in said
    assert "Why c1" in said and "the least KL there, 0.3000, is that of c1" in said
    assert "/model" in said and "from_pretrained" in said and "failed: the brain wrote no call" in said
    assert "What earlier runs had learnt" in said and "some of mlp 0-1 for mlp 4-5 (in Small" in said
    assert browser.run("return document.querySelector('tr.found').textContent").startswith("found900")
    assert browser.text("h1") == "tiny-20260102-000000" or browser.text("h1") == "finished"


def test_of_a_closed_form_no_search_is_told(browser, tmp_path):
    run = finish(made_up(tmp_path, "uniform", generations=1))
    with closing(sqlite3.connect(run.records)) as connection, connection:
        connection.execute("DELETE FROM candidate WHERE id <> 'c1'")
    browser.open(page_of(run.path))
    assert "It was taken as it is, without a search." in browser.text() and "The search began" not in browser.text()


def test_a_point_or_a_row_shows_the_card_of_its_candidate(browser, finished):
    browser.open(f"{finished}#search")
    assert browser.run("return document.querySelectorAll('.uplot canvas').length") == 1
    assert "best so far" in browser.text() and "uniform c1" in browser.text()
    names = browser.run("return [...document.querySelectorAll('#panel tbody th a')].map((one) => one.textContent)")
    assert len(names) == 15
    browser.click("#panel tbody tr:nth-child(2) a")
    browser.wait("return document.querySelector('.card h3').textContent.startsWith(arguments[0])", names[1])
    assert {"Proposed by", "Parents", "Fitness", "By text", "Repair", "Survived"} <= {
        *browser.run("return [...document.querySelectorAll('.card dt')].map((one) => one.textContent)")
    }
    browser.click("#maker-brain")
    assert len(browser.run("return [...document.querySelectorAll('#panel tbody th a')]")) == 12
    before = browser.run("return location.hash")
    x, y = browser.run(
        """const over = document.querySelector('.u-over'); const box = over.getBoundingClientRect();
        for (let x = box.left; x < box.right; x += 9) for (let y = box.top; y < box.bottom; y += 9) {
          over.dispatchEvent(new MouseEvent('mousemove', { clientX: x, clientY: y }));
          const hint = over.querySelector('.hint');
          if (!hint.hidden && !hint.textContent.startsWith(arguments[0] + ':')) return [x, y];
        }""",
        names[1],
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    assert browser.wait("return location.hash !== arguments[0] && location.hash", before).startswith("#search/c")


def test_the_profile_says_why_a_layer_has_its_width(browser, finished):
    browser.open(f"{finished}#profile/c15")
    assert browser.run("return document.querySelectorAll('.layers tbody tr').length") == 6
    browser.click("#layer-3")
    assert "Why layer 3 keeps what it keeps" in browser.text("#why") and "began with" in browser.text("#why")
    assert "number 4 of 6 layers" in browser.text("#why")  # of the probes
    assert browser.focus() == "layer-3"  # what had the keyboard keeps it
    assert browser.run("return document.querySelectorAll('table.map').length") == 2


def test_the_page_and_the_command_follow_a_width_to_the_same_beginning(browser, finished, runs):
    origin = replace(read_origin(RunDirectory.open(runs / "finished")), result="c15")
    browser.open(f"{finished}#profile/c15")
    for layer in range(LAYERS):
        browser.click(f"#layer-{layer}")
        firsts = browser.run(
            "return [...document.querySelectorAll('#why ol')].map((one) => one.firstChild.textContent)"
        )
        for part, first in zip(PARTS, firsts, strict=True):
            *_, (begun, _) = origin.line((layer, part))
            assert first.startswith(f"{begun} began with {origin.profile(begun).widths(part)[layer]} ")


def test_the_lineage_is_filtered_and_gone_through_by_arrow_keys(browser, finished):
    browser.open(f"{finished}#lineage/c1")
    everybody = browser.run("return document.querySelectorAll('circle.node').length")
    assert everybody == 15
    browser.run("document.getElementById('graph').focus()")
    browser.press(Keys.ARROW_DOWN)
    first = browser.wait("return location.hash !== '#lineage/c1' && location.hash")
    browser.press(Keys.ARROW_RIGHT)
    second = browser.wait("return location.hash !== arguments[0] && location.hash", first)
    assert browser.focus() == "graph"
    browser.open(f"{finished}#lineage/c1")
    at_once = browser.run(
        """for (const key of ['ArrowDown', 'ArrowRight'])
          document.getElementById('graph').dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
        return location.hash;"""
    )
    assert at_once == second  # a key that comes before the browser says that the address has changed is not lost
    browser.choose("which", "improved")
    improved = browser.run("return document.querySelectorAll('circle.node').length")
    assert 0 < improved < everybody


def test_the_trace_is_searched_filtered_linked_and_shows_each_step_in_full(browser, finished):
    browser.open(f"{finished}#trace/7")
    assert browser.run("return document.getElementById('step-7').open")
    assert browser.focus() != "" or browser.run("return document.activeElement.closest('#step-7') !== null")
    said = browser.text("#step-7")
    for part in (
        "Think",
        "Act: prune_model",
        "Judge",
        "Reply 0",
        "Failed: the brain wrote no call",
        "Prompt, beside that of step 1",
    ):
        assert part in said, part
    marked = browser.run("return [...document.querySelectorAll('#step-7 .new')].map((one) => one.textContent)")
    assert any(line.startswith("+ Generation 1.") for line in marked)
    every = browser.run("return document.querySelectorAll('.step').length")
    browser.click("#only-failed")
    assert browser.run("return [...document.querySelectorAll('.step')].map((one) => one.id)") == ["step-7"]
    browser.click("#only-failed")
    browser.choose("tool", "record_population")
    assert browser.run("return document.querySelectorAll('.step').length") == 3
    browser.choose("tool", "")
    browser.driver.find_element("id", "words").send_keys("seems cheap")
    assert browser.wait("return document.querySelectorAll('.step').length === 3") and every == 18


def test_a_step_is_copied_as_the_trace_has_it(browser, finished):
    browser.open(f"{finished}#trace/1")
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.run(
        "[...document.querySelectorAll('#step-1 button')].find((one) => one.textContent === 'Copy as JSON').click()"
    )
    records = json.loads(browser.wait("return window.copied"))
    assert [one["kind"] for one in records] == ["think", "act", "judge"] and "words" not in records[1]


def test_prompts_and_settings_are_there(browser, finished):
    browser.open(f"{finished}#prompts")
    assert "ask_vary.j2" in browser.text() and "Used in step 1" in browser.text() and "ask.parents" in browser.text()
    browser.go("reproduce")
    assert "--sparsity" in browser.text() and "share of decoder-block parameters to remove" in browser.text()


def test_all_is_reached_by_keyboard_alone(browser, finished):
    browser.open(finished)
    browser.press(Keys.TAB)
    assert browser.focus() == "tab-overview"
    for name in (*TABS[1:], TABS[0]):
        browser.press(Keys.ARROW_RIGHT)
        browser.wait("return document.getElementById('panel').className === arguments[0]", name)
        assert browser.focus() == f"tab-{name}"
        assert browser.run("return document.querySelectorAll('[role=tab][tabindex=\"0\"]').length") == 1
    browser.press(Keys.END)
    browser.wait("return document.getElementById('panel').className === 'reproduce'")
    browser.press(Keys.HOME, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    browser.wait("return document.getElementById('panel').className === 'trace'")
    browser.press(Keys.TAB)
    assert browser.focus() == "words"
    browser.press(*"c15")
    browser.press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB)
    assert browser.run("return document.activeElement.tagName") == "SUMMARY"
    browser.press(Keys.ENTER)
    assert browser.wait("return document.activeElement.nextSibling?.textContent").count("Act")


def test_a_key_draws_its_tab_at_once_before_the_browser_says_that_the_address_has_changed(browser, finished):
    browser.open(finished)
    drawn = browser.run(
        """const drawn = [];
        document.getElementById('tab-overview').focus();
        for (const key of ['ArrowRight', 'End', 'Home', ' ']) {
          document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
          drawn.push(`${location.hash} ${document.getElementById('panel').className} ${document.activeElement.id}`);
        }
        return drawn;"""
    )
    names = ("search", "reproduce", "overview", "overview")
    assert drawn == [f"#{name} {name} tab-{name}" for name in names]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window_and_text_stands_out(browser, finished, width, dark):
    browser.look(width=width, dark=dark)
    for name in TABS:
        browser.open(f"{finished}#{name}{'/7' if name == 'trace' else ''}")
        browser.assert_fits(width, dark)


def test_what_a_brain_wrote_is_text_and_never_markup(browser, finished):
    for name in (*TABS, "trace/1", "search/c4", "lineage/c4"):
        browser.open(f"{finished}#{name}")
        assert (
            browser.run("return document.querySelectorAll('img, iframe, script:not(#data):not(:last-of-type)').length")
            == 0
        )
        assert browser.driver.title.startswith("Self-Pruner: ")
    browser.open(f"{finished}#trace/1")
    assert browser.text("#step-1").count(MARKUP) >= 3  # in the prompt, the thought and the reply
    browser.go("overview")
    assert MARKUP in browser.text() and "note " + MARKUP in browser.text()


def test_a_page_lets_no_other_script_run(started, finished):
    started.look()
    started.open(finished)
    started.complaints()
    refused = started.run(
        """const made = document.createElement('script'); const refused = [];
        try { made.textContent = 'window.had = true'; } catch { refused.push('a script'); }
        try { document.body.innerHTML = '<b>'; } catch { refused.push('markup'); }
        made.append('window.had = true');
        document.body.append(made);
        return [window.had === undefined, refused];"""
    )
    assert refused == [True, ["a script", "markup"]]
    started.complaints()


def test_without_scripts_the_table_is_there(browser, finished):
    said = browser.text_without_scripts(finished)
    assert "needs JavaScript" in said and "1,000 become 900" in said and "closed form" in said


def test_failed_and_begun_runs_have_a_page(browser, runs, tmp_path):
    for kind, said in (("failed", "the disk <b>is</b> full"), ("begun", "The run is being prepared")):
        address = page_of(shutil.copytree(runs / kind, tmp_path / kind))
        for name in TABS:
            browser.open(f"{address}#{name}")
            assert "cannot be shown" not in browser.text()
        browser.go("overview")
        assert said in browser.text("body")


def test_a_run_of_5000_candidates_and_2000_steps_works(browser, tmp_path):
    run = made_up(tmp_path / "runs", "large", generations=500, offspring=10, layers=32)
    address = page_of(run.path)
    browser.open(address)
    for name in TABS:
        browser.go(name)
        assert "cannot be shown" not in browser.text("#panel > *")
    browser.go("lineage")
    assert "of 5,003" in browser.text()
    browser.go("trace")
    assert browser.run("return document.querySelectorAll('.step').length") == 6000
    browser.go("search/c4000")
    assert browser.text(".card h3").startswith("c4000")
