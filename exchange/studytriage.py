"""A study's folder in, its reports out: what a listener does with each study that it received."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from embedder.findings import patient_key
from exchange import ExchangeError
from exchange.caddetections import CadConfig
from exchange.detecting import Detector
from exchange.detections import detections_frame
from exchange.formats.cad import read_cad
from exchange.formats.kinds import is_cad_report
from exchange.images import ImageCatalogue
from exchange.rescoring import Rescorer
from exchange.results import ResultOptions
from exchange.secondreader import OpinionConfig, SecondReader
from exchange.studycandidates import DATASET, study_candidates
from exchange.suppression import SuppressionConfig, suppress
from exchange.triage import detections_digest, read_opinions, triage
from exchange.triagereports import write_reports


class StudyTriage:
    """Gives a second opinion on the findings of the CAD reports in a study, or on candidates of our own without one.

    The same study gives the same reports: they are made anew when the processing was cut short.

    Args:
        reader: Who forms the opinions.
        detector: Finds candidates where the study has no CAD report; None leaves such a study without a report. A CAD
            report that marks nothing has spoken: nothing is searched then.
        say: Told what was not searched, a line at a time.
        cad: Which findings of a CAD report are taken.
        results: How reports are written.
        captures: Write montages as secondary captures too.
        workers: Threads that read images.
    """

    def __init__(
        self,
        reader: SecondReader,
        *,
        detector: Detector | None = None,
        say: Callable[[str], None] = lambda line: None,
        cad: CadConfig | None = None,
        results: ResultOptions | None = None,
        captures: bool = False,
        workers: int | None = None,
    ) -> None:
        self.reader, self.detector, self.say, self.workers = reader, detector, say, workers
        self.cad, self.results, self.captures = cad or CadConfig(), results, captures

    def __call__(self, folder: Path, work: Path) -> list[Path]:
        """Process a study.

        Args:
            folder: Its images and CAD reports.
            work: Folder of what is said of it: patient data. A processing that was cut short goes on there.

        Returns:
            The structured reports (and captures); none where nothing is marked or found.

        Raises:
            ExchangeError: Nothing that is marked can be used, no image can be searched, or a report can't be written.
            MammoseekError: The gallery can't be asked.
        """
        frame, problems = self._detections(Path(folder))
        if frame.empty:
            if problems:
                place, reason = problems[0]
                raise ExchangeError(folder, f"none of its findings can be used ({place}: {reason})")
            return []
        output = Path(work) / detections_digest(frame)[:32]
        failures = triage(self.reader, frame, output, workers=self.workers).failures
        opinions = [one.opinion for one in read_opinions(output)]
        reports, unreported = write_reports(output, opinions, self.reader, self.results, captures=self.captures)
        if not reports:
            name, reason = [*unreported, *failures][0]
            raise ExchangeError(folder, f"no report can be made of it ({name}: {reason})")
        return reports

    def _detections(self, folder: Path) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        reports = sorted(path for path in folder.rglob("*") if path.is_file() and is_cad_report(path))
        catalogue = ImageCatalogue((), [folder], dataset=DATASET)
        found, problems = [], []
        for report in reports:
            reading = read_cad(report, catalogue, self.cad, "its SOP class is Mammography CAD SR")
            found += list(reading.detections)
            problems += list(reading.problems)
        if not reports and self.detector is not None:
            found = study_candidates(self.detector, folder, catalogue, self.say)
        frame = detections_frame({one.detection_id: one for one in found}.values())
        if len(set(patient_key(frame))) > 1:
            raise ExchangeError(folder, "its findings are of several women", "send each woman's study by itself")
        return suppress(frame, SuppressionConfig()) if len(frame) else frame, problems


def open_triage(
    *,
    gallery: str,
    candidates: bool,
    rescorer: str | None,
    presentation: str,
    name_cases: bool,
    captures: bool,
    uid_root: str,
    device: str,
    say: Callable[[str], None],
) -> StudyTriage:
    """Load all that the processing of studies takes, once, from plain values.

    Args:
        gallery: Folder of the gallery.
        candidates: Whether studies without a CAD report are searched.
        rescorer: File of what makes new scores.
        presentation: Findings of CAD reports to take.
        name_cases: Whether reports may name the similar cases.
        captures: Write montages as secondary captures too.
        uid_root: Root of the UIDs of reports.
        device: Where to compute.
        say: Told what was not searched, a line at a time.

    Raises:
        MammoseekError: Gallery, model or rescorer can't be used, or an option is wrong.
    """
    return StudyTriage(
        SecondReader(
            Path(gallery),
            rescorer=None if rescorer is None else Rescorer.load(Path(rescorer)),
            config=OpinionConfig(name_cases=name_cases),
            device=device,
        ),
        detector=Detector(Path(gallery), device=device) if candidates else None,
        say=say,
        cad=CadConfig(presentation),
        results=ResultOptions(uid_root),
        captures=captures,
    )
