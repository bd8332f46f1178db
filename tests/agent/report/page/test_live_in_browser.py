"""The page of `watch` in a real browser: it moves while a run goes on, and talks to it where it has the token."""

from __future__ import annotations

import json
import shutil

import pytest
from selenium.webdriver.common.keys import Keys

from self_pruner.agent.run_files.run_directory import RunDirectory
from self_pruner.agent.run_files.steering import NOTES, REQUEST, read_notes, requested
from self_pruner.prompts.templates import PromptSet
from tests.agent.report.page.browser import PATIENCE, needs_browser
from tests.agent.report.page.made_up import MARKUP, finish, made_up

pytestmark = needs_browser


def test_a_run_that_goes_on_moves_on_the_page_and_its_end_too(browser, live):
    address, base = live
    browser.open(f"{address}/run/running#trace")
    steps = "return document.querySelectorAll('.step').length"
    before = browser.wait(f"{steps.replace('return', 'return 0 <')} && document.querySelectorAll('.step').length")
    browser.run("document.getElementById('step-1').open = true")
    kept = (base / "running" / "trace.jsonl").read_bytes().rpartition(b"\n")[0] + b"\n"
    shift = {"take": f"mlp 2-3 {MARKUP}", "give": "mlp 0-1", "amount": "some"}
    plan = {"hypotheses": [{**shift, "expect": "better"}], "stop": True}
    think = {"kind": "think", "step": 77, "generation": 2, "prompt": "Plan.", "plan": plan, "replies": []}
    think["of a later version"] = {"held": [1, MARKUP]}
    lesson = {**shift, "verdict": "held", "expected": "better", "change": -0.02, "error": 0.01, "evidence": ["c4"]}
    answer = {"generation": 2, "survivors": ["c4"], "best": "c4", "note": "", "lessons": [lesson]}
    act = {"kind": "act", "step": 77, "call": 0, "tool": "record_population", "arguments": {}, "result": answer}
    lines = "".join(json.dumps(line) + "\n" for line in (think, act))
    (base / "running" / "trace.jsonl").write_bytes(kept + lines.encode())
    assert browser.wait(f"{steps} === arguments[0] && document.querySelectorAll('.step').length", before + 1)
    assert browser.run("return document.getElementById('step-1').open")
    browser.go("trace/77")
    said = browser.text("#step-77")
    assert f"takes some of mlp 2-3 {MARKUP} for mlp 0-1 (expects better), stops if it stalls" in said
    assert f"some of mlp 2-3 {MARKUP} for mlp 0-1 better -0.0200 ± 0.0100 c4" in said
    assert "of a later version" in said and said.count(MARKUP) >= 5
    browser.go("overview")
    assert "Plan of generation 2 (step 77): takes some" in browser.text() and "1 of 1 hypothesis held" in browser.text()
    finish(RunDirectory.open(base / "running"))
    browser.wait("return document.querySelector('header .badge').textContent === 'finished'")
    browser.go("overview")
    browser.wait("return document.getElementById('panel').textContent.includes('1,000 become 900')")
    shutil.rmtree(base / "running")
    browser.wait(
        "const one = document.getElementById('trouble'); return one && one.textContent.includes('deleted or moved')"
    )
    assert "1,000 become 900" in browser.text()  # what was known is still there
    assert all("404" in one for one in browser.complaints())


def test_the_list_leads_to_runs_and_takes_in_new_ones(browser, live):
    address, base = live
    browser.open(address)
    browser.wait("return document.querySelectorAll('#main tbody tr').length === 4")
    made_up(base, "another", generations=1)
    browser.wait("return document.querySelectorAll('#main tbody tr').length === 5")
    browser.run("[...document.querySelectorAll('#main a')].find((one) => one.textContent === 'failed').click()")
    browser.wait("return document.querySelector('header .badge')?.textContent === 'failed'")
    assert "the disk <b>is</b> full" in browser.text("header")


def test_more_tabs_than_a_browser_has_connections_are_all_shown_and_what_is_looked_at_again_is_new(browser, live):
    address, base = live
    browser.open(address)
    first, driver = browser.driver.current_window_handle, browser.driver
    rows = "return document.querySelectorAll('#main tbody tr').length === arguments[0]"
    try:
        for _ in range(7):
            driver.switch_to.new_window("tab")
            driver.set_page_load_timeout(PATIENCE)
            browser.open(address)
            browser.wait(rows, 4)
        made_up(base, "another", generations=1)
        browser.wait(rows, 5)
        driver.switch_to.window(first)
        browser.wait(rows, 5)
    finally:
        for window in driver.window_handles:
            driver.switch_to.window(window)
            if window != first:
                driver.close()
        driver.switch_to.window(first)


@pytest.fixture
def held(live):
    """A run that somebody carries out: where its page is, and its directory."""
    address, base = live
    shutil.rmtree(base / "running" / "prompts")
    PromptSet("default").copy_to(base / "running" / "prompts")
    with RunDirectory.open(base / "running", exclusive=True) as run:
        yield f"{address}/run/running", run


BUTTONS = (
    "return [...document.querySelectorAll('.steer button')].filter((one) => one.offsetParent).map((one) => one.id)"
)


def test_with_the_token_a_run_is_told_something_paused_and_stopped(browser, held):
    address, run = held
    browser.open(f"{address}?token=the-token")
    browser.wait(f"{BUTTONS}.join() === 'pause,stop,tell'")
    assert "the-token" not in browser.driver.current_url
    browser.click("#note")
    browser.press(*"keep")
    with open(run.trace, "ab") as trace:  # what is typed outlives that the page is drawn anew
        trace.write(b"\n")
    (run.path / NOTES).write_text(json.dumps({"text": MARKUP, "created": "2026-01-02T03:04"}) + "\n")
    browser.wait("return document.getElementById('panel').textContent.includes('not read yet')")
    assert MARKUP in browser.text() and browser.focus() == "note"
    browser.press(*" layer 0 whole", Keys.ENTER)
    browser.wait("return document.getElementById('panel').textContent.includes('keep layer 0 whole')")
    assert [note.text for note in read_notes(run.path)] == [MARKUP, "keep layer 0 whole"]
    browser.wait("return document.getElementById('note').value === ''")  # once the server has said that it has it
    browser.click("#pause")
    browser.wait("return document.querySelector('header .badge').textContent === 'paused'")
    assert requested(run.path) == "pause" and browser.run(BUTTONS) == ["go-on", "stop", "tell"]
    browser.click("#go-on")
    browser.wait("return document.querySelector('header .badge').textContent === 'running'")
    assert requested(run.path) is None
    browser.run("document.getElementById('stop').focus()")
    browser.press(Keys.ENTER)
    browser.wait("return document.querySelector('header .badge').textContent === 'stopping'")
    assert requested(run.path) == "stop" and browser.run(BUTTONS) == []


def test_a_press_is_not_lost_where_something_new_comes_before_it_is_let_go(browser, held):
    address, run = held
    browser.open(f"{address}?token=the-token")
    browser.wait(f"{BUTTONS}.length === 3")
    place = "const one = document.getElementById('pause').getBoundingClientRect(); return [one.x + 9, one.y + 9]"
    x, y = browser.run(place)
    event = {"x": x, "y": y, "button": "left", "clickCount": 1}
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mousePressed", **event})
    browser.run("document.getElementById('panel').firstChild.old = true")
    asked = "return performance.getEntriesByType('resource').filter((one) => one.name.includes('data.json')).length"
    before = browser.run(asked)
    with open(run.trace, "ab") as trace:
        trace.write(b"\n")
    browser.wait(f"{asked} > arguments[0]", before)
    assert browser.run("return document.getElementById('panel').firstChild.old")
    browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseReleased", **event})
    browser.wait("return document.querySelector('header .badge').textContent === 'paused'")
    assert requested(run.path) == "pause"
    browser.wait("return !document.getElementById('panel').firstChild.old")


def test_a_page_goes_on_with_the_token_that_the_list_was_opened_with(browser, held):
    address, run = held
    browser.open(f"{address.removesuffix('/run/running')}/?token=the-token")
    browser.run("[...document.querySelectorAll('#main a')].find((one) => one.textContent === 'running').click()")
    browser.wait(f"{BUTTONS}.length === 3")
    run.set_status("stopped", "stopped by the user")
    browser.wait("return document.querySelector('header .badge').textContent === 'stopped'")
    assert browser.run(BUTTONS) == []


@pytest.mark.parametrize("query", ["", "?token=another"])
def test_without_it_there_are_no_buttons_and_nothing_is_said(started, held, query):
    address, run = held
    started.look()
    started.open(f"{address}{query}")
    started.wait("return document.querySelector('header .badge')")
    refused = """const [body, done] = arguments;
        fetch('/run/running/say', { method: 'POST', body }).then((one) => done(one.status))"""
    assert started.driver.execute_async_script(refused, json.dumps({"request": "stop"})) == 403
    assert started.run(BUTTONS) == [] and not (run.path / REQUEST).exists()
    assert all("403" in one for one in started.complaints())


def test_another_page_of_this_browser_cannot_talk_to_a_run(started, held, finished):
    address, run = held
    started.open(f"{address}?token=the-token")
    started.wait(f"{BUTTONS}.length")
    started.driver.get("data:text/html,<p>another page")
    sends = """const [address, headers, done] = arguments;
    fetch(`${address}/say`, { method: 'POST', body: '{"request": "stop"}', headers })
      .then(() => done('sent'), () => done('refused'))"""
    for headers in ({}, {"x-token": "the-token"}):
        assert started.driver.execute_async_script(sends, address, headers) == "refused"
    assert not (run.path / REQUEST).exists()
    started.complaints()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_the_buttons_and_the_box_fit(browser, held, width, dark):
    address, _ = held
    browser.look(width=width, dark=dark)
    browser.open(f"{address}?token=the-token")
    browser.wait(f"{BUTTONS}.length === 3")
    browser.assert_fits(width, dark)
