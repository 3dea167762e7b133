"""Instances: who one is, read from its DICOM file, and the name of its file, which can't lead out of a folder."""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from embedder.quiet import quiet_libraries
from exchange import ExchangeError

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64  # DICOM PS3.5, section 9.1


@dataclass(frozen=True)
class Instance:
    """One SOP instance.

    Args:
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        sop_uid: SOP Instance UID.
        sop_class: SOP Class UID; empty where unknown.
        syntax: Transfer Syntax UID of its file; empty where unknown.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class: str = ""
    syntax: str = ""

    @property
    def path(self) -> Path:
        """Its relative path: `<study>/<series>/<instance>.dcm`."""
        return Path(safe_name(self.study_uid), safe_name(self.series_uid), f"{safe_name(self.sop_uid)}.dcm")


def safe_name(uid: str) -> str:
    """Return a UID as a file's name: itself where it is one, else a digest, so that no name leads elsewhere.

    >>> safe_name("1.2.840.10008")
    '1.2.840.10008'
    >>> safe_name("../../x")
    'odd-9cdf6a50100a862e14286c7a334296da'
    """
    if len(uid) <= _LONGEST_UID and _UID.fullmatch(uid):
        return uid
    return "odd-" + hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def identify(data: bytes, subject: object) -> Instance:
    """Return who an instance is.

    Args:
        data: The DICOM file (PS3.10), whole.
        subject: What an error is about.

    Raises:
        ExchangeError: It is no DICOM file, or lacks a UID.
    """
    import pydicom

    if len(data) < 132 or data[128:132] != b"DICM":
        raise ExchangeError(subject, "is not a DICOM file (it has no DICM mark)", "leave it out, or export it again")
    tags = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
    try:
        with quiet_libraries():
            dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, specific_tags=tags)
            found = {tag: str(dataset.get(tag) or "").strip("\0 ") for tag in tags}
            syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "").strip("\0 ")
    except Exception as error:  # a damaged file can fail anywhere in the library
        raise ExchangeError(subject, f"can't be read as DICOM ({type(error).__name__})", "export it again") from error
    missing = [tag for tag in tags if not found[tag]] + ([] if syntax else ["TransferSyntaxUID"])
    if missing:
        raise ExchangeError(subject, f"has no {missing[0]}", "export it again")
    return Instance(
        found["StudyInstanceUID"], found["SeriesInstanceUID"], found["SOPInstanceUID"], found["SOPClassUID"], syntax
    )


def identify_file(path: Path, largest: int) -> tuple[Instance, bytes]:
    """Return who a file's instance is, and the file's bytes.

    Args:
        path: The file.
        largest: Bytes that are refused to be exceeded.

    Raises:
        ExchangeError: It can't be read, is too large, or is no DICOM file.
    """
    from errors import MammoseekError
    from index.durable import open_plain

    try:
        with io.BufferedReader(open_plain(path)) as file:
            data = file.read(largest + 1)
    except OSError as error:
        raise ExchangeError(path, f"can't be read ({error.strerror})") from error
    except MammoseekError as error:
        raise ExchangeError(path, error.cause, error.remedy) from error
    if len(data) > largest:
        raise ExchangeError(path, f"is larger than {largest} bytes", "raise limits.instance_mib")
    return identify(data, path), data
