"""What the DICOM objects that go out have in common: how they are named and dated, and how they are written."""

import io
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from exchange import ExchangeError
from exchange.uids import UUID_ROOT, check_uid_root
from index.durable import storage_error, write_whole


@dataclass(frozen=True)
class ResultOptions:
    """How a result is written.

    Args:
        uid_root: Root of the UIDs that are made, see `exchange.uids.check_uid_root`.
        series_number: Number of the result's series in its study.
        created: When the result was made; None for now. Two results of the same content and time are the same bytes.

    Raises:
        ExchangeError: The root is none, or the number of the series is not positive.
    """

    uid_root: str = UUID_ROOT
    series_number: int = 9_901
    created: datetime | None = None

    def __post_init__(self) -> None:
        check_uid_root(self.uid_root)
        if not 1 <= self.series_number < 2**31 - 1:
            raise ExchangeError("result", f"the series number is {self.series_number}", "give one from 1 to 2147483646")


def structured_reporting() -> Any:
    """Return highdicom.sr.

    Raises:
        ExchangeError: It is not installed.
    """
    try:
        import highdicom.sr as sr
    except ImportError as error:
        raise ExchangeError(
            "DICOM structured reports", "highdicom is not installed", "pip install 'mammoseek[exchange]'"
        ) from error
    return sr


def set_time(document: Dataset, created: datetime | None) -> None:
    """Write when a result was made into all places where it says so."""
    when = created or datetime.now()
    day, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    document.InstanceCreationDate = document.ContentDate = day
    document.InstanceCreationTime = document.ContentTime = time
    for item in document.get("ContributingEquipmentSequence", []):
        item.ContributionDateTime = day + time


def write_result(document: Dataset, path: Path) -> None:
    """Write a result as a DICOM file (PS3.10), whole or not at all.

    Raises:
        ExchangeError: It can't be written.
    """
    data = io.BytesIO()
    document.save_as(data, enforce_file_format=True)
    try:
        write_whole(path, data.getvalue())
    except ValueError as error:  # a null byte in the name
        raise ExchangeError(repr(str(path)), f"nothing can be written there ({error})", "name another file") from error
    except OSError as error:
        told = storage_error(path, error)
        raise ExchangeError(told.subject, told.cause, told.remedy) from error
