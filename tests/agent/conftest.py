"""The browser in which pages are tested: one for all tests, started when the first needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent.report.page.browser import Browser, chromium


@pytest.fixture(scope="session")
def started() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The browser as it is for everybody; whatever it complains of fails the test."""
    started.look()
    started.complaints()
    yield started
    assert started.complaints() == []
