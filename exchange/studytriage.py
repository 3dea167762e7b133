"""A study's folder in, its reports out: what a listener does with each study that it received."""

from pathlib import Path

import pandas as pd

from embedder.findings import patient_key
from exchange import ExchangeError
from exchange.caddetections import CadConfig
from exchange.detections import detections_frame
from exchange.formats.cad import read_cad
from exchange.formats.kinds import is_cad_report
from exchange.images import ImageCatalogue
from exchange.results import ResultOptions
from exchange.secondreader import SecondReader
from exchange.suppression import SuppressionConfig, suppress
from exchange.triage import detections_digest, read_opinions, triage
from exchange.triagereports import write_reports

DATASET = "pacs"
"""Data set of the women of received studies. Their ids count in every data set of the gallery."""


class StudyTriage:
    """Gives a second opinion on the findings of the CAD reports in a study.

    The same study gives the same reports: they are made anew when the processing was cut short.

    Args:
        reader: Who forms the opinions.
        work: Folder of what is kept of each study: patient data.
        cad: Which findings of a CAD report are taken.
        results: How reports are written.
        captures: Write montages as secondary captures too.
        workers: Threads that read images.
    """

    def __init__(
        self,
        reader: SecondReader,
        work: Path,
        *,
        cad: CadConfig | None = None,
        results: ResultOptions | None = None,
        captures: bool = False,
        workers: int | None = None,
    ) -> None:
        self.reader, self.work, self.workers = reader, Path(work), workers
        self.cad, self.results, self.captures = cad or CadConfig(), results, captures

    def __call__(self, folder: Path) -> list[Path]:
        """Process a study.

        Args:
            folder: Its images and CAD reports.

        Returns:
            The structured reports (and captures); none where no CAD report marks a finding.

        Raises:
            ExchangeError: Nothing that the reports mark can be used, or a report can't be written.
            MammoseekError: The gallery can't be asked.
        """
        frame, problems = self._detections(Path(folder))
        if frame.empty:
            if problems:
                place, reason = problems[0]
                raise ExchangeError(folder, f"none of its findings can be used ({place}: {reason})")
            return []
        output = self.work / detections_digest(frame)[:32]
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
        frame = detections_frame({one.detection_id: one for one in found}.values())
        if len(set(patient_key(frame))) > 1:
            raise ExchangeError(folder, "its findings are of several women", "send each woman's study by itself")
        return suppress(frame, SuppressionConfig()) if len(frame) else frame, problems
