"""The montages of a triage as secondary captures, for viewers that show no structured report."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from embedder.montage import Panel, draw_montage
from exchange.capture import montage_capture
from exchange.opinions import SecondOpinion, StudyOpinions
from exchange.results import ResultOptions
from exchange.secondreader import SecondReader
from exchange.triagepage import case_picture, own_picture

_CASES = 9  # of a detection, the nearest


def capture_opinions(
    opinions: StudyOpinions, images: Sequence[Dataset], reader: SecondReader, options: ResultOptions | None = None
) -> list[Dataset]:
    """Return a montage of each of a study's detections as a secondary capture, ready to be saved.

    The pictures go into this woman's study: they tell outcome, lesion type and similarity of other women's findings,
    and neither their names nor those of their images.

    Args:
        opinions: What is said of the study.
        images: Headers of its images.
        reader: Who formed the opinions: the pictures of the similar cases come from its gallery.
        options: How captures are written.

    Raises:
        MammoseekError: A picture can't be drawn, or the images are not of the study.
    """
    captures = []
    with tempfile.TemporaryDirectory() as folder:
        for number, said in enumerate(opinions.opinions, start=1):
            picture = Path(folder) / f"{number}.png"
            _draw(said, reader, picture)
            captures.append(montage_capture(picture, opinions, images, options, instance_number=number))
    return captures


def _draw(said: SecondOpinion, reader: SecondReader, path: Path) -> None:
    preparation = reader.embedder.preparation
    heading = "NO CLOSE PRECEDENT: these are far.  " if said.no_close_precedent else ""
    panels = [
        Panel(
            case_picture(reader.gallery, preparation, case),
            f"{rank}.  similarity {case.similarity:.2f}",
            (case.outcome or "outcome unknown", case.lesion_type or "lesion type unknown"),
            case.outcome,
        )
        for rank, case in enumerate(said.similar[:_CASES], start=1)
    ]
    own = Panel(own_picture(said, preparation), "detection", (said.detection_id, said.lesion_type or ""))
    draw_montage(own, panels, path, heading=f"{heading}Similar findings of other women.", columns=5)
