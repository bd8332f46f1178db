"""Comparisons start runs, as processes of their own."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _warm(warm: None) -> None:
    """What these tests start need not be a new interpreter."""
