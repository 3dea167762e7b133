"""A real Chromium for tests of the page: started once per file, watched for script errors, never a download.

`open_browser` starts Debian's (or any installed) Chromium without a GPU; `open_page` gives one page of a given size
whose console errors, script errors, refused resources and requests to other hosts are written down, and fails on them
at its end unless the test expects some.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
LAPTOP, PORTRAIT, TABLET = (1366, 768), (2048, 2560), (820, 1180)  # the three sizes that the page is made for


def chromium() -> str:
    """Return the path of the installed Chromium; skip the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: install the package `chromium` for the tests of the page")
    return found


@contextmanager
def open_browser() -> Iterator[Any]:
    """Yield a headless Chromium as Playwright's `Browser`; skip where Playwright or Chromium is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="install mammoseek[dev] for Playwright")
    path = chromium()
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


def wait_until(page: Any, expression: str, seconds: float = 15.0) -> None:
    """Wait until a JavaScript expression is true on the page.

    Playwright's own `wait_for_function` evaluates text inside the page, which a strict content security policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not true after {seconds} s: {expression}"
        page.wait_for_timeout(20)


@dataclass
class Watch:
    """What went wrong on a page while it was open, and what it asked for."""

    errors: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)  # addresses beyond the page's own host
    requests: list[str] = field(default_factory=list)  # every address, in order

    def count(self, part: str) -> int:
        """Return how many requests had `part` in their address."""
        return sum(part in address for address in self.requests)


@contextmanager
def open_page(
    browser: Any, size: tuple[int, int] = LAPTOP, expect_errors: bool = False, **context: Any
) -> Iterator[tuple[Any, Watch]]:
    """Yield a page of `size` CSS pixels in a fresh profile, and its Watch.

    `context` goes to Playwright's `new_context` (device_scale_factor, has_touch, reduced_motion, ...).
    At the end an assertion fails where the page logged an error or asked another host, unless `expect_errors`.
    """
    profile = browser.new_context(viewport={"width": size[0], "height": size[1]}, **context)
    profile.set_default_timeout(10_000)
    page, watch = profile.new_page(), Watch()

    def asked(request: Any) -> None:
        watch.requests.append(request.url)
        parts = urlsplit(request.url)
        if parts.scheme not in ("blob", "data", "about") and parts.hostname not in ("127.0.0.1", "localhost"):
            watch.strangers.append(request.url)

    page.on("request", asked)
    page.on("pageerror", lambda error: watch.errors.append(str(error)))
    page.on("console", lambda said: watch.errors.append(said.text) if said.type == "error" else None)
    try:
        yield page, watch
        assert not watch.strangers, f"the page asked other hosts: {watch.strangers}"
        assert expect_errors or not watch.errors, f"the page logged errors: {watch.errors}"
    finally:
        profile.close()
