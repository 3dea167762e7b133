"""What a reader does on the page, as steps of tests: by what she sees and names, not by how the page is made."""

import json
from typing import Any

PATIENCE = 30_000  # ms that a step may take on a machine that does much else
STUDY, LONE_STUDY = "1" * 16, "2" * 16
RIGHT_CC, LEFT_CC, RIGHT_MLO, LEFT_MLO = ("a" * 16, "b" * 16, "c" * 16, "d" * 16)
ASKED = f"#/study/{STUDY}?image={RIGHT_CC}&box=290,260,360,330&detection=d1&ask=1"


def open_at(page: Any, address: str, fragment: str = "") -> None:
    """Open the page anew at a state."""
    page.goto("about:blank")
    page.goto(f"{address}/{fragment}")


def rows(page: Any) -> list[str]:
    """Return the rows of the strip, in its order."""
    found: list[str] = page.eval_on_selector_all("article[data-row]", "cards => cards.map((card) => card.dataset.row)")
    return found


def wait_for_rows(page: Any, count: int = 10) -> list[str]:
    """Wait until an answer with so many neighbours stands there, and return their rows."""
    page.wait_for_function(
        "count => document.querySelectorAll('article[data-row]').length === count"
        " && !document.querySelector('.strip[aria-busy]')",
        arg=count,
    )
    return rows(page)


def wait_until_asked(page: Any, act: Any) -> dict[str, Any]:
    """Do something that asks, wait for the answer, and return the body that was sent."""
    with page.expect_response("**/query") as answered:
        act()
    page.wait_for_selector(".strip:not([aria-busy])")
    body: dict[str, Any] = json.loads(answered.value.request.post_data)
    return body


def wait_for_image(page: Any) -> None:
    """Wait until all images of the study are drawn."""
    page.wait_for_function("() => document.querySelector('.hanging') && !document.querySelector('.stage .waiting')")


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag by the mouse from one place of the chosen image to another; both as shares of its width and height."""
    frame = page.locator(".hanging-cell.is-selected").bounding_box()
    places = [(frame["x"] + frame["width"] * x, frame["y"] + frame["height"] * y) for x, y in (start, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move((places[0][0] + places[1][0]) / 2, (places[0][1] + places[1][1]) / 2)
    page.mouse.move(*places[1])
    page.mouse.up()


def fragment(page: Any) -> str:
    """Return the state in the address bar."""
    text: str = page.evaluate("location.hash")
    return text
