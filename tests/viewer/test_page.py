"""The page against an invented server: looking, asking, steering, and the way back."""

import re
from typing import Any

from tests.viewer.browsing import open_page
from tests.viewer.pagesteps import (
    ASKED,
    LEFT_CC,
    LONE_STUDY,
    PATIENCE,
    RIGHT_CC,
    RIGHT_MLO,
    STUDY,
    drag,
    fragment,
    open_at,
    rows,
    wait_for_image,
    wait_for_rows,
    wait_until_asked,
)
from tests.viewer.stubapi import Stub
from tests.viewer.stubcollection import SCRIPT


def test_the_worklist_shows_studies_and_their_pictures_and_opens_one(page: Any, stub: Stub) -> None:
    open_at(page, stub.address)
    page.wait_for_selector("tbody tr")
    assert page.locator("tbody tr").count() == 2
    first = page.locator("tbody tr").first
    assert SCRIPT in first.inner_text()  # a name stays text
    first.hover()
    page.wait_for_function("() => document.querySelectorAll('.preview canvas').length === 4")
    page.wait_for_function("() => [...document.querySelectorAll('.preview canvas')].every((one) => one.width > 100)")
    assert page.locator(".preview figcaption").all_inner_texts() == ["R CC", "L CC", "R MLO", "L MLO"]
    first.get_by_role("link").click()
    wait_for_image(page)
    assert fragment(page) == f"#/study/{STUDY}"
    page.wait_for_function("() => document.querySelectorAll('.hanging-cell').length === 4")
    page.go_back()
    page.wait_for_selector("tbody tr")
    page.get_by_label("Search").fill("woman b")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    assert fragment(page) == "#/worklist?search=woman%20b"
    page.get_by_role("button", name="Decided").click()
    page.get_by_text("No study fits this search.").wait_for()
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")


def test_what_was_looked_at_is_told_and_a_study_of_one_image_opens_it(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, f"#/study/{LONE_STUDY}")
    wait_for_image(page)
    page.get_by_text("Draw a box round a finding").wait_for()
    assert stub.seen == ["e" * 16]
    assert page.get_by_role("button", name="All", exact=True).count() == 0


def test_a_drawn_box_asks_and_the_strip_shows_one_scale_and_outcomes_in_words(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, f"#/study/{STUDY}?image={RIGHT_CC}")
    wait_for_image(page)
    page.keyboard.press("b")
    body = wait_until_asked(page, lambda: drag(page, (0.55, 0.35), (0.7, 0.5)))
    assert body["image"] == RIGHT_CC
    x0, y0, x1, y1 = body["box"]
    assert 0 <= x0 < x1 <= 480
    assert 0 <= y0 < y1 <= 640
    assert f"box={x0},{y0},{x1},{y1}&ask=1" in fragment(page)
    assert wait_for_rows(page) == [f"row-{at}" for at in range(10)]
    page.wait_for_load_state("networkidle")
    crops = [path for _, path, _ in stub.asked if path.endswith("/crop")]
    assert f"/images/{RIGHT_CC}/crop" in crops
    assert len(crops) == 10  # nine neighbours have a picture, and the query
    card = page.locator("article[data-row=row-0]")
    assert re.search(r"malignant\s+1\s+mass\s+6.5 mm · age 41 · density A · CC", card.inner_text())
    assert card.locator("svg.form.malignant").count() == 1
    assert "atypical look" in page.locator("article[data-row=row-3]").inner_text()
    assert "no picture kept" in page.locator("article[data-row=row-7]").inner_text()
    assert not re.search(r"0\.\d\d", page.locator(".strip").inner_text())  # no similarity, no probability
    page.locator(".precedent", has_text="The nearest is closer").wait_for()


def test_a_picked_detection_asks_and_a_second_question_takes_the_place_of_the_first(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, f"#/study/{STUDY}")
    wait_for_image(page)
    assert wait_until_asked(page, lambda: page.keyboard.press("n"))["box"] == [290, 260, 360, 330]
    assert f"image={RIGHT_CC}" in fragment(page)
    release = stub.hold("/query")
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.wait_for_function("() => location.hash.includes('detection=d3')")
    release.set()
    wait_for_rows(page)
    assert f"image={RIGHT_MLO}" in fragment(page)
    assert stub.bodies("/query")[-1]["box"] == [280, 400, 330, 440]


def test_progress_is_said_in_words(page: Any, stub: Stub) -> None:
    release = stub.hold("/query")
    stub.queue = {"waiting": 4, "running": 1, "capacity": 32}
    open_at(page, stub.address, ASKED)
    page.locator(".says").get_by_text("Waiting behind 3 …").wait_for()
    stub.queue = {"waiting": 0, "running": 1, "capacity": 32}
    page.locator(".says").get_by_text("Reading the film …").wait_for()
    release.set()
    wait_for_rows(page)


def test_a_busy_server_is_asked_again(browser: Any, stub: Stub) -> None:
    stub.failures["/query"] = [503]
    with open_page(browser, expect_errors=True) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address, ASKED)
        page.get_by_text("The server is busy; asking again in 1 s").wait_for()
        wait_for_rows(page)
    assert len(stub.bodies("/query")) == 2


def test_failures_are_one_sentence_with_a_remedy_and_can_be_tried_again(browser: Any, stub: Stub) -> None:
    stub.failures = {"/query": [500], "/session": [500], f"/studies/{STUDY}": [500]}
    with open_page(browser, expect_errors=True) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address, ASKED)
        for _ in range(3):
            page.get_by_text("Server: something broke; try again.").wait_for()
            page.get_by_role("button", name="Try again").click()
        wait_for_rows(page)
        open_at(page, stub.address, "#/study/ffffffffffffffff")
        page.get_by_text("Study: it is not known here; go back to the worklist.").wait_for()
        page.get_by_role("link", name="Back to the worklist").click()
        page.wait_for_selector("tbody tr")


def test_no_close_precedent_is_said_above_the_strip(page: Any, stub: Stub) -> None:
    stub.no_precedent = True
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    said = page.locator(".precedent.far")
    assert said.inner_text().startswith("No close precedent. The nearest of these findings")
    assert said.bounding_box()["y"] < page.locator(".strip").bounding_box()["y"]


def test_steering_narrows_moves_and_is_undone_step_by_step(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    start = wait_for_rows(page)
    page.keyboard.press("e")
    body = wait_until_asked(page, lambda: page.get_by_label("B", exact=True).check())
    assert body["filters"]["density"] == ["B"]
    narrowed = wait_for_rows(page, 6)
    assert fragment(page).endswith("ask=1&density=B")
    body = wait_until_asked(page, lambda: page.get_by_label("typical only").check())
    assert body["typical"] is True
    body = wait_until_asked(page, lambda: page.get_by_label("margin").press("ArrowRight"))
    assert body["facets"] == [{"column": "margin", "weight": 0.075, "value": None}]
    page.get_by_label("Youngest").fill("50")
    body = wait_until_asked(page, lambda: page.get_by_label("Oldest").press("Tab"))
    assert body["filters"]["age"] == [50, 150]
    first = rows(page)[0]
    body = wait_until_asked(page, lambda: page.get_by_role("button", name="Less like").first.click())
    assert body["negative"] == [first]
    assert rows(page)[-1] == first
    chips = page.locator(".chips button").all_inner_texts()
    assert chips[:4] == ["density B ×", "age 50 to 150 ×", "typical only ×", "margin should match ×"]
    assert chips[4].startswith("less like woman")

    page.reload()
    wait_for_rows(page, 4)
    assert rows(page)[-1] == first
    for _ in range(4):
        wait_until_asked(page, lambda: page.keyboard.press("z"))
    assert wait_for_rows(page, 6) == narrowed
    page.go_back()  # the browser's own button does the same
    assert wait_for_rows(page) == start
    assert page.get_by_role("button", name="Undo").is_disabled()
    wait_until_asked(page, lambda: page.keyboard.press("Shift+Z"))
    assert fragment(page).endswith("&density=B")
    wait_until_asked(page, lambda: page.get_by_role("button", name="Remove: density B").click())
    assert wait_for_rows(page) == start


def test_filters_that_leave_nobody_offer_a_way_out(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, f"{ASKED}&age=1-2")
    page.get_by_text("No finding may answer under these filters.").wait_for()
    wait_until_asked(page, lambda: page.get_by_role("button", name="Remove all filters").click())
    wait_for_rows(page)


def test_benign_and_malignant_findings_face_each_other(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    assert wait_until_asked(page, lambda: page.keyboard.press("t"))["two_rows"] is True
    wait_for_rows(page, 16)
    benign, malignant = page.locator("section.row").all()
    assert "nearest 10 of 12 findings" in benign.inner_text()
    assert benign.locator("svg.form.malignant").count() == 0
    assert malignant.locator("svg.form.benign").count() == 0
    assert benign.bounding_box()["y"] < malignant.bounding_box()["y"]


def test_cards_that_stay_keep_their_picture(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    page.wait_for_load_state("networkidle")
    before = sum(path.endswith("/crop") for _, path, _ in stub.asked)
    wait_until_asked(
        page, lambda: page.locator("article[data-row=row-2]").get_by_role("button", name="Less like").click()
    )
    wait_for_rows(page)
    page.wait_for_load_state("networkidle")
    assert sum(path.endswith("/crop") for _, path, _ in stub.asked) == before + 1  # the row that came in


def test_the_other_view_of_the_finding_joins_the_question(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    wait_for_image(page)
    page.keyboard.press("v")
    page.get_by_text("Draw a box round the same finding on this view").wait_for()
    assert f"show={RIGHT_MLO}" in fragment(page)
    body = wait_until_asked(page, lambda: drag(page, (0.55, 0.35), (0.7, 0.5)))
    assert body["image"] == RIGHT_CC
    assert [view["image"] for view in body["further"]] == [RIGHT_MLO]
    assert page.get_by_role("button", name="Remove: with R MLO").is_visible()
    page.keyboard.press("v")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.hash.includes('show=')")


def test_another_image_can_be_looked_at_without_losing_the_answer(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    wait_for_image(page)
    asked = len(stub.bodies("/query"))
    page.keyboard.press("]")
    page.wait_for_function(f"() => location.hash.includes('show={LEFT_CC}')")
    assert page.locator(".hanging-cell.is-selected").get_attribute("aria-label") == "Mammogram: Left breast, CC"
    page.keyboard.press("g")
    page.wait_for_function("() => document.querySelector('.hanging').dataset.layout === 'all'")
    assert "show=all" in fragment(page)
    assert len(stub.bodies("/query")) == asked
    assert len(rows(page)) == 10


def test_the_opinion_waits_until_it_is_asked_for_and_leaves_with_its_question(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    assert stub.bodies("/opinion") == []
    assert "7 of 10" not in page.locator("main").inner_text()
    page.keyboard.press("o")
    said = page.locator(".sentences")
    said.wait_for()
    assert said.inner_text() == ("7 of 10 were malignant, from 10 women; calibrated 0.62, 95 % interval 0.50 to 0.74")
    assert page.get_by_role("img", name="7 malignant, 3 benign").is_visible()
    assert stub.bodies("/opinion") == [stub.bodies("/query")[-1]]
    wait_until_asked(
        page, lambda: page.locator("article[data-row=row-0]").get_by_role("button", name="More like").click()
    )
    page.get_by_role("button", name="Show how they turned out, counted").wait_for()
    assert page.locator(".sentences").count() == 0


def test_a_site_can_show_opinions_at_once(page: Any, stub: Stub) -> None:
    stub.opinion_hidden = False
    open_at(page, stub.address, ASKED)
    page.locator(".sentences").wait_for()
    assert page.get_by_role("button", name="Hide again").count() == 0


def test_the_window_is_part_of_the_address(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    wait_for_image(page)
    page.get_by_label("Window preset").select_option("dense")
    page.wait_for_function("() => location.hash.includes('ww=30000&wc=36000')")
    page.reload()
    wait_for_image(page)
    page.get_by_text("W 30000  C 36000").wait_for()


STATES = (
    "#/worklist",
    "#/worklist?search=a%26b%3Dc&state=new&sort=date&offset=50",
    "#/collection",
    f"{ASKED}&k=20&density=A,B&view=CC&lesion=mass,architectural%20distortion&dataset=x%2Cy&age=40-60&typical=1&two=1"
    f"&margin=0.1&size=0.3&like_density=0.05&up=r1,r%2C2&down=r3&further={RIGHT_MLO}:1,2,3,4&compare=r1&ww=100&wc=-5",
    "#/study/s?row=row%2F1&ask=1",
)


def test_addresses_say_the_whole_state_and_survive_what_is_broken(page: Any, stub: Stub) -> None:
    open_at(page, stub.address)
    page.wait_for_selector("tbody tr")
    format_of = """async (hash) => {
      const { parse, format } = await import("/static/state.js");
      return format(parse(hash));
    }"""
    for state in STATES:
        assert page.evaluate(format_of, state) == state
    broken = "#/study/s?box=5,5,1,1&age=60-40&ww=-3&wc=1&margin=7&k=0&further=:1,2,3,4;x:1&up=%E0%A4%A&nonsense&=&two=2"
    assert page.evaluate(format_of, broken) == "#/study/s"
    for lost in ("#/<script>", "#/study", "#/study/", "#/study/%E0%A4%A", "#/study/..", "#/study/%2E"):
        assert page.evaluate(format_of, lost) == "#/worklist"


def test_an_address_that_names_no_study_shows_the_worklist(page: Any, stub: Stub) -> None:
    for lost in ("#/study/%E0%A4%A", "#/study/%2E%2E"):
        open_at(page, stub.address, lost)
        page.wait_for_selector("tbody tr")
