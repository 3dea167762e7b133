"""A reader in a real browser: she opens images, draws boxes and steers, and the page's own clock takes the time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.viewer.browsing import open_page

_PATIENCE_S = 120

# Runs before the page's own scripts: notes when a hand acts, when a strip stands and when a picture is drawn.
_WATCH = """
performance.setResourceTimingBufferSize(100000);
window.seen = [];
const note = (what, at = performance.now(), row = null) => window.seen.push({ what, at, row });
for (const kind of ["pointerup", "click", "change"]) addEventListener(kind, () => note(kind), true);
new MutationObserver((changes) => {
  for (const { target } of changes) {
    if (target.hasAttribute("aria-busy")) continue;
    if (target.matches(".strip")) note("strip");
    else if (target.closest(".strip")) {
      note("picture", performance.now(), target.closest("[data-row]")?.dataset.row ?? "");
    }
  }
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["aria-busy"] });
"""
# Opening an image is over when something of it is drawn everywhere.
_HOOK = """async () => {
  const { ImageView } = await import("/static/image/imageview.js");
  const { open } = ImageView.prototype;
  window.views = new Map();
  ImageView.prototype.open = function (info, ...how) {
    return open.call(this, info, ...how).then((whole) => {
      window.views.set(info.image, this);
      window.seen.push({ what: `opened ${info.image}`, at: performance.now() });
      return whole;
    });
  };
}"""
_UNTIL = """async ([what, since, seconds]) => {
  const busy = () => document.querySelector(".strip[aria-busy], .strip [aria-busy]");
  const there = () => window.seen.some((one) => one.what === what && one.at > since);
  for (const end = performance.now() + 1000 * seconds; !there() || busy(); ) {
    if (performance.now() > end) throw new Error(`no ${what} within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return window.seen.filter((one) => one.at > since);
}"""
_FETCHED = """(since) => performance.getEntriesByType("resource").filter((one) => one.startTime > since).map((one) => (
  { path: new URL(one.name).pathname, from: one.startTime, asked: one.requestStart, to: one.responseEnd,
    sent: one.transferSize > 0 }))"""
# A gesture for so many frames; the times between frames are the browser's own.
_GESTURE = """async ([gesture, count]) => {
  const { view } = window;
  const next = () => new Promise(requestAnimationFrame);
  view.frames = { drawn: 0, milliseconds: [], intervals: [] };
  const between = [];
  let last = await next();
  for (let step = 0; step < count; step++) {
    const turn = (2 * Math.PI * step) / 60;
    if (gesture === "pan") view.panBy(12 * Math.cos(turn), 9 * Math.sin(turn));
    else if (gesture === "zoom") view.zoomBy(step % 60 < 30 ? 1.03 : 1 / 1.03);
    else view.setWindow({ centre: 30000 + 4000 * Math.sin(turn), width: 40000 });
    const now = await next();
    between.push(now - last);
    last = now;
  }
  return { between, drawing: view.frames.milliseconds, drawn: view.frames.drawn };
}"""


@dataclass(frozen=True)
class Look:
    """What happened after a hand had acted, in milliseconds of the page's clock.

    Attributes:
        since: When the hand acted.
        events: What was noted since.
        fetched: What was fetched since.
        answer: Of `/query`; None where nothing was asked.
    """

    since: float
    events: list[dict[str, Any]]
    fetched: list[dict[str, Any]]
    answer: dict[str, Any] | None = None

    def after(self, what: str) -> float:
        """Return how long after the act something last happened."""
        return float(max(one["at"] for one in self.events if one["what"].startswith(what))) - self.since

    def fetch(self, end: str) -> dict[str, float] | None:
        """Return when the first address that ends so was fetched, after the act: `from`, `asked` and `to`.

        None where the server did not send it: it was in the browser's cache.
        """
        found = next(one for one in self.fetched if one["path"].endswith(end))
        return {name: found[name] - self.since for name in ("from", "asked", "to")} if found["sent"] else None

    def picture(self, row: str) -> float | None:
        """Return how long after the act the picture of a row was drawn; None where it was there before."""
        times = [one["at"] for one in self.events if one["what"] == "picture" and one["row"] == row]
        return float(min(times)) - self.since if times else None


class Reader:
    """One reader at her screen.

    Args:
        page: Playwright's.
        address: The server's.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        page.goto(f"{address}/#/worklist")
        page.wait_for_selector(".worklist tbody tr")
        page.evaluate(_HOOK)

    def open(self, study: str, image: str) -> Look:
        """Click on a study in the worklist, and wait until an image of it is drawn."""
        self.page.evaluate("location.hash = '#/worklist'")
        link = self.page.locator(f'a[href*="{study}"]')
        link.wait_for()
        self.page.wait_for_timeout(300)  # the worklist's own pictures
        since = self._now()
        link.click()
        events = self.page.evaluate(_UNTIL, [f"opened {image}", since, _PATIENCE_S])
        self.page.evaluate("(image) => { window.view = window.views.get(image); }", image)
        return self._look("click", events)

    def turn_to(self, study: str, image: str) -> None:
        """Look at one image of a study, large."""
        self.page.evaluate("(address) => { location.hash = address; }", f"#/study/{study}?image={image}")
        self.page.evaluate(_UNTIL, [f"opened {image}", 0, _PATIENCE_S])
        self.page.evaluate("(image) => { window.view = window.views.get(image); return view.drawn(true); }", image)

    def draw_box(self, box: tuple[int, int, int, int]) -> Look:
        """Draw a box by the mouse, in stored pixels, and wait until the strip and its pictures are drawn."""
        page = self.page
        page.evaluate("view.setTool('box')")
        frame = page.evaluate("(({ left, top }) => ({ left, top }))(view.canvas.getBoundingClientRect())")
        ratio = page.evaluate("view.ratio")
        corners = []
        for x, y in (box[:2], box[2:]):
            place = page.evaluate("([x, y]) => view.camera.toScreen(x, y)", [x, y])
            corners.append((frame["left"] + place[0] / ratio, frame["top"] + place[1] / ratio))
        page.mouse.move(*corners[0])
        page.mouse.down()
        page.mouse.move(*corners[1], steps=3)
        return self._asked("pointerup", page.mouse.up)

    def forget_box(self) -> None:
        """Take the box away."""
        self.page.evaluate("view.element.focus()")
        self.page.keyboard.press("Delete")
        self.page.wait_for_selector(".strip:not(:has(article))", state="attached")

    def less_like(self, place: int) -> Look:
        """Say that a neighbour is not what is looked for."""
        button = self.page.locator('article[data-row] button[aria-label^="Less like"]').nth(place)
        button.scroll_into_view_if_needed()
        return self._asked("click", button.click)

    def filter(self, name: str) -> Look:
        """Tick a box of the filters, or untick it, such as `density-B`."""
        box = self.page.locator(f"#{name}")
        if not box.is_visible():
            self.page.keyboard.press("e")
        return self._asked("change", box.click)

    def gesture(self, name: str, frames: int) -> dict[str, Any]:
        """Pan, zoom or window for so many frames; return the times between them and those of drawing."""
        self.page.evaluate("view.zoomTo(1); view.drawn(true)")
        found = dict(self.page.evaluate(_GESTURE, [name, frames]))
        self.page.evaluate("view.fit(); view.drawn(true)")
        return found

    def _now(self) -> float:
        return float(self.page.evaluate("performance.now()"))

    def _asked(self, act: str, do: Callable[[], None]) -> Look:
        since = self._now()
        with self.page.expect_response("**/query", timeout=1000 * _PATIENCE_S) as answered:
            do()
        events = self.page.evaluate(_UNTIL, ["strip", since, _PATIENCE_S])
        return self._look(act, events, answered.value.json())

    def _look(self, act: str, events: list[dict[str, Any]], answer: dict[str, Any] | None = None) -> Look:
        since = next(one["at"] for one in events if one["what"] == act)
        time.sleep(0.05)  # entries of the last fetch
        fetched = self.page.evaluate(_FETCHED, since)
        return Look(since, [one for one in events if one["at"] >= since], fetched, answer)


@contextmanager
def reader_at(browser: Any, address: str, size: tuple[int, int]) -> Iterator[Reader]:
    """Yield a reader with a browser that has seen nothing yet.

    Args:
        browser: As `tests.viewer.browsing.open_browser` yields it.
        address: The server's.
        size: Of her screen in pixels.
    """
    with open_page(browser, size) as (page, _):
        page.set_default_timeout(1000 * _PATIENCE_S)
        page.add_init_script(_WATCH)
        yield Reader(page, address)
