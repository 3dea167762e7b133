"""The codes of a report: the standard's where it has them, and mammoseek's own for the rest.

Lesion types are those of PS3.16 CID 6054 (Breast Imaging Finding), outcomes of CID 6063, the probability of malignancy
of CID 6048. What the standard has no code for stands in the private scheme 99MAMMOSEEK, which each report declares in
its Coding Scheme Identification Sequence; PRIVATE_CODES is its table.
"""

from pydicom.sr.coding import Code

SCHEME = "99MAMMOSEEK"
SCHEME_NAME = "mammoseek"
SCHEME_VERSION = "1"

PRIVATE_CODES: dict[str, str] = {
    "RESEARCH-ONLY": "Research use only, not for diagnosis",
    "FINDING": "Finding of unspecified type",
    "NO-PRECEDENT": "No close precedent",
    "DETECTOR": "Detector",
    "DETECTOR-VERSION": "Detector version",
    "DETECTOR-SCORE": "Score of the detector, 0 to 1",
    "RESCORED": "Score of the detector after similar cases, 0 to 1",
    "NEAREST": "Similarity of the nearest case, cosine from -1 to 1",
    "RISK-METHOD": "Vote, linear head and context, calibrated on held-out women",
    "BASIS": "What the value rests on",
    "VOTE": "Probability by the vote of similar cases",
    "VOTE-NEIGHBOURS": "Similar cases that voted",
    "VOTE-WOMEN": "Women of the similar cases that voted",
    "HEAD": "Probability by a linear classifier",
    "OUTCOME-COUNT": "Similar cases below with this outcome",
    "OUTCOME": "Outcome",
    "NO-CANCER": "No cancer known (benign or normal)",
    "UNKNOWN": "Outcome unknown",
    "LESION-TYPE": "Lesion type",
    "FURTHER-TYPE": "Further lesion type",
    "SIMILAR-CASE": "Similar case of another woman",
    "SIMILARITY": "Similarity, cosine from -1 to 1",
    "CASE-ID": "Name of the similar case in its gallery",
    "CASE-DATASET": "Data set of the similar case",
    "CASE-IMAGE-UID": "SOP Instance UID of the similar case's image",
    "CASE-IMAGE": "Image of the similar case, of another woman",
    "OF-DETECTION": "Detection that the reader's verdict is of",
    "DECISION": "Reader's decision on the detection",
    "ACCEPTED": "Accepted",
    "REJECTED": "Rejected",
}
"""Code value and meaning of each code of the private scheme."""


def private_code(value: str) -> Code:
    """Return a code of the private scheme."""
    return Code(value, SCHEME, PRIVATE_CODES[value], SCHEME_VERSION)


LESION_CODES: dict[str, Code] = {
    "mass": Code("129788004", "SCT", "Mammographic breast mass"),
    "calcification": Code("309587003", "SCT", "Calcification of breast"),
    "architectural distortion": Code("129792006", "SCT", "Architectural distortion of breast"),
    "asymmetry": Code("129790003", "SCT", "Asymmetric breast tissue"),
}
"""Codes of `embedder.findings.TERMS["lesion_type"]`."""

UNCHARACTERISED = Code("111099", "DCM", "Selected region")
"""A finding of which nobody said what it is."""

OUTCOME_CODES: dict[str, Code] = {
    "benign": Code("30807003", "SCT", "Benign"),
    "malignant": Code("21594007", "SCT", "Malignant"),
    "normal": Code("17621005", "SCT", "Normal"),
    "no cancer": private_code("NO-CANCER"),
}
"""Codes of `embedder.findings.TERMS["pathology"]`."""

LATERALITY_CODES: dict[str, Code] = {
    "L": Code("7771000", "SCT", "Left"),
    "R": Code("24028007", "SCT", "Right"),
}

ANSWERS: dict[bool, Code] = {True: Code("373066001", "SCT", "Yes"), False: Code("373067005", "SCT", "No")}

BREAST = Code("76752008", "SCT", "Breast")
MAMMOGRAPHY = Code("71651007", "SCT", "Mammography")
REPORT_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
"""Of CID 7021; viewers know a report with regions by it. That it is for research stands in its modifier."""

TITLE_MODIFIER = Code("113011", "DCM", "Document Title Modifier")
PROBABILITY_OF_CANCER = Code("111047", "DCM", "Probability of cancer")
DEVICE = Code("121007", "DCM", "Device")
ESTIMATED = Code("121427", "DCM", "Estimated")
COMMENT = Code("121106", "DCM", "Comment")
LESION_IDENTIFIER = Code("121151", "DCM", "Lesion Identifier")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")
