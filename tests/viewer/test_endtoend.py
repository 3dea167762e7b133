"""`mammoseek serve` and the page in a real browser, end to end: on mini-MIAS films and on full-size DICOM files.

The gallery holds findings of 26 women of mini-MIAS, embedded by a network that was never trained: what is shown is that
all parts work together, not what is retrieved. Whole breasts are asked about in the gallery that comes with mammoseek.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedder.datasets.minimias import read_mini_mias
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from tests.viewer.browsing import open_page
from tests.viewer.pagesteps import drag, fragment, open_at, rows, wait_for_image, wait_until_asked
from tests.viewer.readingroom import fill_gallery

PATIENCE = 120_000  # ms: classifiers are fitted when the first opinion is asked for
ROOT = Path(__file__).resolve().parents[2]
WOMEN = 26


@dataclass(frozen=True)
class Served:
    """A running `mammoseek serve`: its address, and a film with a detection."""

    address: str
    woman: str


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[str]:
    """Run `mammoseek serve` on a free port, and yield its address."""
    command = [sys.executable, "-m", "cli", "serve", *map(str, arguments), "--port", "0", "--reader", "dr-may"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            told: list[str] = []
            for line in process.stdout:
                told.append(line)
                if line.startswith("Serving at "):
                    break
            assert told, "the server said nothing"
            assert told[-1].startswith("Serving at "), "".join(told)
            yield told[-1].split()[2].rstrip("/")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def served(
    mini_mias: Path,
    cbis_dicom: list[Path],
    tiny_network: NetworkConfig,
    tiny_preparation: PreparationConfig,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("endtoend")
    frame = read_mini_mias(mini_mias).frame
    findings = frame[frame["granularity"] == "finding"]
    women = findings["patient_id"].drop_duplicates().iloc[: WOMEN + 1].tolist()
    gallery = fill_gallery(folder, findings[findings["patient_id"].isin(women[:WOMEN])], tiny_network, tiny_preparation)
    asked = findings[findings["patient_id"] == women[WOMEN]].iloc[0]
    films, table = folder / "films", folder / "detections.csv"
    films.mkdir()
    film = films / Path(asked["path"]).name
    film.symlink_to(asked["path"])
    box = ",".join(str(int(asked[corner])) for corner in ("x0", "y0", "x1", "y1"))
    table.write_text(
        "detection_id,image,dataset,patient_id,laterality,view,spacing_mm,x0,y0,x1,y1,score,lesion_type\n"
        f"d1,{film},mini-mias,{asked['patient_id']},{asked['laterality']},MLO,0.2,{box},0.8,mass\n"
    )
    dicom = cbis_dicom[0].parents[1]
    state = folder / "state"
    with serving(gallery, "--images", films, "--images", dicom, "--detections", table, "--state", state) as address:
        yield Served(address, str(asked["patient_id"]))


@pytest.fixture
def page(browser: Any, served: Served) -> Iterator[Any]:
    # A server that still fits its classifiers says that it is busy, which browsers log.
    with open_page(browser, expect_errors=True) as (opened, watch):
        opened.set_default_timeout(PATIENCE)
        yield opened
        assert not [error for error in watch.errors if "503" not in error]


def open_study(page: Any, address: str, woman: str) -> None:
    """Search the worklist for a woman and open her study."""
    open_at(page, address)
    page.wait_for_selector("tbody tr")
    page.get_by_label("Search").fill(woman)
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 1")
    page.locator("tbody a").click()
    wait_for_image(page)


def read_to_the_end(page: Any, address: str) -> None:
    """Steer, reveal, compare and decide on what was asked; then open the address anew and find it all again."""
    first = rows(page)
    women = page.eval_on_selector_all(
        "article[data-row]", "all => all.map((one) => one.ariaLabel.split(',')[0].split(': ')[1])"
    )
    assert len(first) == 10
    assert len(set(women)) == 10  # one of each woman
    assert page.locator(".precedent").inner_text() != ""

    page.keyboard.press("e")
    body = wait_until_asked(page, lambda: page.get_by_label("fatty", exact=True).check())
    assert body["filters"]["density"] == ["fatty"]
    cards = page.locator("article[data-row] .words")
    assert all("density fatty" in words for words in cards.all_inner_texts())
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")

    disliked = rows(page)[0]
    body = wait_until_asked(page, lambda: page.get_by_role("button", name="Less like").first.click())
    assert body["negative"] == [disliked]
    steered = rows(page)
    assert steered[:1] != [disliked]

    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("o")
    page.locator(".sentences").wait_for()
    assert "Pathology: " in page.locator(".sentences").inner_text()
    assert "women" in page.locator(".sentences").inner_text()

    page.get_by_role("button", name="Compare woman").first.click()
    page.get_by_role("heading", name="Compare").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.pair .picture').length === 2")
    assert "Density" in page.locator(".facts").inner_text()

    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("d")
    page.get_by_role("radio", name="4A").check(force=True)
    page.get_by_label("In your words").fill("seen <i>end</i> to end")
    page.get_by_role("button", name="Record").click()
    page.locator("ol.verdicts li b").get_by_text("BI-RADS 4A").first.wait_for()
    page.wait_for_load_state("networkidle")

    state = fragment(page)
    open_at(page, address, state)  # as a colleague would who got the address
    page.get_by_role("heading", name="Compare").wait_for()
    page.wait_for_function("count => document.querySelectorAll('article[data-row]').length === count", arg=len(steered))
    assert rows(page) == steered
    assert fragment(page) == state
    assert page.locator(".sentences").count() == 0  # she is not anchored
    page.keyboard.press("d")
    page.locator("ol.verdicts li").first.get_by_text("seen <i>end</i> to end").wait_for()
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    page.wait_for_function("() => !location.hash.includes('compare')")


def audited(page: Any, address: str) -> dict[str, Any]:
    """Return what the audit log says, verified."""
    told: dict[str, Any] = json.loads(page.request.get(f"{address}/audit").text())
    assert told["intact"] is True
    return told


def test_a_detection_on_a_film_is_read_from_the_worklist_to_the_verdict(page: Any, served: Served) -> None:
    open_study(page, served.address, served.woman)
    body = wait_until_asked(page, lambda: page.keyboard.press("n"))
    assert "detection=" in fragment(page)
    read_to_the_end(page, served.address)
    actions = {entry["action"] for entry in audited(page, served.address)["entries"]}
    assert {"query", "opinion", "verdict", "row opened", "study seen"} <= actions
    assert body["image"] in fragment(page)


def test_a_box_on_a_full_size_dicom_file_is_read_to_the_verdict(page: Any, served: Served) -> None:
    open_study(page, served.address, "P_00820")
    page.wait_for_function("() => document.querySelectorAll('.hanging-cell').length === 4")
    page.keyboard.press("]")
    page.wait_for_function("() => document.querySelector('.hanging').dataset.layout === 'one'")
    page.keyboard.press("b")
    body = wait_until_asked(page, lambda: drag(page, (0.55, 0.45), (0.75, 0.6)))
    x0, y0, x1, y1 = body["box"]
    assert 0 <= x0 < x1 <= 2624
    assert 0 <= y0 < y1 <= 4736
    read_to_the_end(page, served.address)
    page.keyboard.press("u")
    page.wait_for_selector("tbody tr")
    page.get_by_role("button", name="Decided").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('tbody a')].some((one) => one.textContent === 'P_00820')"
    )


def test_whole_breasts_are_asked_about_without_a_box(browser: Any, cbis_dicom: list[Path], tmp_path: Path) -> None:
    starter, dicom = ROOT / "starter" / "breast", cbis_dicom[0].parents[1]
    with (
        serving(starter, "--images", dicom, "--state", tmp_path / "state") as address,
        open_page(browser, expect_errors=True) as (page, watch),
    ):
        page.set_default_timeout(PATIENCE)
        open_study(page, address, "P_00820")
        page.get_by_role("button", name="Ask about this image").wait_for()
        body = wait_until_asked(page, lambda: page.keyboard.press("a"))
        assert body["box"] is None
        assert len(rows(page)) == 10
        page.locator(".card.question").get_by_text("Your image").wait_for()
        before = rows(page)
        page.keyboard.press("b")
        drag(page, (0.55, 0.45), (0.75, 0.6))  # a place to decide about: the question stays the same
        page.wait_for_function("() => location.hash.includes('box=')")
        assert rows(page) == before
        body = wait_until_asked(page, lambda: page.keyboard.press("v"))  # the other view of the same breast
        assert [one["box"] for one in body["further"]] == [None]
        assert "box=" in fragment(page)
        state, asked = fragment(page), rows(page)
        page.keyboard.press("o")
        page.locator(".sentences").get_by_text("Density: ").wait_for()
        page.keyboard.press("c")  # with the nearest, where none has the focus
        page.get_by_role("heading", name="Compare").wait_for()
        open_at(page, address, state)
        page.wait_for_function("() => document.querySelectorAll('article[data-row]').length === 10")
        assert rows(page) == asked
        assert not [error for error in watch.errors if "503" not in error]
