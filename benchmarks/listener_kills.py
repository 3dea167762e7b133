"""Kills `mammoseek pacs listen` at random moments while studies arrive, and looks whether each got its one report.

    python -m benchmarks.listener_kills -o benchmarks/results/listener-kills.csv

A gallery of lesions and normal tissue is made of drawn films, with a network of random weights. Studies of two drawn
mammograms without a CAD report are sent by C-STORE, each in an association of its own, by several senders that retry.
A listener, started by the command line, searches them for candidates and stores its reports in a C-STORE receiver. It
is ended by SIGKILL at moments drawn at random, while it starts, receives, processes, sends and deletes, and started
again. What was sent is deleted at once (`keep_days = 0`). At the end every study must have one report, under one SOP
Instance UID. Then all of it is sent again, images and reports, as an archive may: no further report may come.

All of it stays on this machine's loopback. Seconds are those of this machine, with whatever else it does.
"""

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from benchmarks.listener_parts import (
    Archive,
    KilledListener,
    environment,
    make_instance,
    phases,
    read_report,
    running_archive,
    send_all,
    wait_for,
    what_was_sent,
    write_configuration,
)
from benchmarks.setting import errors_told, machine_line
from classifiers.filling import new_gallery
from embedder.embedding import pretrained_model
from embedder.findings import Finding, findings_frame
from embedder.network import NetworkConfig
from embedder.normaltissue import add_normal_tissue
from embedder.preparation import PreparationConfig
from exchange.pacs.spoolview import look

SIDE, SPACING_MM = 200, 0.4
PREPARATION = PreparationConfig(height=64, width=64, floor_mm=8.0, floor_pixels=33)
NETWORK = NetworkConfig(backbone="test_resnet", weights="none", embedding_dimension=None)
WOMEN = 10
_SENDERS = 4
_CYCLE_S = 10.0  # between kills, about: so long studies go on arriving
_SHARE_AT_START = 0.25  # of kills that may come before the listener listens
IDLE_S, LONGEST_S = 2.0, 6.0
"""A study rests for so long before it is processed; a kill comes within so long after the listener listens."""


def draw_film(generator: np.random.Generator, lesion: tuple[int, int, int] | None) -> npt.NDArray[np.uint8]:
    """Draw a breast at the left edge, uint8 (200, 200), with a bright lesion (x, y, radius)."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.where((y - SIDE / 2) ** 2 + x**2 < (0.47 * SIDE) ** 2, 90 + generator.normal(0, 10, (SIDE, SIDE)), 2)
    if lesion is not None:
        image[(y - lesion[1]) ** 2 + (x - lesion[0]) ** 2 < lesion[2] ** 2] += 70
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_lesion(generator: np.random.Generator) -> tuple[int, int, int]:
    """Draw where a lesion is: x, y and radius."""
    return int(generator.integers(18, 55)), int(generator.integers(60, 140)), int(generator.integers(8, 13))


def make_gallery(folder: Path, generator: np.random.Generator) -> Path:
    """Make a gallery of women with a lesion and normal tissue, and return its folder."""
    import cv2

    rows = []
    for woman in range(WOMEN):
        x, y, radius = draw_lesion(generator)
        path = folder / f"known-{woman}.png"
        cv2.imwrite(str(path), draw_film(generator, (x, y, radius)))
        rows.append(
            Finding(
                row_id=f"known-{woman}", path=str(path), granularity="finding", dataset="drawn", patient_id=f"k{woman}",
                x0=x - radius, y0=y - radius, x1=x + radius, y1=y + radius, image_rows=SIDE, image_columns=SIDE,
                spacing_mm=SPACING_MM, laterality="L", view="CC", lesion_type="mass",
                pathology=("benign", "malignant")[woman % 2],
            )
        )  # fmt: skip
    torch.manual_seed(0)
    pretrained_model(folder / "model", NETWORK, PREPARATION)
    manifest = add_normal_tissue(findings_frame(rows), per_image=3, workers=1).frame
    new_gallery(manifest, folder / "model", folder / "gallery", workers=1)
    return folder / "gallery"


def make_studies(folder: Path, count: int, generator: np.random.Generator) -> dict[str, list[Path]]:
    """Make studies of two mammograms, one with a lesion; return their files by Study Instance UID."""
    studies = {}
    for number in range(count):
        study = f"1.2.826.0.1.3680043.10.1.{number + 1}"
        files = []
        for image, lesion in enumerate((draw_lesion(generator), None), start=1):
            dataset = make_instance(
                study, f"{study}.1", f"{study}.1.{image}", pixels=draw_film(generator, lesion),
                PatientID=f"W{number}", PatientName=f"W{number}", PixelSpacing=[SPACING_MM, SPACING_MM],
                ImageLaterality="L", ViewPosition=("CC", "MLO")[image - 1], BurnedInAnnotation="NO",
                PresentationIntentType="FOR PRESENTATION", PresentationLUTShape="IDENTITY",
            )  # fmt: skip
            files.append(folder / f"{study}-{image}.dcm")
            dataset.save_as(files[-1], enforce_file_format=True)
        studies[study] = files
    return studies


@dataclass(frozen=True)
class Found:
    """What the kills left.

    Attributes:
        studies: Studies that were sent.
        kills: SIGKILLs.
        kills_at_start: Of these, how many came before the listener listened again.
        sends: Reports that reached the archive, repeats and all.
        repeats: Reports that came again, under the same UID.
        differing: UIDs under which different bytes came.
        lost: Studies without a report.
        several: Studies with more than one SOP Instance UID.
        left: Studies that the spool has not emptied.
        sends_again: Reports that came after all was sent again.
        seconds: Until all was done.
    """

    studies: int
    kills: int
    kills_at_start: int
    sends: int
    repeats: int
    differing: int
    lost: int
    several: int
    left: int
    sends_again: int
    seconds: float

    @property
    def is_well(self) -> bool:
        """Whether every study has one report, and no more came of sending it again."""
        return not (self.differing or self.lost or self.several or self.left or self.sends_again)


def run(work: Path, studies: int, kills: int, seed: int, limit_s: float) -> Found:
    """Send studies to a listener that is killed, and count.

    Args:
        work: An empty folder.
        studies: How many.
        kills: How many.
        seed: Of films and moments.
        limit_s: Seconds after which no more is waited for.
    """
    generator, draw = np.random.default_rng(seed), random.Random(seed)
    gallery = make_gallery(work, generator)
    files = make_studies(work, studies, generator)
    port, archive_port = _free_port(), _free_port()
    spool, configuration = work / "spool", work / "pacs.toml"
    begun = time.monotonic()

    def left_s() -> float:
        return max(begun + limit_s - time.monotonic(), 1.0)

    with running_archive(archive_port) as archive:
        options = {"idle_s": IDLE_S, "keep_days": 0, "candidates": "without-cad"}
        write_configuration(configuration, archive, port, spool, **options)
        command = [sys.executable, "-c", "import cli; cli.main()", "pacs", "listen", str(gallery)]
        command += ["--config", str(configuration), "--device", "cpu"]
        listener = KilledListener(command, work / "log", environment())
        # Studies arrive for as long as the kills go on.
        pauses = [draw.uniform(0, 2 * _SENDERS * kills * _CYCLE_S / studies) for _ in files]
        failures: list[str] = []
        sender = threading.Thread(
            target=lambda: failures.extend(send_all(port, list(files.values()), pauses, _SENDERS))
        )
        listener.start()
        sender.start()
        try:
            at_start = _kill(listener, kills, draw, left_s)
            sender.join(left_s())
            wait_for(lambda: phases(spool) == {"emptied"} and len(what_was_sent(archive).uids) == studies, left_s())
            sent = what_was_sent(archive)
            _send_again(work, archive, port, list(files.values()))
            wait_for(lambda: phases(spool) == {"emptied"}, left_s())
            time.sleep(2 * IDLE_S)
            left = sum(row.phase != "emptied" or row.images > 0 for row in look(spool))
        finally:
            listener.end()
    if failures:
        print(f"{len(failures)} instances were not sent: {failures[0]}", file=sys.stderr)
    return Found(
        studies=studies,
        kills=kills,
        kills_at_start=at_start,
        sends=sent.sends,
        repeats=sent.repeats,
        differing=sent.differing,
        lost=studies - len(sent.uids),
        several=sum(len(uids) > 1 for uids in sent.uids.values()),
        left=left,
        sends_again=len(archive.came) - sent.sends,
        seconds=round(time.monotonic() - begun, 1),
    )


def _kill(listener: KilledListener, kills: int, draw: random.Random, left_s: Callable[[], float]) -> int:
    """Kill a listener at moments drawn at random; return how many came before it listened."""
    at_start = 0
    for _ in range(kills):
        if draw.random() < _SHARE_AT_START:
            time.sleep(draw.uniform(0, LONGEST_S / 2))
        elif wait_for(listener.is_listening, left_s()):
            time.sleep(draw.uniform(0, LONGEST_S))
        at_start += not listener.is_listening()
        listener.kill()
    return at_start


def _send_again(work: Path, archive: Archive, port: int, studies: Sequence[Sequence[Path]]) -> None:
    """Send all studies again, and the reports that came of them."""
    reports = []
    for number, (_, data) in enumerate(list(archive.came)):
        reports.append(work / f"report-{number}.dcm")
        read_report(data).save_as(reports[-1], enforce_file_format=True)
    send_all(port, [*studies, *([report] for report in reports)], [0.0] * (len(studies) + len(reports)), _SENDERS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Kill, print what was found, and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=1500.0, help="Seconds after which no more is waited for.")
    parser.add_argument("-o", "--output", type=Path, help="CSV table of what was found.")
    arguments = parser.parse_args()
    with errors_told(), tempfile.TemporaryDirectory() as work:
        found = run(Path(work), arguments.studies, arguments.kills, arguments.seed, arguments.limit)
    table = pd.DataFrame([{**vars(found), "seed": arguments.seed, "machine": machine_line()}])
    print(table.T.to_string(header=False))
    if arguments.output is not None:
        table.to_csv(arguments.output, index=False)
    if not found.is_well:
        sys.exit("a study was lost, or has more than one report")


if __name__ == "__main__":
    main()
