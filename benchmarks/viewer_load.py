"""Twenty readers at once at one server, beside one alone.

    python -m benchmarks.viewer_load --data path/to/mini-mias --work WORK -o benchmarks/results/viewer-load.csv

`mammoseek serve` runs as a process of its own over what `benchmarks.viewer_site` makes. Readers, in this process, send
what the page sends, over HTTP with six connections each: the worklist, a study, its image with a dozen tiles, a box
that is asked about with the pictures of its neighbours, a filter, a thumb, now and then an opinion and a verdict.
Between these they look: for seeded times of some seconds. First one reader alone, then all of them, for as many
minutes; the one reader looks for an eighth of the time, since a percentile needs requests. Every image was opened once
before, so that both meet the same server. Images are uncompressed or run-length coded.

A busy answer (503 or 429) is counted apart, and asked again after the seconds that its Retry-After says, as the page
does; any other answer but 200 or 201 is an error. At the end many boxes are sent at one moment: the embedder's queue
takes as many as it may, and all others are told at once that it is busy.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pandas as pd

from benchmarks.cross_validation import RESULTS
from benchmarks.setting import errors_told, find_data, machine_line, say, work_folder
from benchmarks.viewer_latency import draw_boxes
from benchmarks.viewer_site import Server, make_site, serving, site_parser, write_table

CONNECTIONS = 6  # of a browser to one host
AIM = 3.0
"""How many times as long 95 of 100 requests may take among all readers as alone."""

_ALONE_PACE = 1 / 8
_TILES = 12
_PICTURE = 160  # pixels a side
_BURST = 96
_TRIES = 8


@dataclass
class Tally:
    """What readers met.

    Attributes:
        milliseconds: Of each kind of request, until its whole answer was there.
        parts: Of questions, as the server tells them.
        busy: Busy answers by kind.
        errors: What else went wrong, by kind and status.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    busy: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)


class Reader:
    """One reader.

    Args:
        client: Asks the server.
        tally: Takes what she meets.
        seed: For what she looks at, and for how long.
        pace: Her looks take so many times as long.
    """

    def __init__(self, client: httpx2.AsyncClient, tally: Tally, seed: int, pace: float) -> None:
        self._client, self._tally, self._pace = client, tally, pace
        self._random, self._boxes = random.Random(seed), np.random.default_rng(seed)

    async def read(self, until: float) -> None:
        """Look at one study after the other until a moment of `time.monotonic`."""
        await self._look(0, 6)
        while time.monotonic() < until:
            await self._read_one()

    async def _read_one(self) -> None:
        listed = await self._get("worklist", "/studies?limit=50")
        if listed is None:
            return
        await self._look(1, 4)
        study = self._random.choice([one for one in listed["studies"] if is_read(one)])["study"]
        opened = await self._get("study", f"/studies/{study}")
        if opened is None:
            return
        image = self._random.choice(opened["images"])["image"]
        info, _ = await asyncio.gather(
            self._get("image", f"/images/{image}"), self._post("seen", "/seen", {"study": study, "image": image})
        )
        if info is None:
            return
        await asyncio.gather(*(self._get("tile", tile) for tile in self._tiles(info)))
        await self._look(3, 9)
        [box] = draw_boxes(self._boxes, info, 1)
        question: dict[str, Any] = {"image": image, "box": box}
        answer = await self._ask("box", question)
        await self._look(3, 9)
        question |= {"filters": {"density": self._random.sample("ABC", 2)}}
        answer = await self._ask("steer", question) or answer
        await self._look(2, 6)
        if answer is not None and len(answer["neighbours"]) > 2:
            question |= {"negative": [answer["neighbours"][2]["row"]]}
            answer = await self._ask("steer", question) or answer
            await self._look(2, 6)
        if self._random.random() < 0.2:
            await self._post("opinion", "/opinion", question)
            await self._look(2, 6)
        if self._random.random() < 0.3:
            said = {"study": study, "image": image, "box": box, "birads": "4A", "key": uuid.uuid4().hex}
            await self._post("verdict", "/verdicts", said)

    async def _ask(self, kind: str, question: dict[str, Any]) -> dict[str, Any] | None:
        """Ask, and fetch the pictures of the neighbours."""
        answer: dict[str, Any] | None = await self._post(kind, "/query", question)
        if answer is not None:
            for part in ("queued", "embedding", "search") if kind == "box" else ("search",):
                self._tally.parts[f"{kind}: {part}"].append(answer["milliseconds"][part])
            scale = f"mm={answer['suggested_mm']}&pixels={_PICTURE}"
            rows = [one["row"] for one in answer["neighbours"] if one["has_picture"]]
            await asyncio.gather(*(self._get("picture", f"/rows/{row}/crop?{scale}") for row in rows))
        return answer

    def _tiles(self, info: dict[str, Any]) -> list[str]:
        """Return what a screen wants: the coarsest level, and a dozen tiles of a finer one."""
        levels, side = info["levels"], info["tile"]
        found = [f"/images/{info['image']}/tiles/{levels[-1]['level']}/0/0"]
        fine = levels[min(1, len(levels) - 1)]
        places = [
            (row, column) for row in range(-(-fine["rows"] // side)) for column in range(-(-fine["columns"] // side))
        ]
        chosen = self._random.sample(places, min(_TILES - 1, len(places)))
        return found + [f"/images/{info['image']}/tiles/{fine['level']}/{row}/{column}" for row, column in chosen]

    async def _look(self, low: float, high: float) -> None:
        await asyncio.sleep(self._pace * self._random.uniform(low, high))

    async def _get(self, kind: str, path: str) -> Any:
        return await self._send(kind, "GET", path, None)

    async def _post(self, kind: str, path: str, body: dict[str, Any]) -> Any:
        return await self._send(kind, "POST", path, body)

    async def _send(self, kind: str, method: str, path: str, body: dict[str, Any] | None) -> Any:
        """Send, and send again where the server is busy; None where there is no answer of use."""
        for _ in range(_TRIES):
            begun = time.perf_counter()
            try:
                answer = await self._client.request(method, path, json=body)
            except httpx2.HTTPError as error:
                self._tally.errors[f"{kind}: {type(error).__name__}"] += 1
                return None
            if answer.status_code in (200, 201):
                self._tally.milliseconds[kind].append(1000 * (time.perf_counter() - begun))
                return (
                    answer.json() if answer.headers["content-type"].startswith("application/json") else answer.content
                )
            if answer.status_code not in (429, 503) or "retry-after" not in answer.headers:
                self._tally.errors[f"{kind}: {answer.status_code}"] += 1
                return None
            self._tally.busy[kind] += 1
            await asyncio.sleep(float(answer.headers["retry-after"]))
        self._tally.errors[f"{kind}: busy {_TRIES} times"] += 1
        return None


def main() -> None:
    """Run the benchmark and write its table."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Let readers read, and write one table.

    Args:
        arguments: As `_parse` gives them.
    """
    with work_folder(arguments.work) as work:
        site = make_site(work, find_data(arguments.data), rows=arguments.rows)
        # All readers are one local user here: she may ask as often as twenty.
        limits = ("--requests-per-s", "10000", "--changes-per-s", "1000")
        with (
            tempfile.TemporaryDirectory() as state,
            serving(site, Path(state), *limits, log=work / "serve.log") as server,
        ):
            asyncio.run(warm(server))
            seconds = 60 * arguments.minutes
            alone = asyncio.run(read_together(server, 1, seconds, arguments.pace * _ALONE_PACE))
            together = asyncio.run(read_together(server, arguments.readers, seconds, arguments.pace))
            burst = asyncio.run(send_burst(server))
    rows = [*compared(alone, together, arguments.readers), *burst]
    table = pd.DataFrame(rows).assign(minutes=arguments.minutes, rows=arguments.rows, machine=machine_line())
    write_table(table, arguments.output)
    for name, tally in (("alone", alone), ("together", together)):
        for what, count in tally.errors.items():
            print(f"{name}: {what}: {count} times")


def is_read(study: dict[str, Any]) -> bool:
    """Tell whether a study is looked at: those by JPEG 2000, of which each takes seconds to decode, are not."""
    return not str(study["woman"]).startswith("drawn-J")


def new_client(server: Server) -> httpx2.AsyncClient:
    """Return what asks like one browser: a few connections, and patience."""
    return httpx2.AsyncClient(
        base_url=server.address,
        headers={"x-mammoseek": "1"},
        timeout=120,
        limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
    )


async def warm(server: Server) -> None:
    """Open each image once, so that one reader and twenty meet the same server; fit what opinions need."""
    async with new_client(server) as client:
        for study in filter(is_read, server.studies()):
            for one in study["images"]:
                info = (await client.get(f"/images/{one['image']}")).json()
                [box] = draw_boxes(np.random.default_rng(7), info, 1)
                question = {"image": one["image"], "box": box}
                await client.post("/query", json=question)
        say("all images were opened")
        while (await client.post("/opinion", json=question)).status_code == 503:
            await asyncio.sleep(5)
        say("classifiers are fitted")


async def read_together(server: Server, readers: int, seconds: float, pace: float) -> Tally:
    """Let readers read at once.

    Args:
        server: The server.
        readers: How many.
        seconds: How long.
        pace: Their looks take so many times as long.
    """
    tally = Tally()
    clients = [new_client(server) for _ in range(readers)]
    until = time.monotonic() + seconds
    try:
        await asyncio.gather(*(Reader(client, tally, seed, pace).read(until) for seed, client in enumerate(clients)))
    finally:
        for client in clients:
            await client.aclose()
    say(f"{readers} readers sent {sum(map(len, tally.milliseconds.values()))} requests")
    return tally


async def send_burst(server: Server) -> list[dict[str, Any]]:
    """Send many boxes at one moment, and return what was answered."""
    image = server.studies()[0]["images"][0]["image"]
    info = server.get(f"/images/{image}")
    boxes = list(draw_boxes(np.random.default_rng(1), info, _BURST))
    capacity = server.get("/queue")["capacity"]
    limits = httpx2.Limits(max_connections=_BURST)
    async with httpx2.AsyncClient(
        base_url=server.address, headers={"x-mammoseek": "1"}, timeout=300, limits=limits
    ) as client:
        await asyncio.gather(*(client.get("/health") for _ in range(_BURST)))  # connections are open

        async def ask(box: Sequence[int]) -> tuple[float, httpx2.Response]:
            begun = time.perf_counter()
            answer = await client.post("/query", json={"image": image, "box": box})
            return 1000 * (time.perf_counter() - begun), answer

        answers = await asyncio.gather(*map(ask, boxes))
    by_status: dict[int, list[float]] = defaultdict(list)
    for took, answer in answers:
        by_status[answer.status_code].append(took)
    busy = next((answer for _, answer in answers if answer.status_code == 503), None)
    if busy is not None:
        say(f"busy: Retry-After {busy.headers['retry-after']}, {busy.text}")
    return [
        {"kind": f"burst of {_BURST} boxes, queue of {capacity}: answered {status}", "requests": len(times)}
        | {"p50": statistics.median(times), "p95": float(np.percentile(times, 95))}
        for status, times in sorted(by_status.items())
    ]


def compared(alone: Tally, together: Tally, readers: int) -> list[dict[str, Any]]:
    """Return a row for all requests, one for each kind of them, and one for each part of questions."""
    rows = []
    for tally in (alone, together):
        tally.milliseconds["all requests"] = [took for times in tally.milliseconds.values() for took in times]
    for kind, many in (together.milliseconds | together.parts).items():
        one = (alone.milliseconds | alone.parts).get(kind, [])
        row: dict[str, Any] = {"kind": kind, "requests_alone": len(one)}
        if one:
            row |= {"p50_alone": statistics.median(one), "p95_alone": float(np.percentile(one, 95))}
        row |= {"readers": readers, "requests": len(many)}
        row |= {"p50": statistics.median(many), "p95": float(np.percentile(many, 95))}
        if one and kind not in together.parts:
            row |= {"ratio_of_p95": row["p95"] / row["p95_alone"], "aim": AIM}
        if kind not in together.parts:
            row |= {"busy": busy_of(together, kind), "busy_alone": busy_of(alone, kind)}
            row["errors"] = errors_of(alone, kind) + errors_of(together, kind)
        rows.append(row)
    return rows


def busy_of(tally: Tally, kind: str) -> int:
    """Return the busy answers to a kind of request, or to all."""
    return tally.busy.total() if kind == "all requests" else tally.busy[kind]


def errors_of(tally: Tally, kind: str) -> int:
    """Return the errors of a kind of request, or of all."""
    return sum(count for what, count in tally.errors.items() if kind in ("all requests", what.partition(":")[0]))


def _parse() -> argparse.Namespace:
    parser = site_parser(str(__doc__))
    parser.add_argument("--readers", type=int, default=20, help="readers at once (20)")
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of reading, alone and together (3)")
    parser.add_argument("--pace", type=float, default=1.0, help="looks take so many times as long (1)")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "viewer-load.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
