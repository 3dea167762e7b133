"""Fixtures of the page's tests: one Chromium per file."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.viewer.browsing import open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, shared by the tests of one file (Playwright's own loop must end with the file)."""
    with open_browser() as running:
        yield running
