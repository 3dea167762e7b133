"""The page against an invented server: comparing, deciding, looking after the collection, logging in."""

import re
from typing import Any

from tests.viewer.browsing import open_page
from tests.viewer.pagesteps import (
    ASKED,
    PATIENCE,
    STUDY,
    fragment,
    open_at,
    wait_for_image,
    wait_for_rows,
    wait_until_asked,
)
from tests.viewer.stubapi import Stub


def test_a_neighbour_is_compared_at_the_same_scale_with_its_facts_and_other_views(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, ASKED)
    wait_for_rows(page)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("c")
    page.get_by_role("heading", name="Compare").wait_for()
    assert fragment(page).endswith("&compare=row-1")
    compare = page.locator("div.compare")
    compare.locator(".pair .picture").nth(1).wait_for()
    said = compare.locator(".facts").inner_text()
    assert re.search(r"Margin\s+spiculated", said)
    assert "Similarity" in said
    assert compare.locator("figcaption").nth(1).inner_text().split() == ["benign", "woman", "2"]
    assert page.get_by_role("button", name="Linked").get_attribute("aria-pressed") == "true"
    page.wait_for_load_state("networkidle")
    first, second = (f"() => document.querySelectorAll('.pair .picture-bar')[{at}].textContent" for at in (0, 1))
    assert page.evaluate(first) == page.evaluate(second) == "10 mm"
    page.keyboard.press("j")
    page.wait_for_function("() => location.hash.endsWith('&compare=row-2')")
    page.get_by_role("button", name="CC", exact=True).or_(page.get_by_role("button", name="R MLO")).first.click()
    page.wait_for_function("() => location.hash.endsWith('&compare=row-3')")
    page.get_by_role("button", name="Whole images").click()
    page.wait_for_function("() => document.querySelectorAll('.pair [aria-roledescription=mammogram]').length === 2")
    page.reload()
    page.get_by_role("heading", name="Compare").wait_for()
    wait_for_rows(page)
    page.keyboard.press("Escape")
    wait_for_image(page)
    assert "compare" not in fragment(page)
    assert page.locator("div.stage").is_visible()


def test_a_neighbour_becomes_the_question_and_the_finding_comes_back(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, f"{ASKED}&down=row-4&compare=row-2")
    wait_for_rows(page)
    body = wait_until_asked(page, lambda: page.get_by_role("button", name="Ask with this case").click())
    assert body["row"] == "row-2"
    assert "image" not in body
    assert body["negative"] == body["further"] == []
    page.locator(".card.question").get_by_text("The case asked with").wait_for()
    assert stub.bodies("/query")[-1] == body
    back = page.get_by_role("button", name="Remove: asked with a case of the gallery")
    assert wait_until_asked(page, lambda: back.click())["box"] == [290, 260, 360, 330]
    page.locator(".card.question").get_by_text("Your finding").wait_for()


def test_a_verdict_is_recorded_once_taken_back_and_listed(browser: Any, stub: Stub) -> None:
    stub.failures["/verdicts"] = []
    with open_page(browser, expect_errors=True) as (page, _):
        page.set_default_timeout(PATIENCE)
        open_at(page, stub.address, ASKED)
        wait_for_rows(page)
        page.keyboard.press("d")
        page.get_by_text("Nothing yet.").wait_for()
        page.get_by_role("button", name="Record").click()
        page.get_by_text("Say something: a BI-RADS grade").wait_for()
        page.get_by_role("radio", name="4B").check(force=True)
        page.locator("p.meaning").get_by_text("4B: moderate suspicion").wait_for()
        page.get_by_label("reject").check()
        page.get_by_label("In your words").fill("<b>round</b>, sharp margin")
        stub.failures["/verdicts"] = [500]
        page.get_by_role("button", name="Record").click()
        page.get_by_text("Server: something broke; try again.").wait_for()
        assert page.get_by_label("In your words").input_value() == "<b>round</b>, sharp margin"
        page.get_by_role("button", name="Try again").click()
        entry = page.locator("ol.verdicts li").first
        entry.get_by_text("BI-RADS 4B, detection rejected").wait_for()
        assert "<b>round</b>, sharp margin" in entry.inner_text()
        assert "dr-may" in entry.inner_text()
        first, second = stub.bodies("/verdicts")
        assert first["key"] == second["key"]
        assert {name: second[name] for name in ("study", "detection", "birads", "decision")} == {
            "study": STUDY, "detection": "d1", "birads": "4B", "decision": "reject",
        }  # fmt: skip
        assert second["question"] == stub.bodies("/query")[-1]
        assert page.get_by_label("In your words").input_value() == ""
        page.get_by_role("button", name="Take back").click()
        page.get_by_text("(taken back)").wait_for()
        assert stub.bodies("/verdicts")[-1]["undoes"] == stub.verdicts[0]["id"]
        assert stub.bodies("/verdicts")[-1]["key"] != first["key"]
        assert page.locator("ol.verdicts li").count() == 2
        with page.expect_download() as table:
            page.get_by_role("button", name="CSV").click()
        assert table.value.suggested_filename == f"verdicts-{STUDY}.csv"
        page.get_by_role("button", name="DICOM SR").click()
        page.get_by_text("Report: the images are no DICOM of one study; download the CSV instead.").wait_for()


def test_the_collection_page_shows_what_it_holds_and_what_to_curate(page: Any, stub: Stub) -> None:
    open_at(page, stub.address, "#/collection")
    page.get_by_role("heading", name="Rows to curate").wait_for()
    said = page.locator("main").inner_text()
    assert re.search(r"malignant\s+51\s+49 women", said)
    assert re.search(r"pathology\s+retrieval\s+P@10\s+0.56\s+0.51 to 0.61", said)
    assert re.search(r"2024-03\s+41\s+0.710\s+7 %", said)
    assert "benign; its neighbours: 9 malignant" in said
    assert "This is still being worked out" in said
    page.wait_for_function("() => document.querySelectorAll('.curated .picture').length === 3")
    page.get_by_role("button", name="Verify and show the log").click()
    page.get_by_text("The chain is intact; its head is ab12.").wait_for()


def test_readers_see_no_collection(page: Any, stub: Stub) -> None:
    stub.role = "reader"
    open_at(page, stub.address)
    page.wait_for_selector("tbody tr")
    assert page.get_by_role("link", name="Collection").count() == 0


def test_who_is_not_logged_in_comes_back_to_the_question_after_the_login(browser: Any, stub: Stub) -> None:
    stub.token = "secret"
    with open_page(browser, expect_errors=True) as (page, watch):
        page.set_default_timeout(PATIENCE)
        # The page itself is served here; the real server answers with the login in its place.
        page.goto(f"{stub.address}/login.html#{ASKED.replace('#', '%23')}")
        page.get_by_label("Your token").fill("wrong")
        page.keyboard.press("Enter")
        page.get_by_text("it is not known").wait_for()
        page.get_by_label("Your token").fill("secret")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/{ASKED}")
        wait_for_rows(page)
        assert not any("box=" in address.split("#")[0] for address in watch.requests if "/crop" not in address)
        stub.token = "another"
        page.keyboard.press("t")
        page.wait_for_url("**/login.html#*")
        stub.token = "secret"
        open_at(page, stub.address)
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login.html")


def test_the_api_page_lists_what_programs_can_ask(page: Any, stub: Stub) -> None:
    page.goto(f"{stub.address}/api")
    page.get_by_text("/query").click()
    page.get_by_text("Find similar findings.").wait_for()
    assert page.locator("pre").first.inner_text() == '{\n  "k": integer\n}'
