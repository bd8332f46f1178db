"""A real Chromium without a window, driven; where there is none, tests that need it are skipped."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvicorn
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from self_pruner.agent.report.page.server import Watch

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no chromium with its chromedriver on the path"),
]
PATIENCE = 120  # seconds to wait for what must come, on a machine that is busy with other work


class Browser:
    """One page in Chromium, and what is asked of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, width: int = 1280, height: int = 1000, dark: bool = False) -> None:
        """Sets the size of the window in pixels, and the user's colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, address: str) -> None:
        """Loads the page anew, also where only what follows the # differs."""
        self.driver.get("about:blank")
        self.driver.get(address)
        self.wait("return !!document.querySelector('#main > *')")

    def text_without_scripts(self, address: str) -> str:
        """What a page says where no script may run."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            self.driver.get("about:blank")
            self.driver.get(address)
            return self.text("body")
        finally:
            self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def go(self, place: str) -> None:
        """Goes to a place of the page, such as trace/12."""
        self.run("location.hash = arguments[0]", place)
        tab = place.partition("/")[0]
        self.wait("return document.getElementById('panel').className === arguments[0]", tab)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, script: str, *values: Any) -> Any:
        """Waits until the script returns something that is true, and returns it."""
        return WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: self.run(script, *values))

    def text(self, selector: str = "#panel") -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def click(self, selector: str) -> None:
        """Clicks on what is there; where the page is drawn anew before the click, on what is there then."""

        def clicked(_: object) -> bool:
            self.run("document.querySelector(arguments[0]).scrollIntoView({ block: 'center' })", selector)
            self.driver.find_element(By.CSS_SELECTOR, selector).click()
            return True

        WebDriverWait(self.driver, PATIENCE, 0.05, [StaleElementReferenceException]).until(clicked)

    def choose(self, name: str, value: str) -> None:
        """Chooses the option with that value in the list with that id."""
        script = "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        self.run(f"{script} one.dispatchEvent(new Event('change'))", name, value)

    def press(self, *keys: str) -> None:
        """Presses keys wherever the focus is."""
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def focus(self) -> str:
        """The id of what has the keyboard."""
        return str(self.run("return document.activeElement.id"))

    def assert_fits(self, width: int, dark: bool) -> None:
        """Nothing is wider than the window, and text stands out from the page."""
        assert self.run("return document.documentElement.scrollWidth") <= width
        right = "[...document.querySelectorAll('#panel > *')].map((one) => one.getBoundingClientRect().right)"
        assert self.run(f"return Math.max(...{right})") <= width
        ink, page = self.run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
        assert (_light(ink) - _light(page) > 0.5) == dark and abs(_light(ink) - _light(page)) > 0.5

    def complaints(self) -> list[str]:
        """What the browser found wrong since the last time: errors, and what the page's policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own, without any profile of the user's."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service(DRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def _light(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@contextmanager
def served(watch: Watch) -> Iterator[str]:
    """A server of its own: its address, without a slash."""
    config = uvicorn.Config(watch.app(), port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()  # who comes before the server has started waits for it
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        watch.closing = server.should_exit = True
        thread.join()
