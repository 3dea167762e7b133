"""Triage: a second opinion on every detection of a worklist, kept as it comes, sorted and written out at the end."""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from exchange import ExchangeError
from exchange.opinions import SecondOpinion, count_outcomes, opinion_from_dict
from exchange.secondreader import EVIDENCE, LESION_HEAD, LESION_VOTE, Opinion, SecondReader
from exchange.worklist import Worklist
from index.durable import storage_error, write_whole

WORKLIST_FILE = "worklist.jsonl"
TABLE_FILE = "triage.csv"
OPINIONS_FILE = "opinions.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class TriageReport:
    """What a triage did.

    Attributes:
        detections: How many there are.
        answered: How many have an opinion now.
        kept: How many of these had one before.
        failures: Detection and reason of those that have none.
    """

    detections: int
    answered: int
    kept: int
    failures: list[tuple[str, str]]


def triage(
    reader: SecondReader,
    detections: pd.DataFrame,
    output: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> TriageReport:
    """Form an opinion on every detection and keep it in a folder.

    A triage that was stopped goes on where it was when it is called again with the same detections, gallery and
    options. One bad image costs its own detections.

    Args:
        reader: Who forms the opinions.
        detections: As `exchange.detections.detections_frame` gives them.
        output: The folder. What lies there names women and outcomes: patient data.
        workers: Threads that read images.
        progress: Called with detections done and detections in all.

    Raises:
        ExchangeError: Two detections have one id, the folder holds another triage, or it can't be written.
        MammoseekError: The gallery can't be asked.
    """
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise ExchangeError(output, "is a file", "name a folder for the triage")
    check_ids(detections)
    plan = {"detections": detections_digest(detections), **reader.plan}
    failures: list[tuple[str, str]] = []
    with Worklist(output / WORKLIST_FILE, plan) as worklist:
        known = worklist.answered()
        done = kept = len(known)
        if progress is not None:
            progress(done, len(detections))
        for batch in reader.read(detections, known=known, workers=workers):
            new = [opinion for opinion in batch.opinions if opinion.opinion.detection_id not in known]
            worklist.append([opinion_record(opinion) for opinion in new])
            failures += batch.failures
            done += len(new) + len(batch.failures)
            if progress is not None:
                progress(done, len(detections))
    write_table(output)
    write_opinions(output)
    return TriageReport(len(detections), len(detections) - len(failures), kept, failures)


def check_ids(detections: pd.DataFrame) -> None:
    """Refuse a table in which an id names two detections.

    Raises:
        ExchangeError: There is such an id, or the table is empty.
    """
    if detections.empty:
        raise ExchangeError("detections", "there are none", "name a table that holds some")
    twice = detections.loc[detections["row_id"].duplicated(), "row_id"]
    if len(twice):
        raise ExchangeError("detections", f"the id {twice.iloc[0]} names two of them", "give each a name of its own")


def detections_digest(detections: pd.DataFrame) -> str:
    """Return the SHA-256 of all that a table of detections says."""
    rows = detections.astype("object").where(detections.notna(), None)
    text = json.dumps(rows.to_dict("split"), default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def opinion_record(opinion: Opinion) -> dict[str, Any]:
    """Return an opinion as the plain JSON values that a worklist keeps."""
    return {
        "id": opinion.opinion.detection_id,
        "woman": opinion.woman,
        "study_id": opinion.study_id,
        "view": opinion.view,
        "evidence": dict(opinion.evidence),
        "opinion": json.loads(json.dumps(asdict(opinion.opinion))),
    }


def read_opinions(output: Path) -> Iterator[Opinion]:
    """Yield the opinions of a triage's folder, one at a time, in the order in which they came.

    Raises:
        ExchangeError: There is no triage, or it is damaged.
    """
    path = Path(output) / WORKLIST_FILE
    try:
        with path.open("rb") as file:
            next(file, None)
            for line in file:
                if line.endswith(b"\n"):
                    yield _opinion(json.loads(line))
    except OSError as error:
        raise ExchangeError(path, f"can't be read ({error.strerror})", "run `mammoseek triage` first") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ExchangeError(path, f"is damaged ({error})", "delete it and run the triage again") from error


def _opinion(record: dict[str, Any]) -> Opinion:
    return Opinion(
        str(record["woman"]),
        record["study_id"],
        record["view"],
        opinion_from_dict(record["opinion"]),
        {name: record["evidence"].get(name) for name in EVIDENCE},
    )


def write_table(output: Path) -> None:
    """Write a triage as one CSV table, a row for each detection: by woman and study, the most urgent first.

    It is a table of detections too: `score` is the detector's own, `rescored` the new one.

    Raises:
        ExchangeError: It can't be written.
    """
    rows = [_table_row(opinion) for opinion in read_opinions(output)]
    rows.sort(key=lambda row: (row["woman"], row["study_id"] or "", -row["urgency"], row["detection_id"]))
    buffer = io.StringIO()
    names = list(rows[0]) if rows else ["detection_id"]
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(Path(output) / TABLE_FILE, buffer.getvalue().encode())


def write_opinions(output: Path) -> None:
    """Write a triage as one JSON file: its plan, and all that is said of each detection.

    Raises:
        ExchangeError: It can't be written.
    """
    path = Path(output) / WORKLIST_FILE
    lines = [line for line in path.read_bytes().splitlines() if line]
    content = b'{"plan": ' + lines[0] + b',\n"opinions": [\n' + b",\n".join(lines[1:]) + b"\n]}\n"
    _write(Path(output) / OPINIONS_FILE, content)


def _table_row(opinion: Opinion) -> dict[str, Any]:
    said: SecondOpinion = opinion.opinion
    box = said.box or (None,) * 4
    nearest = said.similar[0] if said.similar else None
    dataset, _, patient = opinion.woman.partition("/")
    return {
        "detection_id": said.detection_id,
        "woman": opinion.woman,
        "dataset": dataset,
        "patient_id": patient,
        "study_id": opinion.study_id,
        "path": said.path,
        "sop_uid": said.sop_uid,
        "frame_number": said.frame_number,
        "laterality": said.laterality,
        "view": opinion.view,
        **dict(zip(("x0", "y0", "x1", "y1"), box, strict=True)),
        "lesion_id": said.lesion_id,
        "lesion_type": said.lesion_type,
        "detector": said.detector,
        "detector_version": said.detector_version,
        "score": said.score,
        "rescored": said.rescored,
        "urgency": opinion.urgency,
        "malignancy": None if said.risk is None else said.risk.probability,
        "lesion_vote": opinion.evidence.get(LESION_VOTE),
        "lesion_head": opinion.evidence.get(LESION_HEAD),
        "nearest": None if nearest is None else nearest.row_id,
        "similarity": None if nearest is None else nearest.similarity,
        "outcomes": "; ".join(f"{name} {count}" for name, count in count_outcomes(said.similar).most_common()),
        "no_close_precedent": said.no_close_precedent,
        "notes": "; ".join(said.notes),
    }


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        reason = storage_error(path, error)
        raise ExchangeError(path, reason.cause, reason.remedy) from error
