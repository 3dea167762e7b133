"""What is asked of an archive."""

import re
from dataclasses import dataclass

from exchange import ExchangeError

_DATES = re.compile(r"(\d{8})?(-(\d{8})?)?")


@dataclass(frozen=True)
class Query:
    """Which instances to find; at least one of study, patient and dates.

    Args:
        study_uid: Study Instance UID.
        patient_id: Patient ID, without wildcards.
        dates: Study date, `YYYYMMDD`, or a range: `YYYYMMDD-YYYYMMDD`, `YYYYMMDD-`, `-YYYYMMDD`.
        modality: Modality of the series; None for all.
    """

    study_uid: str | None = None
    patient_id: str | None = None
    dates: str | None = None
    modality: str | None = "MG"

    def __post_init__(self) -> None:
        if not (self.study_uid or self.patient_id or self.dates):
            raise ExchangeError("query", "asks for the whole archive", "name a study, a patient or dates")
        if self.study_uid and not re.fullmatch(r"[0-9.]{1,64}", self.study_uid):
            raise ExchangeError("query", f"{self.study_uid[:80]!r} is no study UID", "it has digits and dots alone")
        for name in ("patient_id", "modality"):
            text = getattr(self, name)
            # To a server * and ? are wildcards, and a backslash makes a list: other women's images would come.
            if text and (len(text) > 64 or not text.isprintable() or set(text) & set("*?\\")):
                raise ExchangeError("query", f"{name} can't be {text[:80]!r}", "write it whole, without * ? or \\")
        if self.dates and (not _DATES.fullmatch(self.dates) or self.dates == "-"):
            raise ExchangeError("query", f"dates can't be {self.dates[:80]!r}", "write YYYYMMDD or YYYYMMDD-YYYYMMDD")

    def keys(self) -> dict[str, str]:
        """Return the keys of a search for studies, without the empty ones."""
        keys = {"StudyInstanceUID": self.study_uid, "PatientID": self.patient_id, "StudyDate": self.dates}
        keys["ModalitiesInStudy"] = self.modality
        return {name: value for name, value in keys.items() if value}

    def accepts_study(self, study_uid: str, patient_id: str) -> bool:
        """Tell whether a found study is what was asked for: a server may ignore a key that it does not know."""
        return (not self.study_uid or study_uid == self.study_uid) and (
            not self.patient_id or patient_id.strip() == self.patient_id.strip()
        )
