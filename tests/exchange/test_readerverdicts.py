"""Readers' verdicts in a report: each by its reader, in the standard's codes, apart from what mammoseek says."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from embedder.findings import TERMS
from exchange import ExchangeError
from exchange.readerverdicts import ASSESSMENT_CODES, ReaderVerdict, is_verdict, read_assessments
from exchange.reportreading import read_opinions
from exchange.reports import study_report
from exchange.results import ResultOptions, write_result
from tests.exchange.report_cases import IMAGE, OPINION, dciodvfy_errors, some_image, some_opinions

pytest.importorskip("highdicom", reason="install mammoseek[exchange] for structured reports")
OPTIONS = ResultOptions(created=datetime(2024, 2, 1, 8, 30))
PLACED = ReaderVerdict(
    verdict_id="0123456789abcdef",
    reader="anna",
    time=datetime(2024, 2, 1, 8, 20, tzinfo=UTC),
    sop_uid=IMAGE,
    box=(20, 30, 80, 90),
    detection_id="finding 1",
    assessment="4A",
    decision="accept",
    text="spiculated; biopsy",
)
WHOLE = ReaderVerdict("fedcba9876543210", "Bea^=", datetime(2024, 2, 1, 9, 0, tzinfo=UTC), assessment="2")


def groups(document):
    return [
        group for part in document.ContentSequence for group in part.get("ContentSequence", []) if is_verdict(group)
    ]


def test_the_standard_has_a_code_for_every_assessment_that_findings_know():
    assert set(ASSESSMENT_CODES) == set(TERMS["assessment"])


def test_verdicts_stand_beside_the_opinions_and_both_come_back(tmp_path):
    document = study_report(some_opinions(), [some_image()], OPTIONS, verdicts=[PLACED, WHOLE])
    path = tmp_path / "report.dcm"
    write_result(document, path)
    read = pydicom.dcmread(path)
    assert [(name.rstrip("^"), category) for name, category in read_assessments(read)] == [
        ("anna", "4A"),
        ("Bea", "2"),
    ]
    alone = study_report(some_opinions(), [some_image()], OPTIONS)
    assert read_opinions(read) == read_opinions(alone)
    assert document.SOPInstanceUID != alone.SOPInstanceUID
    assert dciodvfy_errors(path) == ""


def test_a_report_of_verdicts_alone_is_valid(tmp_path):
    path = tmp_path / "report.dcm"
    write_result(study_report(replace(some_opinions(), opinions=()), [some_image()], OPTIONS, verdicts=[WHOLE]), path)
    assert [category for _, category in read_assessments(pydicom.dcmread(path))] == ["2"]
    assert dciodvfy_errors(path) == ""


def test_a_verdict_names_place_detection_decision_text_and_time():
    (group,) = groups(study_report(some_opinions(OPINION), [some_image()], OPTIONS, verdicts=[PLACED]))
    said = str(group)
    assert [item.TextValue for item in group.ContentSequence if "TextValue" in item][-1] == "spiculated; biopsy"
    for expected in ("finding 1", "Accepted", "20240201082000", "4A - Low suspicion", "anna"):
        assert expected in said
    assert "mammoseek" not in said.replace("99MAMMOSEEK", "")
    region = next(item for item in group.ContentSequence if "GraphicData" in item)
    assert [float(number) for number in region.GraphicData][:4] == [20, 30, 80, 30]


@pytest.mark.parametrize(
    "change",
    [{"assessment": "7"}, {"decision": "perhaps"}, {"reader": " "}, {"verdict_id": ""}, {"box": (5, 5, 5, 9)}],
)
def test_what_is_no_verdict_is_refused(change):
    with pytest.raises(ExchangeError):
        study_report(some_opinions(), [some_image()], OPTIONS, verdicts=[replace(PLACED, **change)])


def test_a_verdict_on_an_image_that_is_not_there_is_refused():
    with pytest.raises(ExchangeError, match="not among those given"):
        study_report(some_opinions(), [some_image()], OPTIONS, verdicts=[replace(PLACED, sop_uid="1.2.3")])


def test_nothing_at_all_is_no_report():
    with pytest.raises(ExchangeError, match="no finding"):
        study_report(replace(some_opinions(), opinions=()), [some_image()], OPTIONS)


def test_the_file_is_the_same_each_time(tmp_path: Path):
    files = [tmp_path / "a.dcm", tmp_path / "b.dcm"]
    for path in files:
        write_result(study_report(some_opinions(), [some_image()], OPTIONS, verdicts=[PLACED]), path)
    assert files[0].read_bytes() == files[1].read_bytes()
