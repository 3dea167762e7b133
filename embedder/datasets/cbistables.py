"""The case-description tables of CBIS-DDSM: their words in BI-RADS terms, and one side for every woman."""

import re
from pathlib import Path

import pandas as pd

from embedder.datasets.reading import DatasetError
from embedder.findings import TERM_SEPARATOR, TERMS

TABLES = {
    ("mass", "train"): "mass_case_description_train_set.csv",
    ("mass", "test"): "mass_case_description_test_set.csv",
    ("calc", "train"): "calc_case_description_train_set.csv",
    ("calc", "test"): "calc_case_description_test_set.csv",
}
"""File names by kind of abnormality and official split."""

_TABLE_LIMIT = 50_000_000  # bytes; the real ones have 0.6 million
_UNKNOWN = ("", "NA", "N/A")
_DENSITIES = {"0": None, "1": "A", "2": "B", "3": "C", "4": "D"}
_PATHOLOGIES = {"MALIGNANT": "malignant", "BENIGN": "benign", "BENIGN_WITHOUT_CALLBACK": "benign"}
_LATERALITIES = {"LEFT": "L", "RIGHT": "R"}
_SUBTLETIES = {"0": None, **{grade: grade for grade in "12345"}}
# DDSM was described by the lexicon of 1998 (3rd edition); these are the same signs by their names of the 5th.
_WORDS: dict[str, dict[str, str]] = {
    "shape": {
        "ROUND": "round",
        "OVAL": "oval",
        "LOBULATED": "lobular",
        "IRREGULAR": "irregular",
        "LYMPH_NODE": "lymph node",
        "ARCHITECTURAL_DISTORTION": "architectural distortion",
        "ASYMMETRIC_BREAST_TISSUE": "asymmetry",
        "FOCAL_ASYMMETRIC_DENSITY": "asymmetry",
    },
    "margin": {
        "CIRCUMSCRIBED": "circumscribed",
        "OBSCURED": "obscured",
        "MICROLOBULATED": "microlobulated",
        "ILL_DEFINED": "indistinct",
        "SPICULATED": "spiculated",
    },
    "calcification_type": {
        "SKIN": "skin",
        "VASCULAR": "vascular",
        "COARSE": "coarse",
        "LARGE_RODLIKE": "large rod-like",
        "ROUND_AND_REGULAR": "round",
        "PUNCTATE": "punctate",
        "EGGSHELL": "rim",
        "LUCENT_CENTER": "lucent-centered",
        "LUCENT_CENTERED": "lucent-centered",
        "MILK_OF_CALCIUM": "milk of calcium",
        "DYSTROPHIC": "dystrophic",
        "AMORPHOUS": "amorphous",
        "PLEOMORPHIC": "fine pleomorphic",
        "FINE_LINEAR_BRANCHING": "fine linear branching",
    },
    "calcification_distribution": {
        "CLUSTERED": "grouped",
        "REGIONAL": "regional",
        "LINEAR": "linear",
        "SEGMENTAL": "segmental",
        "DIFFUSELY_SCATTERED": "diffuse",
    },
}
_DESCRIPTORS = {
    "mass": {"shape": "mass shape", "margin": "mass margins"},
    "calc": {"calcification_type": "calc type", "calcification_distribution": "calc distribution"},
}
_PATHS = {
    "image_file": "image file path",
    "crop_file": "cropped image file path",
    "mask_file": "ROI mask file path",
}


def read_case_tables(path: Path) -> pd.DataFrame:
    """Read the case descriptions, and put every woman on one side of the split.

    Some women are in a training and in a test table, with different lesions. The official test set stays
    whole: their training rows move to the test side.

    Args:
        path: A folder with at least one of the four tables.

    Returns:
        One row per lesion: `kind` (mass or calc), `official_split` (of its table), `split`, `patient_id`,
        `laterality`, `view`, `case` and `roi` (the folders of the image and of the lesion), `image_file`,
        `crop_file` and `mask_file` (paths as the table gives them), the label columns of a manifest, and the
        table's own words as `native_…`. What the tables don't know is None.

    Raises:
        DatasetError: There is no table, or one is not as published; the error names row and column.
    """
    path = Path(path)
    present = {key: path / name for key, name in TABLES.items() if (path / name).is_file()}
    if not present:
        raise DatasetError(
            path,
            f"has none of the case-description tables ({TABLES['mass', 'train']} …)",
            "download the four tables from The Cancer Imaging Archive into it",
        )
    rows = [row for (kind, split), table in present.items() for row in _read_table(table, kind, split)]
    if not rows:
        raise DatasetError(path, "its case-description tables have no rows", "download them again")
    frame = pd.DataFrame(rows, dtype=object)
    tested = set(frame.loc[frame["official_split"] == "test", "patient_id"])
    frame["split"] = ["test" if woman in tested else "train" for woman in frame["patient_id"]]
    repeated = frame["roi"].duplicated()
    if repeated.any():
        raise DatasetError(path, f"the tables describe {frame.loc[repeated, 'roi'].iloc[0]} twice")
    return frame


def _read_table(table: Path, kind: str, split: str) -> list[dict[str, str | None]]:
    try:
        if table.stat().st_size > _TABLE_LIMIT:
            raise DatasetError(table, "is too large to be a table of CBIS-DDSM")
        frame = pd.read_csv(table, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DatasetError(table, f"can't be read as CSV ({reason[0]})", "download it again") from error
    # Masses have "breast_density", calcifications "breast density".
    frame.columns = frame.columns.str.strip().str.replace("breast_density", "breast density")
    wanted = [
        *("patient_id", "left or right breast", "image view", "abnormality id", "abnormality type"),
        *(
            "breast density",
            "assessment",
            "pathology",
            "subtlety",
            *_DESCRIPTORS[kind].values(),
            *_PATHS.values(),
        ),
    ]
    lacking = [name for name in wanted if name not in frame.columns]
    if lacking:
        raise DatasetError(table, f"has no column {', '.join(map(repr, lacking))}", "download it again")
    rows = []
    for position, cells in enumerate(frame[wanted].to_dict("records"), 1):
        # The paths end in a stray newline in half of the rows.
        row = _Row(table, position, {str(name): str(cell).strip() for name, cell in cells.items()})
        rows.append(row.described(kind, split))
    return rows


class _Row:
    """One row of a table, and how its cells are understood."""

    def __init__(self, table: Path, position: int, cells: dict[str, str]) -> None:
        self.table = table
        self.position = position
        self.cells = cells

    def described(self, kind: str, split: str) -> dict[str, str | None]:
        woman = self.matched("patient_id", r"P_\d{5}")
        laterality = self.one_of("left or right breast", _LATERALITIES)
        view = self.one_of("image view", {"CC": "CC", "MLO": "MLO"})
        case = "_".join(
            [
                f"{kind.title()}-{'Training' if split == 'train' else 'Test'}",
                *(woman, self.cells["left or right breast"], self.cells["image view"]),
            ]
        )
        described = {
            "kind": kind,
            "official_split": split,
            "patient_id": woman,
            "laterality": laterality,
            "view": view,
            "case": case,
            "roi": f"{case}_{self.matched('abnormality id', r'[0-9]{1,2}')}",
            **{name: self.cells[column] for name, column in _PATHS.items()},
            "density": self.one_of("breast density", _DENSITIES),
            "assessment": self.matched("assessment", "[0-5]"),
            "pathology": self.one_of("pathology", _PATHOLOGIES),
            "subtlety": self.one_of("subtlety", _SUBTLETIES),
            **dict.fromkeys(_WORDS),
            "native_lesion_type": self.cells["abnormality type"],
            "native_pathology": self.cells["pathology"],
            "native_density": self.cells["breast density"],
            **dict.fromkeys(f"native_{name}" for name in _WORDS),
        }
        for name, column in _DESCRIPTORS[kind].items():
            described[name] = self.terms(column, name)
            described[f"native_{name}"] = self.cells[column] if self.cells[column] not in _UNKNOWN else None
        described["lesion_type"] = _lesion_type(kind, described["shape"])
        return described

    def matched(self, column: str, pattern: str) -> str:
        if re.fullmatch(pattern, self.cells[column]) is None:
            raise self.error(column, "is not as published")
        return self.cells[column]

    def one_of(self, column: str, known: dict[str, str | None] | dict[str, str]) -> str | None:
        if self.cells[column] not in known:
            raise self.error(column, f"is none of {', '.join(known)}")
        return known[self.cells[column]]

    def terms(self, column: str, name: str) -> str | None:
        if self.cells[column] in _UNKNOWN:
            return None
        words = self.cells[column].split("-")
        unknown = [word for word in words if word not in _WORDS[name]]
        if unknown:
            raise self.error(column, f"has a word that is none of {', '.join(_WORDS[name])}")
        # In one order and each once, so that the same description is the same class.
        found = {_WORDS[name][word] for word in words}
        return TERM_SEPARATOR.join(term for term in TERMS[name] if term in found)

    def error(self, column: str, cause: str) -> DatasetError:
        cell = self.cells[column][:80]
        return DatasetError(self.table, f"row {self.position}, column {column!r}: {cell!r} {cause}")


def _lesion_type(kind: str, shape: str | None) -> str:
    if kind == "calc":
        return "calcification"
    # These two are listed as mass shapes, but are lesions of their own; beside a shape they tell of a mass.
    return shape if shape in ("architectural distortion", "asymmetry") else "mass"
