"""Who can use the page: an automated check of each view, a walk by the keyboard alone, and the sizes of screens."""

from typing import Any

import pytest

from tests.viewer.browsing import LAPTOP, PORTRAIT, open_page
from tests.viewer.pagesteps import (
    ASKED,
    PATIENCE,
    STUDY,
    fragment,
    open_at,
    rows,
    wait_for_image,
    wait_for_rows,
    wait_until_asked,
)
from tests.viewer.stubapi import Stub

ENLARGED = (320, 640)  # of 1280 × 1024, four times enlarged
SIZES = (LAPTOP, PORTRAIT, (1024, 768), (768, 1024), ENLARGED)

VIEWS = {
    "worklist": "#/worklist",
    "study": f"#/study/{STUDY}",
    "answer": ASKED,
    "facing rows": f"{ASKED}&two=1&density=A,B&down=row-1",
    "comparison": f"{ASKED}&compare=row-1",
    "collection": "#/collection",
}

OVERFLOW = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"

SMALL_TARGETS = """() => [...document.querySelectorAll("button, a, select, input, summary")].filter((one) => {
  const box = (one.type === "radio" && one.labels?.[0] || one).getBoundingClientRect();
  const shown = one.checkVisibility({ visibilityProperty: true }) && box.width > 2 && !one.closest(".picture-marks");
  return shown && !one.matches(".skip, input[type=checkbox], input[type=radio]") && (box.width < 24 || box.height < 24)
    && getComputedStyle(one).display !== "inline";
}).map((one) => one.outerHTML)"""


@pytest.fixture(scope="module")
def axe() -> Any:
    module = pytest.importorskip("axe_playwright_python.sync_playwright", reason="install mammoseek[dev] for axe")
    return module.Axe()


def check(page: Any, axe: Any, view: str) -> None:
    """Fail where axe finds something serious or critical on what the page shows."""
    found = axe.run(page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    told = [f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes'][:4]]}" for one in grave]
    assert not told, f"{view}: {told}"


def settle(page: Any) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => !document.querySelector('.waiting')")


def test_every_view_passes_axe(browser: Any, stub: Stub, axe: Any) -> None:
    with open_page(browser) as (page, _):
        page.set_default_timeout(PATIENCE)
        for view, address in VIEWS.items():
            open_at(page, stub.address, address)
            settle(page)
            if view == "answer":
                page.keyboard.press("o")
                page.locator(".sentences").wait_for()
                page.keyboard.press("e")
                page.keyboard.press("Escape")
                page.evaluate("document.activeElement.blur()")
                page.keyboard.press("d")
            check(page, axe, view)
            if view == "worklist":
                page.keyboard.press("?")
                page.get_by_role("dialog").wait_for()
                check(page, axe, "keys")
        for path in ("api", "login.html"):
            page.goto(f"{stub.address}/{path}")
            settle(page)
            check(page, axe, path)


def test_failures_and_refusals_pass_axe_too(browser: Any, stub: Stub, axe: Any) -> None:
    stub.no_precedent = True
    stub.failures = {"/opinion": [500], "/collection": [500]}
    with open_page(browser, expect_errors=True) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address, ASKED)
        wait_for_rows(page)
        page.keyboard.press("o")
        page.get_by_role("alert").wait_for()
        check(page, axe, "failed opinion")
        open_at(page, stub.address, "#/collection")
        page.get_by_role("alert").wait_for()
        check(page, axe, "failed collection")


def press_until(page: Any, key: str, wanted: str, most: int = 80) -> None:
    """Press a key until the focus is on an element that fits a selector."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"{key} does not reach {wanted}")


def test_the_keyboard_alone_reads_a_study(browser: Any, stub: Stub) -> None:
    with open_page(browser) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address)
        page.wait_for_selector("tbody tr")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        assert fragment(page) == ""  # the fragment is the page's state
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        wait_for_image(page)

        page.keyboard.press("b")  # a box by keys: Enter begins, arrows place it, Shift and arrows size it
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        body = wait_until_asked(page, lambda: page.keyboard.press("Shift+ArrowDown"))
        assert body["image"] == "a" * 16
        wait_for_rows(page)
        assert "ask=1" in fragment(page)

        press_until(page, "Tab", "aside button, section.answers button")
        press_until(page, "j", "article[data-row=row-1]", 4)
        body = wait_until_asked(page, lambda: page.keyboard.press("x"))
        assert body["negative"] == ["row-1"]
        assert "row-1" not in rows(page)
        page.keyboard.press("e")
        press_until(page, "Tab", "#density-B", 12)
        assert wait_until_asked(page, lambda: page.keyboard.press("Space"))["filters"]["density"] == ["B"]
        page.keyboard.press("o")
        page.locator(".sentences").wait_for()
        page.keyboard.press("j")
        page.keyboard.press("c")
        page.get_by_role("heading", name="Compare").wait_for()
        page.keyboard.press("Escape")
        page.keyboard.press("d")
        assert page.evaluate("document.activeElement.name") == "birads"
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        press_until(page, "Tab", "#verdict-text", 4)
        page.keyboard.type("by keys alone: t, o and ? are letters here")
        page.keyboard.press("Control+Enter")
        page.locator("ol.verdicts li b").get_by_text("BI-RADS 3").wait_for()
        assert stub.verdicts[0]["text"].endswith("? are letters here")
        press_until(page, "Shift+Tab", "summary", 20)
        page.keyboard.press("Enter")
        page.keyboard.press("z")  # compares again
        page.get_by_role("heading", name="Compare").wait_for()
        page.keyboard.press("z")  # does not
        page.get_by_role("toolbar").wait_for()
        wait_until_asked(page, lambda: page.keyboard.press("z"))
        assert "density" not in fragment(page)
        page.keyboard.press("u")
        page.wait_for_selector("tbody tr")
        page.get_by_text("decided").first.wait_for()


def test_nothing_traps_the_focus(browser: Any, stub: Stub) -> None:
    with open_page(browser) as (page, _):
        page.set_default_timeout(PATIENCE)
        for address in (ASKED, f"{ASKED}&two=1&compare=row-1"):
            open_at(page, stub.address, address)
            settle(page)
            reached = page.evaluate("document.body.outerHTML.length") and []
            for _ in range(150):
                page.keyboard.press("Tab")
                reached.append(page.evaluate("document.activeElement === document.body || document.activeElement.id"))
                if len(reached) > 2 and reached[-1] in ("skip", True):
                    break
            assert reached[-1] in ("skip", True), "the focus does not come round"


def test_keys_are_listed_and_letters_can_be_switched_off(browser: Any, stub: Stub) -> None:
    with open_page(browser) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address, ASKED)
        wait_for_rows(page)
        page.keyboard.press("?")
        dialog = page.get_by_role("dialog", name="Keys")
        said = dialog.inner_text()
        for does in (
            "Draw a box round a finding and ask",
            "Undo the last step",
            "Decide",
            "Add the other view",
            "Less like it",
        ):
            assert does in said
        page.keyboard.press("t")  # letters do nothing behind the dialog
        assert "two=1" not in fragment(page)
        dialog.get_by_label("Single letters and digits are keys").uncheck()
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("t")
        assert "two=1" not in fragment(page)
        page.get_by_role("button", name="Keys").click()
        dialog.get_by_label("Single letters and digits are keys").check()
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        assert wait_until_asked(page, lambda: page.keyboard.press("t"))["two_rows"] is True
        for name in ("Box", "Undo", "Filters"):
            title = page.get_by_role("button", name=name, exact=True).get_attribute("title")
            assert "key: " in title


def test_a_long_name_without_a_break_leaves_the_other_columns_on_the_screen(browser: Any, stub: Stub) -> None:
    def lengthen(route: Any) -> None:
        answer = route.fetch().json()
        answer["studies"][0].update(woman="W" * 240, name="N" * 240)
        route.fulfill(json=answer)

    with open_page(browser, LAPTOP) as (page, _):
        page.set_default_timeout(PATIENCE)
        page.route("**/studies?*", lengthen)
        open_at(page, stub.address)
        page.wait_for_selector("tbody tr")
        for part in (".scrolling", ".preview"):
            assert page.locator(part).evaluate("one => one.scrollWidth - one.clientWidth") <= 0, part
        assert page.evaluate(OVERFLOW) <= 0


def test_every_view_fits_every_screen(browser: Any, stub: Stub) -> None:
    with open_page(browser, has_touch=True) as (page, _):
        page.set_default_timeout(PATIENCE)
        for view, address in VIEWS.items():
            open_at(page, stub.address, address)
            settle(page)
            for size in SIZES:
                page.set_viewport_size({"width": size[0], "height": size[1]})
                page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
                assert page.evaluate(OVERFLOW) <= 0, f"{view} is wider than {size}"
                assert page.evaluate(SMALL_TARGETS) == [], f"{view} at {size}"
                if view in ("study", "answer") and size != ENLARGED:
                    image = page.locator(".hanging").bounding_box()
                    assert image["height"] > 0.3 * size[1], f"{view} at {size}"
                    assert image["y"] + image["height"] <= size[1] + 1, f"{view} at {size}"
                    assert page.locator(".decide > summary").is_visible()
