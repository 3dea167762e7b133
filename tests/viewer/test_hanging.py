"""A study's hanging and the small square pictures of findings, in a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.viewer.browsing import LAPTOP, TABLET, open_page, wait_until
from tests.viewer.tilesite import Site, random_film, tile_site

MODULE = 'await import("/static/image/hanging.js")'
OPEN = """async () => {
  const { Hanging } = await import("/static/image/hanging.js");
  window.told = [];
  const tell = (kind) => (...said) => void told.push([kind, ...said]);
  const kinds = ["onSelect", "onLayout", "onMark", "onBox"];
  const callbacks = Object.fromEntries(kinds.map((kind) => [kind, tell(kind)]));
  window.hanging = new Hanging(document.querySelector("#a"), callbacks);
  const failures = await hanging.open(await (await fetch("/studies/s")).json());
  return failures.map(({ image, error }) => [image, error.message]);
}"""
CROP = """async (url) => {
  const { CropView } = await import("/static/image/cropview.js");
  window.told ??= [];
  window.crop = new CropView(document.querySelector("#a"), { onOpen: () => told.push("open") }, { tone: "benign" });
  return crop.load(url);
}"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    films = (
        random_film("rcc", 700, 560, laterality="R", view="CC", chest_wall="right"),
        random_film("lcc", 700, 560, seed=1, laterality="L", view="CC", chest_wall="left"),
        random_film("rmlo", 800, 600, seed=2, laterality="R", view="MLO", chest_wall="left"),  # stored mirrored
        random_film("lmlo", 800, 600, seed=3, laterality="L", view="MLO", chest_wall="left", spacing_mm=0.2),
        random_film("crop", 200, 200, seed=4),
    )
    with tile_site(*films) as running:
        running.pages["/studies/s"] = {
            "study": "s",
            "images": [
                {"image": film.name, "laterality": film.laterality, "view": film.view, "detections": []}
                for film in films[:4]
            ],
        }
        yield running


@contextmanager
def hung(browser: Any, site: Site, size: tuple[int, int] = LAPTOP) -> Iterator[Any]:
    with open_page(browser, size) as (page, _):
        page.goto(site.address)
        assert page.evaluate(OPEN) == []
        yield page


def corners(page: Any) -> dict[str, tuple[float, float]]:
    """Return the top left corner of every image's cell."""
    found = page.evaluate(
        "[...hanging.cells].map(([id, cell]) => { const r = cell.getBoundingClientRect(); return [id, [r.x, r.y]]; })"
    )
    return {name: tuple(corner) for name, corner in found}


@pytest.mark.parametrize("size", [LAPTOP, TABLET])
def test_right_hangs_left_and_chest_walls_meet(browser: Any, site: Site, size: tuple[int, int]) -> None:
    with hung(browser, site, size) as page:
        at = corners(page)
        across = [at[name][0] for name in ("rcc", "lcc", "rmlo", "lmlo")]
        if size == LAPTOP:
            assert sorted(across) == across  # all in one row
            assert len({y for _, y in at.values()}) == 1
        else:
            assert across[0] == across[2] < across[1] == across[3]
            assert at["rcc"][1] == at["lcc"][1] < at["rmlo"][1] == at["lmlo"][1]
        assert page.evaluate("[...hanging.views].map(([id, view]) => [id, view.camera.flip])") == [
            ["rcc", False],
            ["lcc", False],
            ["rmlo", True],
            ["lmlo", False],
        ]
        walls = page.evaluate(
            """[...hanging.views].map(([id, view]) => {
              const wall = (view.info.chest_wall === "right") ? view.camera.columns : 0;
              const edge = view.wall === "right" ? view.camera.width : 0;
              return Math.abs(view.camera.toScreen(wall, 0)[0] - edge);
            })"""
        )
        assert max(walls) < 1
        scales = page.evaluate("[...hanging.views.values()].map(({ camera, spacing }) => camera.zoom / spacing)")
        assert np.ptp(scales) < 1e-6 * max(scales)  # so that left and right can be compared


def test_the_keyboard_goes_between_the_images_and_shows_one_large(browser: Any, site: Site) -> None:
    with hung(browser, site) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === hanging.views.get('rcc').element") is True
        page.keyboard.press("PageDown")
        assert page.evaluate("hanging.selected") == "lcc"
        page.keyboard.press("g")
        page.keyboard.press("PageUp")
        page.keyboard.press("PageUp")
        assert page.evaluate("hanging.selected") == "lmlo"
        assert page.evaluate("document.activeElement === hanging.view.element") is True
        wait_until(page, "hanging.view.camera.width > 800")
        assert page.evaluate("[...hanging.views.values()].filter(({ camera }) => camera.width > 300).length") == 1
        assert page.evaluate("told") == [
            ["onSelect", "lcc"],
            ["onLayout", "one"],
            ["onSelect", "rcc"],
            ["onSelect", "lmlo"],
        ]
        page.keyboard.press("r")
        assert page.evaluate("[...hanging.views.values()].map(({ tool }) => tool)") == ["ruler"] * 4


def test_a_double_click_enlarges_and_a_click_on_a_small_one_only_selects_it(browser: Any, site: Site) -> None:
    with hung(browser, site) as page:
        page.mouse.dblclick(500, 300)
        assert page.evaluate("[hanging.layout, hanging.selected]") == ["one", "lcc"]
        page.evaluate("hanging.setTool('box')")
        page.mouse.move(100, 100)
        page.mouse.down()
        page.mouse.move(200, 200)
        page.mouse.up()
        assert page.evaluate("[hanging.selected, hanging.view.box]") == ["rcc", None]


def test_linked_images_zoom_together(browser: Any, site: Site) -> None:
    with hung(browser, site) as page:
        page.evaluate("hanging.link(true); hanging.views.get('lcc').zoomTo(1)")
        assert page.evaluate("[...hanging.views.values()].map(({ state }) => state.zoom)") == [1, 1, 1, 2]
        page.evaluate("hanging.link(false); hanging.views.get('lcc').zoomTo(3)")
        assert page.evaluate("hanging.views.get('rcc').state.zoom") == 1


def test_one_image_that_can_not_be_had_leaves_the_others(browser: Any, site: Site) -> None:
    images = [{"image": name, "laterality": side, "view": "CC"} for name, side in (("gone", "R"), ("lcc", "L"))]
    with hung(browser, site) as page, open_page(browser, expect_errors=True) as (other, _):
        other.goto(site.address)
        whole, site.pages["/studies/s"] = site.pages["/studies/s"], {"images": images}
        failures = other.evaluate(OPEN)
        assert failures == [["gone", "the server answered 404 for the image"]]
        assert other.evaluate("hanging.views.get('lcc').frames.drawn") > 0
        page.evaluate("hanging.destroy()")
        assert page.evaluate("document.querySelector('#a').children.length") == 0
        site.pages["/studies/s"] = whole


def test_places_follow_the_server_and_share_none(browser: Any, site: Site) -> None:
    with open_page(browser) as (page, _):
        page.goto(site.address)
        hung_places = page.evaluate(
            f"""async () => ({MODULE}).places([
              {{ image: "a", place: {{ row: 0, column: 1 }} }},
              {{ image: "b", place: {{ row: 3, column: 1 }} }},
              {{ image: "c", place: {{ row: 0, column: 1 }} }},
            ])"""
        )
        assert [(place["image"], place["row"], place["column"]) for place in hung_places] == [
            ("a", 0, 0),
            ("b", 2, 0),
            ("c", 1, 0),
        ]
        flips = page.evaluate(
            f"""async () => [
              {{ laterality: "R", chest_wall: "right" }}, {{ laterality: "R", chest_wall: "left" }},
              {{ laterality: null, chest_wall: "left" }}, {{ laterality: "L", chest_wall: "right", flip: false }},
            ].map(({MODULE}).needsFlip)"""
        )
        assert flips == [False, True, False, False]


def test_a_crop_has_its_box_scale_window_and_keys(browser: Any, site: Site) -> None:
    with open_page(browser, (400, 400)) as (page, _):
        page.goto(site.address)
        assert page.evaluate(CROP, "/images/crop/crop?mm=20&pixels=200") is True
        assert page.evaluate("[crop.box, crop.spacing, crop.origin]") == [[50, 50, 100, 100], 0.1, "image"]
        grey = page.evaluate(
            "crop.showBox(false), crop.drawn().then(() => crop.context.getImageData(1, 1, 1, 1).data[0])"
        )
        assert abs(grey - int(site.films["crop"].values[0, 0]) / 65536 * 255) <= 1.5
        page.keyboard.press("Tab")
        page.keyboard.press("+")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("Enter")
        state = page.evaluate("crop.state")
        assert (state["zoom"], state["width"]) == (2.5, 65536 - 1024)
        assert state["x"] == 100 + 30 / 2.5
        page.mouse.dblclick(200, 200)
        assert page.evaluate("told") == ["open", "open"]


def test_a_crop_that_is_not_there_says_so(browser: Any, site: Site) -> None:
    with open_page(browser, (400, 400), expect_errors=True) as (page, _):
        page.goto(site.address)
        assert page.evaluate(CROP, "/rows/x/crop") is False
        assert page.locator(".picture-trouble").inner_text() == "No picture of this finding is here"
        page.mouse.move(200, 200)
        page.mouse.down()
        page.mouse.move(250, 200)
        page.mouse.wheel(0, 100)
        page.mouse.up()
        assert page.evaluate("crop.load('/images/crop/crop')") is True
        assert not page.locator(".picture-trouble").is_visible()
