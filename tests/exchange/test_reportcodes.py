"""The codes of reports: ours are well formed, the standard's are the standard's."""

import re

import pytest
from pydicom.sr.codedict import codes

from embedder.findings import TERMS
from exchange import reportcodes as rc


def test_every_term_of_a_lesion_and_an_outcome_has_a_code_of_its_own():
    assert set(rc.LESION_CODES) == set(TERMS["lesion_type"])
    assert set(rc.OUTCOME_CODES) == set(TERMS["pathology"])
    used = [*rc.LESION_CODES.values(), *rc.OUTCOME_CODES.values()]
    assert len({(code.value, code.scheme_designator) for code in used}) == len(used)


def test_lesion_types_are_breast_imaging_findings_of_the_standard():
    group = codes.cid6054
    standard = {getattr(group, name).value for name in group.dir()}
    assert {code.value for code in (*rc.LESION_CODES.values(), rc.UNCHARACTERISED)} <= standard


@pytest.mark.parametrize(
    ("own", "standard"),
    [
        (rc.OUTCOME_CODES["benign"], codes.SCT.Benign),
        (rc.OUTCOME_CODES["malignant"], codes.SCT.Malignant),
        (rc.OUTCOME_CODES["normal"], codes.SCT.Normal),
        (rc.LATERALITY_CODES["L"], codes.cid244.Left),
        (rc.LATERALITY_CODES["R"], codes.cid244.Right),
        (rc.BREAST, codes.SCT.Breast),
        (rc.MAMMOGRAPHY, codes.SCT.Mammography),
        (rc.REPORT_TITLE, codes.cid7021.ImagingMeasurementReport),
        (rc.TITLE_MODIFIER, codes.DCM.DocumentTitleModifier),
        (rc.PROBABILITY_OF_CANCER, codes.cid6048.ProbabilityOfCancer),
        (rc.ESTIMATED, codes.DCM.Estimated),
        (rc.COMMENT, codes.DCM.Comment),
        (rc.LESION_IDENTIFIER, codes.DCM.LesionIdentifier),
        (rc.DEVICE, codes.cid270.Device),
        (rc.PERCENT, codes.UCUM.Percent),
        (rc.NO_UNITS, codes.UCUM.NoUnits),
        (rc.ANSWERS[True], codes.SCT.Yes),
        (rc.ANSWERS[False], codes.SCT.No),
    ],
)
def test_codes_of_the_standard_are_as_it_has_them(own, standard):
    assert (own.value, own.scheme_designator) == (standard.value, standard.scheme_designator)
    assert own.meaning.casefold() == standard.meaning.casefold().split(" (")[0]


def test_own_codes_fit_into_their_elements():
    for value, meaning in rc.PRIVATE_CODES.items():
        assert re.fullmatch(r"[A-Z][A-Z-]{0,15}", value)
        assert len(meaning) <= 64
    assert len(set(rc.PRIVATE_CODES.values())) == len(rc.PRIVATE_CODES)
    assert len(rc.SCHEME) <= 16
    assert rc.SCHEME.startswith("99")
