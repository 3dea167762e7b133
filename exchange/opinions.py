"""What mammoseek has to say of a study's detections, as plain values: what a report is made from, and kept as JSON.

Names are those of `exchange.detections`, `classifiers.classification` and `index.records`. What is unknown is None.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Self

from exchange import ExchangeError
from exchange.uids import is_uid

Point = tuple[float, float]

_SIMILARITY_SLACK = 1e-3  # a cosine of float32 vectors may stand a little beyond 1
_LARGEST_COORDINATE = 1_000_000


@dataclass(frozen=True)
class SimilarCase:
    """One neighbour: a finding of another woman, with what became of it.

    An image can be referred to where its four UIDs are known: a report must say in which study and series it lies.

    Args:
        similarity: Cosine to the detection, -1 to 1.
        row_id: Names it in its gallery; None where it is withheld.
        dataset: Its data set.
        patient_id: Its woman. Never written into a report, which belongs to another woman.
        outcome: Its pathology, one of `embedder.findings.TERMS` or the data set's own word.
        lesion_type: One of `embedder.findings.TERMS`, or several joined.
        sop_uid: SOP Instance UID of its image.
        sop_class_uid: SOP Class UID of its image.
        series_uid: Series Instance UID of its image.
        study_uid: Study Instance UID of its image.
        may_be_shown: Whether a report may name it; where not, it tells similarity, outcome and lesion type alone.
    """

    similarity: float
    row_id: str | None = None
    dataset: str | None = None
    patient_id: str | None = None
    outcome: str | None = None
    lesion_type: str | None = None
    sop_uid: str | None = None
    sop_class_uid: str | None = None
    series_uid: str | None = None
    study_uid: str | None = None
    may_be_shown: bool = False

    def __post_init__(self) -> None:
        subject = f"similar case {self.row_id!r}"
        _check_number(subject, "similarity", self.similarity, -1 - _SIMILARITY_SLACK, 1 + _SIMILARITY_SLACK)
        for name in ("row_id", "dataset", "patient_id", "outcome", "lesion_type"):
            _check_text(subject, name, getattr(self, name))
        for name in ("sop_uid", "sop_class_uid", "series_uid", "study_uid"):
            _check_uid(subject, name, getattr(self, name))
        _check_type(subject, "may_be_shown", self.may_be_shown, bool)

    @property
    def has_reference(self) -> bool:
        """Whether its image may be referred to, and can be."""
        known = (self.sop_uid, self.sop_class_uid, self.series_uid, self.study_uid)
        return self.may_be_shown and None not in known


def count_outcomes(similar: Iterable[SimilarCase]) -> Counter[str]:
    """Return how many similar cases had which outcome, `unknown` where it is not known, in the order of the cases."""
    return Counter(case.outcome or "unknown" for case in similar)


@dataclass(frozen=True)
class Vote:
    """The kNN vote on pathology, see `classifiers.classification.VoteAnswer`.

    Args:
        neighbours: How many findings voted.
        women: How many women they belong to.
        probabilities: Calibrated probability of each class.
    """

    neighbours: int
    women: int
    probabilities: dict[str, float]

    def __post_init__(self) -> None:
        for name in ("neighbours", "women"):
            _check_type("vote", name, getattr(self, name), int)
            _check_number("vote", name, getattr(self, name), 0, 2**31 - 1)
        _check_probabilities("vote", self.probabilities)


@dataclass(frozen=True)
class Risk:
    """The calibrated probability of malignancy, see `classifiers.riskanswers.RiskAnswer`.

    Args:
        probability: In [0, 1].
        basis: What it rests on.
    """

    probability: float
    basis: str

    def __post_init__(self) -> None:
        _check_number("risk", "probability", self.probability, 0, 1)
        _check_type("risk", "basis", self.basis, str)


@dataclass(frozen=True)
class SecondOpinion:
    """What mammoseek has to say of one detection.

    Args:
        detection_id: Names the detection, unique in its study.
        sop_uid: SOP Instance UID of its image; None for a picture file.
        path: The image file.
        frame_number: Which image of a multi-frame file, from 1.
        box: x0, y0, x1, y1 in pixels of the stored image, half-open; None for a finding without coordinates.
        outline: Corners (x, y) in the same coordinates, of pixel edges.
        lesion_id: Detections with one id are views of one lesion.
        lesion_type: The detector's opinion, one of `embedder.findings.TERMS` or several joined.
        laterality: `L` or `R`.
        detector: The detector's name.
        detector_version: Its version.
        score: Its score, in [0, 1].
        similar: The nearest findings of other women, best first.
        vote: The kNN vote on pathology.
        head_probabilities: The linear head's calibrated probability of each class of pathology.
        risk: Probability of malignancy; None where it could not be made.
        no_close_precedent: Whether even the nearest neighbour is far; None where that is not known.
        rescored: The detector's score after the second opinion, in [0, 1].
        notes: What a reader should know.
    """

    detection_id: str
    sop_uid: str | None = None
    path: str | None = None
    frame_number: int | None = None
    box: tuple[int, int, int, int] | None = None
    outline: tuple[Point, ...] | None = None
    lesion_id: str | None = None
    lesion_type: str | None = None
    laterality: str | None = None
    detector: str | None = None
    detector_version: str | None = None
    score: float | None = None
    similar: tuple[SimilarCase, ...] = ()
    vote: Vote | None = None
    head_probabilities: dict[str, float] | None = None
    risk: Risk | None = None
    no_close_precedent: bool | None = None
    rescored: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_name("opinion", "detection_id", self.detection_id)
        subject = f"detection {self.detection_id!r}"
        for name in ("path", "lesion_id", "lesion_type", "detector", "detector_version"):
            _check_text(subject, name, getattr(self, name))
        _check_uid(subject, "sop_uid", self.sop_uid)
        if self.laterality not in (None, "L", "R"):
            raise ExchangeError(subject, f"its laterality is {self.laterality!r}", "give L, R or nothing")
        if self.frame_number is not None:
            _check_type(subject, "frame_number", self.frame_number, int)
            _check_number(subject, "frame_number", self.frame_number, 1, 2**31 - 1)
        for name in ("score", "rescored"):
            if getattr(self, name) is not None:
                _check_number(subject, name, getattr(self, name), 0, 1)
        if self.no_close_precedent is not None:
            _check_type(subject, "no_close_precedent", self.no_close_precedent, bool)
        if self.head_probabilities is not None:
            _check_probabilities(subject, self.head_probabilities)
        for note in self.notes:
            _check_type(subject, "a note", note, str)
        self._check_place(subject)

    def _check_place(self, subject: str) -> None:
        if self.box is not None:
            if len(self.box) != 4 or any(type(corner) is not int for corner in self.box):
                raise ExchangeError(subject, f"its box {self.box} is not four whole numbers", "give x0, y0, x1, y1")
            x0, y0, x1, y1 = self.box
            if x0 >= x1 or y0 >= y1 or max(map(abs, self.box)) > _LARGEST_COORDINATE:
                raise ExchangeError(subject, f"its box {self.box} is empty, inverted or no place on an image")
        for point in self.outline or ():
            if not isinstance(point, tuple) or len(point) != 2:
                raise ExchangeError(subject, "its outline has a corner that is not two numbers", "give x and y")
            for value in point:
                _check_number(subject, "the outline", value, -_LARGEST_COORDINATE, _LARGEST_COORDINATE)


@dataclass(frozen=True)
class StudyOpinions:
    """What mammoseek has to say of the detections of one study.

    Args:
        study_uid: Study Instance UID.
        model_digest: The model that embedded them.
        preparation_digest: The preparation that their pixels went through.
        gallery_digest: The gallery that was asked.
        gallery_generation: Counts the changes of its content.
        version: Version of mammoseek.
        patient_id: The woman; None where she is unknown.
        opinions: One for each detection.
    """

    study_uid: str
    model_digest: str
    preparation_digest: str
    gallery_digest: str
    gallery_generation: int
    version: str
    patient_id: str | None = None
    opinions: tuple[SecondOpinion, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.study_uid is None:
            raise ExchangeError("opinions", "they name no study", "give its Study Instance UID")
        _check_uid("opinions", "study_uid", self.study_uid)
        for name in ("model_digest", "preparation_digest", "gallery_digest", "version"):
            _check_name("opinions", name, getattr(self, name))
        _check_text("opinions", "patient_id", self.patient_id)
        _check_type("opinions", "gallery_generation", self.gallery_generation, int)
        names = [opinion.detection_id for opinion in self.opinions]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if twice:
            raise ExchangeError("opinions", f"two are of the detection {twice[0]!r}", "give each detection one name")

    def to_dict(self) -> dict[str, Any]:
        """Return them as plain JSON values."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @classmethod
    def from_dict(cls, content: object) -> Self:
        """Read what `to_dict` returned.

        Raises:
            ExchangeError: It is something else; the message names the first part that is wrong.
        """
        given = _fields_of(cls, content, "opinions")
        opinions = tuple(opinion_from_dict(one) for one in _listed(given.get("opinions", []), "opinions"))
        return cls(**{**given, "opinions": opinions})


def opinion_from_dict(content: object) -> SecondOpinion:
    """Read what `dataclasses.asdict` made of an opinion, as JSON has it.

    Raises:
        ExchangeError: It is something else.
    """
    given = _fields_of(SecondOpinion, content, "opinion")
    subject = f"detection {given['detection_id']!r}"
    parts: dict[str, Any] = {
        "similar": tuple(
            SimilarCase(**_fields_of(SimilarCase, case, f"{subject}, similar case"))
            for case in _listed(given.get("similar", []), subject)
        ),
        "notes": tuple(_listed(given.get("notes", []), subject)),
    }
    if given.get("box") is not None:
        parts["box"] = tuple(_listed(given["box"], subject))
    if given.get("outline") is not None:
        parts["outline"] = tuple(
            tuple(_listed(point, subject)) for point in _listed(given["outline"], f"{subject}, outline")
        )
    for name, kind in (("vote", Vote), ("risk", Risk)):
        if given.get(name) is not None:
            parts[name] = kind(**_fields_of(kind, given[name], f"{subject}, {name}"))
    return SecondOpinion(**{**given, **parts})


def _fields_of(kind: type, content: object, subject: str) -> dict[str, Any]:
    """Return the fields of a class that JSON gives; refuse unknown ones and the lack of one that must be there."""
    if not isinstance(content, Mapping):
        raise ExchangeError(subject, f"{type(content).__name__} stands where an object must", "write them anew")
    known = {one.name: one for one in fields(kind)}
    if unknown := sorted(str(name) for name in content if name not in known):
        raise ExchangeError(subject, f"there is no field {unknown[0]!r}", f"the fields are {', '.join(known)}")
    needed = [name for name, one in known.items() if one.default is MISSING and one.default_factory is MISSING]
    if lacking := [name for name in needed if name not in content]:
        raise ExchangeError(subject, f"the field {lacking[0]!r} is missing", "write them anew")
    return dict(content)


def _listed(content: object, subject: str) -> list[Any]:
    if not isinstance(content, list | tuple):
        raise ExchangeError(subject, f"{type(content).__name__} stands where a list must", "write them anew")
    return list(content)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def _check_type(subject: str, name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):  # a bool is an int to Python
        raise ExchangeError(subject, f"{name} is {value!r:.80}", f"give a {kind.__name__}")


def _check_text(subject: str, name: str, value: object) -> None:
    if value is not None:
        _check_type(subject, name, value, str)


def _check_name(subject: str, name: str, value: object) -> None:
    _check_type(subject, name, value, str)
    if not str(value).strip():
        raise ExchangeError(subject, f"{name} is empty", "name it")


def _check_uid(subject: str, name: str, value: object) -> None:
    _check_text(subject, name, value)
    if isinstance(value, str) and not is_uid(value):
        raise ExchangeError(subject, f"{name} is {value!r:.80}, which is no UID", "give it as the DICOM file has it")


def _check_number(subject: str, name: str, value: object, lowest: float, highest: float) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not lowest <= value <= highest:
        raise ExchangeError(subject, f"{name} is {value!r:.80}", f"give a number from {lowest:g} to {highest:g}")


def _check_probabilities(subject: str, value: object) -> None:
    if not isinstance(value, dict) or not all(isinstance(name, str) and name.strip() for name in value):
        raise ExchangeError(subject, "its probabilities are none by class", "give a probability for each class")
    for name, probability in value.items():
        _check_number(subject, f"the probability of {name!r}", probability, 0, 1)
