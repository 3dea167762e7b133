"""The picture of one mammogram in a real browser: its pixels, tools, keys, links and requests."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.viewer.browsing import Watch, open_page, wait_until
from tests.viewer.tilesite import Film, Site, random_film, tile_site

SIZE = (700, 500)  # CSS pixels of the page, which are those of the picture
MARKS = [
    {"detection": "d1", "box": [100, 200, 300, 350], "label": "mass", "score": 0.9},
    {"detection": "d2", "box": [600, 900, 700, 980], "label": "calcification", "score": 0.4},
]
OPEN = """async ([name, place, options]) => {
  const { ImageView } = await import("/static/image/imageview.js");
  const told = (window.told ??= []);
  const tell = (kind) => (said) => void told.push([kind, said]);
  const kinds = ["onBox", "onMark", "onWindow", "onMeasure", "onTool", "onSay", "onError"];
  const callbacks = Object.fromEntries(kinds.map((kind) => [kind, tell(kind)]));
  const view = new ImageView(document.querySelector(`#${place}`), callbacks);
  window[place] = view;
  const info = await (await fetch(`/images/${name}`)).json();
  if (!(await view.open(info, options))) throw new Error("another picture was opened");
  await view.drawn(true);
}"""
READ = """async () => {
  a.showMarks(false);
  await a.drawn(true);
  const { data } = a.context.getImageData(0, 0, a.canvas.width, a.canvas.height);
  const grey = new Uint8Array(data.length / 4);
  for (let at = 0; at < grey.length; at++) grey[at] = data[4 * at];
  let text = "";
  for (let at = 0; at < grey.length; at += 8192) text += String.fromCharCode(...grey.subarray(at, at + 8192));
  return btoa(text);
}"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    films = (
        random_film("film", 1300, 1100, detections=MARKS),
        random_film("fine", 1000, 1500, seed=1, spacing_mm=0.05, laterality="R", chest_wall="right"),
        random_film("bare", 600, 500, seed=2, spacing_mm=None, laterality=None),
    )
    with tile_site(*films) as running:
        yield running


@contextmanager
def opened(
    browser: Any, site: Site, name: str = "film", size: tuple[int, int] = SIZE, flip: bool = False, **context: Any
) -> Iterator[tuple[Any, Watch]]:
    """Yield a page whose only picture, `a`, shows the film in full detail."""
    with open_page(browser, size, **context) as (page, watch):
        page.goto(site.address)
        page.evaluate(OPEN, [name, "a", {"flip": flip}])
        yield page, watch


def told(page: Any, kind: str) -> list[Any]:
    """Return what one callback was told so far."""
    return [said for name, said in page.evaluate("told") if name == kind]


def pixels(page: Any) -> np.ndarray:
    """Return the greys on the canvas, rows × columns."""
    width, height = page.evaluate("[a.canvas.width, a.canvas.height]")
    return np.frombuffer(base64.b64decode(page.evaluate(READ)), np.uint8).reshape(height, width)


def windowed(values: np.ndarray, centre: float, width: float, inverted: bool = False) -> np.ndarray:
    """Return the greys of values, by the slow and obvious way."""
    part = (values.astype(np.float64) - (centre - width / 2)) / width
    part = 1 - part if inverted else part
    return np.floor(np.clip(part, 0, 1) * 255 + 0.5).astype(np.int64)


def between(part: np.ndarray) -> np.ndarray:
    """Return the rows of `part` but the first and last, each as two that are a quarter away from it."""
    whole = part.astype(np.float64)
    inner, above, below = whole[1:-1], whole[:-2], whole[2:]
    return np.stack([0.75 * inner + 0.25 * above, 0.75 * inner + 0.25 * below], axis=1).reshape(-1, part.shape[1])


def drag(page: Any, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
    page.mouse.move(*start)
    page.mouse.down(button=button)
    page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    page.mouse.move(*end)
    page.mouse.up(button=button)


@pytest.mark.parametrize("flip", [False, True])
def test_the_canvas_shows_the_stored_values_under_the_window(browser: Any, site: Site, flip: bool) -> None:
    values = site.films["film"].values
    level1 = site.films["film"].levels[1]
    with opened(browser, site, flip=flip) as (page, _):
        for centre, width, inverted in ((32768, 65536, False), (20000, 9000, False), (30000, 30000, True)):
            page.evaluate(
                "w => { a.zoomTo(1); a.centreOn(550, 650); a.setWindow(w); }",
                {"centre": centre, "width": width, "inverted": inverted},
            )
            seen = pixels(page)
            part = values[650 - 250 : 650 + 250, 550 - 350 : 550 + 350]
            expected = windowed(part, centre, width, inverted)
            assert np.abs(seen - (expected[:, ::-1] if flip else expected)).max() <= 1  # a tie in the last bit
            assert (seen != (expected[:, ::-1] if flip else expected)).mean() < 1e-3

        page.evaluate(
            "a.setWindow({centre: 32768, width: 65536, inverted: false}); a.zoomTo(0.5); a.centreOn(550, 650)"
        )
        seen = pixels(page)[:, 350 - 275 : 350 + 275]
        expected = windowed(level1[(650 - 500) // 2 : (650 + 500) // 2], 32768, 65536)
        assert np.abs(seen - (expected[:, ::-1] if flip else expected)).max() <= 1


def test_past_original_pixels_each_is_a_square(browser: Any, site: Site) -> None:
    values = site.films["film"].values
    with opened(browser, site) as (page, _):
        page.evaluate("a.zoomTo(4); a.centreOn(500, 512)")  # across a border of tiles
        seen = pixels(page)
        expected = windowed(values[512 - 60 : 512 + 60, 500 - 80 : 500 + 80], 32768, 65536).repeat(4, 0).repeat(4, 1)
        inner = seen[250 - 240 : 250 + 240, 350 - 320 : 350 + 320]
        assert np.abs(inner - expected).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_a_drawn_box_is_in_stored_pixels_at_every_zoom(browser: Any, site: Site, flip: bool) -> None:
    with opened(browser, site, flip=flip) as (page, _):
        page.evaluate("a.setTool('box'); a.setMarks([])")
        for zoom, x, y in ((0.4, 550, 650), (1, 300, 400), (2.5, 700, 900)):
            page.evaluate("([z, x, y]) => { a.setBox(null); a.zoomTo(z); a.centreOn(x, y); }", [zoom, x, y])
            drag(page, (450, 330), (300, 200))  # from the bottom right corner up
            sides = (-50 / zoom, 100 / zoom)
            left, right = (x - sides[1], x - sides[0]) if flip else (x + sides[0], x + sides[1])
            expected = [left, y - 50 / zoom, right, y + 80 / zoom]
            assert np.allclose(told(page, "onBox")[-1], expected, atol=0.51)
            assert page.evaluate("a.box") == told(page, "onBox")[-1]
        assert len(told(page, "onBox")) == 3


def test_handles_and_the_inside_adjust_the_box(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.evaluate(
            "a.setTool('box'); a.setMarks([]); a.zoomTo(1); a.centreOn(550, 650); a.setBox([500, 600, 600, 700])"
        )
        drag(page, (400, 300), (440, 330))  # the handle of the bottom right corner
        assert page.evaluate("a.box") == [500, 600, 640, 730]
        drag(page, (300, 265), (280, 265))  # that of the left edge
        assert page.evaluate("a.box") == [480, 600, 640, 730]
        drag(page, (360, 260), (350, 270))
        assert page.evaluate("a.box") == [470, 610, 630, 740]
        drag(page, (360, 260), (3000, 260))  # held inside the picture
        assert page.evaluate("a.box[2]") <= 1100
        count = len(told(page, "onBox"))
        drag(page, (20, 20), (24, 22))  # too small to be a box: the one before stays
        page.mouse.move(100, 100)
        page.mouse.down()
        page.mouse.move(200, 200)
        page.keyboard.press("Escape")
        page.mouse.up()
        assert len(told(page, "onBox")) == count
        assert page.evaluate("a.box[1]") == 610


def test_the_keyboard_alone_draws_moves_and_removes_a_box(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "a"
        page.evaluate("a.zoomTo(1)")
        page.keyboard.press("b")
        assert told(page, "onTool") == ["box"]
        page.keyboard.press("Enter")
        assert page.evaluate("a.box") == [500, 600, 600, 700]  # a fifth of 500 pixels, in the middle
        for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp", "Control+ArrowLeft"):
            page.keyboard.press(key)
        assert page.evaluate("a.box") == [505, 606, 611, 700]
        page.keyboard.press("Enter")
        assert told(page, "onBox")[-1] == [505, 606, 611, 700]
        assert told(page, "onSay")[-1] == "Box of 10.6 by 9.4 mm"
        before = page.evaluate("told.length")
        page.keyboard.press("ArrowLeft")  # without Enter it counts as drawn after a moment of quiet
        wait_until(page, f"told.slice({before}).some(([kind]) => kind === 'onBox')")
        page.keyboard.press("Delete")
        assert told(page, "onBox")[-1] is None


def test_the_keyboard_alone_looks_around(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.keyboard.press("Tab")
        page.keyboard.press("1")
        assert page.evaluate("a.state.zoom") == 1
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowUp")
        assert page.evaluate("[a.state.x, a.state.y]") == [610, 590]
        page.keyboard.press("+")
        assert page.evaluate("a.state.zoom") == 1.25
        page.keyboard.press("i")
        assert page.evaluate("a.state.inverted") is True
        page.keyboard.press("w")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("[a.state.width, a.state.centre]") == [65536 - 1024, 32768 + 1024]
        state = page.evaluate("a.state")
        page.keyboard.press("0")
        assert page.evaluate("a.state.fitted") is True
        page.evaluate("state => a.restore(state)", state)
        assert page.evaluate("a.state") == state


def test_marks_are_buttons_over_what_is_drawn(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        first = page.locator(".picture-mark").first
        assert first.inner_text() == "Detection 1: mass"
        assert page.evaluate("document.activeElement.textContent") == "Detection 1: mass"
        page.keyboard.press("Enter")
        page.mouse.click(*centre_of(page, MARKS[1]["box"]))
        assert told(page, "onMark") == ["d1", "d2"]
        box = first.bounding_box()
        left, top = page.evaluate("a.camera.toScreen(100, 200)")
        assert abs(box["x"] - left) < 1
        assert abs(box["y"] - top) < 1
        first.focus()
        page.evaluate("a.setMarks([{id: 'd1', box: [100, 200, 300, 350], kind: 'detection', selected: true}])")
        assert page.locator(".picture-mark").get_attribute("aria-pressed") == "true"
        assert page.evaluate("document.activeElement.dataset.mark") == "d1"  # the focus outlives new marks


def centre_of(page: Any, box: list[int]) -> tuple[float, float]:
    x, y = page.evaluate("([x, y]) => a.camera.toScreen(x, y)", [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])
    return x, y


def test_script_in_a_label_stays_text(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.evaluate(
            "a.setMarks([{id: '<i>', box: [1, 2, 300, 400], kind: 'finding', label: '<img src=x onerror=b()>'}])"
        )
        assert page.locator(".picture-mark").text_content() == "Finding 1: <img src=x onerror=b()>"
        assert page.locator("#a img").count() == 0


@pytest.mark.parametrize(
    ("name", "text", "length"), [("film", "20.0 mm", 20.0), ("bare", "200 px (mm unknown)", 200.0)]
)
def test_a_ruler_measures_in_mm_and_says_where_it_can_not(
    browser: Any, site: Site, name: str, text: str, length: float
) -> None:
    with opened(browser, site, name) as (page, _):
        page.evaluate("a.setMarks([]); a.setTool('ruler'); a.zoomTo(1)")
        drag(page, (300, 200), (420, 360))
        measure = told(page, "onMeasure")[-1]
        assert measure["text"] == text
        assert measure["length"] == pytest.approx(length)
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        assert len(told(page, "onMeasure")) == 3
        assert page.evaluate("a.ruler.lines.length") == 2
        page.keyboard.press("Delete")
        assert page.evaluate("a.ruler.lines.length") == 1


def test_dragging_sets_the_window(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        drag(page, (300, 200), (250, 200), button="right")
        narrower = page.evaluate("a.state")
        assert narrower["width"] < 65536
        assert narrower["centre"] == 32768
        page.evaluate("a.setTool('window')")
        drag(page, (300, 200), (300, 150))  # up: brighter
        assert page.evaluate("a.state.centre") < 32768
        assert page.evaluate("a.state.width") == narrower["width"]
        page.evaluate("a.drawn(true)")
        assert told(page, "onWindow")[-1] == page.evaluate("({centre: a.state.centre, width: a.state.width})")


def test_the_wheel_zooms_at_the_pointer(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.evaluate("a.zoomTo(1)")
        before = page.evaluate("a.camera.toStored(200, 100)")
        page.mouse.move(200, 100)
        page.mouse.wheel(0, -200)
        wait_until(page, "a.state.zoom > 1.2")
        assert page.evaluate("a.camera.toStored(200, 100)") == pytest.approx(before)
        page.mouse.dblclick(200, 100)
        assert page.evaluate("a.state.fitted") is True


def test_two_fingers_pan_and_zoom_and_one_works_the_tool(browser: Any, site: Site) -> None:
    with opened(browser, site, has_touch=True) as (page, _):
        page.evaluate("a.setTool('box'); a.zoomTo(1); a.centreOn(550, 650)")
        touch = page.context.new_cdp_session(page)

        def send(kind: str, *points: tuple[int, int]) -> None:
            fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

        send("touchStart", (300, 250))
        send("touchMove", (310, 260))
        send("touchStart", (310, 260), (400, 250))  # the second finger ends the box that the first began
        send("touchMove", (210, 260), (500, 250))
        send("touchEnd")
        assert page.evaluate("a.box") is None
        assert page.evaluate("a.state.zoom") > 2
        send("touchStart", (300, 200))
        send("touchMove", (350, 250))
        send("touchMove", (400, 300))
        send("touchEnd")
        assert page.evaluate("a.box") is not None
        assert told(page, "onBox")[-1] == page.evaluate("a.box")


def test_the_magnifier_shows_original_pixels_twice_as_large(browser: Any, site: Site) -> None:
    values = site.films["film"].values
    with opened(browser, site) as (page, _):
        page.evaluate("a.setTool('magnifier'); a.centreOn(550, 650); a.zoomTo(0.5)")
        page.mouse.move(350, 250)
        wait_until(page, "a.loupe.place !== null && a.source.flying.size === 0 && !a.wantTimer")
        seen = pixels(page)[250 - 40 : 250 + 40, 350 - 40 : 350 + 40]
        part = windowed(values[650 - 21 : 650 + 21, 550 - 21 : 550 + 21], 32768, 65536)
        assert np.abs(seen - between(between(part).T).T).max() <= 2
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("a.loupe.place") == [370, 250]
        page.keyboard.press("Escape")
        assert page.evaluate("a.loupe.place") is None


def test_linked_views_share_zoom_in_mm_and_window(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.evaluate("document.querySelector('#b').className = 'picture'")
        page.evaluate(OPEN, ["fine", "b", {}])
        page.evaluate("window.unlink = a.link(b); a.zoomTo(2)")
        assert page.evaluate("b.state.zoom") == pytest.approx(1)  # 0.05 mm pixels beside 0.1 mm ones
        page.evaluate("b.zoomTo(0.5); b.setWindow({centre: 10000, width: 5000}); b.invert(true)")
        state = page.evaluate("a.state")
        assert (state["zoom"], state["centre"], state["width"], state["inverted"]) == (1, 10000, 5000, True)
        page.evaluate("unlink(); a.zoomTo(3)")
        assert page.evaluate("b.state.zoom") == 0.5


def test_the_side_can_not_be_mistaken_and_the_bar_is_true(browser: Any, site: Site) -> None:
    with opened(browser, site, flip=True) as (page, _):
        assert page.locator(".picture-side").inner_text() == "L CC ⇋ mirrored"
        assert page.locator("#a").get_attribute("aria-label") == "Mammogram: Left breast, CC, film, drawn mirrored"
        page.evaluate("a.zoomTo(0.5); a.drawn()")
        assert page.locator(".picture-bar-text").inner_text() == "10 mm"
        assert page.locator(".picture-bar-line").bounding_box()["width"] == 50
        page.evaluate("a.zoomTo(5); a.drawn()")
        assert page.locator(".picture-bar-text").inner_text() == "5 mm"
    with opened(browser, site, "bare") as (page, _):
        assert page.locator(".picture-side").inner_text() == "Side? CC"
        assert page.locator(".picture-bar-text").inner_text() == "mm unknown"


def test_a_new_size_and_a_dense_screen_keep_the_picture_whole_and_sharp(browser: Any, site: Site) -> None:
    with opened(browser, site, device_scale_factor=2) as (page, _):
        assert page.evaluate("[a.canvas.width, a.canvas.height]") == [1400, 1000]
        assert page.evaluate("a.state.zoom") == pytest.approx(1000 / 1300)
        page.set_viewport_size({"width": 300, "height": 500})
        wait_until(page, "a.canvas.width === 600")
        assert page.evaluate("a.state.zoom") == pytest.approx(600 / 1100)


def test_tiles_are_asked_for_once_and_no_storm_follows_the_hand(browser: Any, record_property: Any) -> None:
    large = random_film("large", 3000, 2400, detections=[])
    with tile_site(large) as site, opened(browser, site, "large") as (page, watch):
        page.evaluate("a.zoomTo(1)")
        frames = page.evaluate(
            """async () => {
              a.frames.intervals = [];
              for (let step = 0; step < 60; step++) {
                a.panBy(step < 30 ? -25 : 25, step % 20 < 10 ? 20 : -20);
                a.zoomBy(step % 8 < 4 ? 1.1 : 1 / 1.1);
                await new Promise(requestAnimationFrame);
              }
              await a.drawn(true);
              return a.frames;
            }"""
        )
        times = sorted(frames["intervals"])
        record_property("median milliseconds between frames", times[len(times) // 2])
        tiles = [address for address in watch.requests if "/tiles/" in address]
        assert frames["drawn"] >= 60
        assert len(set(tiles)) <= sum(-(-h // 512) * -(-w // 512) for h, w in (level.shape for level in large.levels))
        assert len(tiles) <= len(set(tiles)) + 12  # some were given up on the way and wanted again
        before = len(watch.requests)
        page.evaluate("a.fit(); a.setWindow({centre: 1000, width: 900}); a.drawn(true)")
        assert len(watch.requests) - before <= 6  # all that is shown was here


def test_a_busy_server_is_asked_again_and_a_missing_picture_is_an_error(browser: Any, site: Site) -> None:
    with open_page(browser, SIZE, expect_errors=True) as (page, _):
        page.goto(site.address)
        site.busy += [503, 429]
        page.evaluate(OPEN, ["film", "a", {}])
        assert not site.busy
        assert told(page, "onError") == []
        site.busy += [404] * 20
        page.evaluate("a.destroy()")
        with pytest.raises(Exception, match="the server answered 404"):
            page.evaluate(OPEN, ["fine", "a", {}])
        site.busy.clear()
        assert "could not be loaded" in page.locator(".picture-trouble").inner_text()
        page.evaluate("a.tryAgain(); a.drawn(true)")
        assert not page.locator(".picture-trouble").is_visible()


def test_memory_is_bounded_and_destroy_leaves_nothing(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        page.evaluate(
            """async () => {
              const { rawMemory, greyMemory } = await import("/static/image/memory.js");
              window.memories = [rawMemory, greyMemory];
              greyMemory.limit = 5 * 512 * 512 * 4;
              a.zoomTo(1);
              for (const [x, y] of [[200, 200], [900, 1100], [200, 1100], [550, 650]]) {
                a.centreOn(x, y);
                await a.drawn(true);
                if (greyMemory.held > greyMemory.limit) throw new Error(`${greyMemory.held} bytes`);
              }
            }"""
        )
        assert page.evaluate("memories[0].held") > 0
        page.evaluate("a.destroy()")
        assert page.evaluate("[...memories.map(({ held }) => held), document.querySelector('#a').children.length]") == [
            0,
            0,
            0,
        ]


def test_another_picture_takes_the_place_of_one_still_loading(browser: Any, site: Site) -> None:
    with opened(browser, site) as (page, _):
        outcome = page.evaluate(
            """async () => {
              const info = async (name) => (await fetch(`/images/${name}`)).json();
              const [fine, bare] = [await info("fine"), await info("bare")];
              return Promise.all([a.open(fine), a.open(bare)]);
            }"""
        )
        assert outcome == [False, True]
        assert page.evaluate("a.info.image") == "bare"


def test_films_of_the_harness_have_the_levels_of_the_contract() -> None:
    film = Film("odd", np.arange(1025 * 600, dtype=np.uint16).reshape(1025, 600))
    assert [level.shape for level in film.levels] == [(1025, 600), (513, 300), (257, 150)]
