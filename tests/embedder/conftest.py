"""DICOM files written on the fly, for tests of the reader that need no real data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.uid as uid
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate


def mammography_dataset(stored: np.ndarray, *, bits: int | None, syntax: str) -> Dataset:
    """Return the smallest DICOM data set of a mammogram with these stored values: (rows, columns) or with frames."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (
        "1.2.3.4",
        "1.2.3",
        "1.2.3.3",
    )
    dataset.Modality = "MG"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.PatientID = "W7"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    return dataset


@pytest.fixture
def write_dicom(tmp_path: Path) -> Callable[..., Path]:
    """Write a mammogram: `write_dicom(stored, bits=12, syntax=..., stream=..., PatientAge="045Y", ...)`.

    A stream is one compressed image; further keywords are attributes of the data set, None to leave one out.
    """

    def write(
        stored: np.ndarray,
        *,
        name: str = "mammogram.dcm",
        bits: int | None = None,
        syntax: str = uid.ExplicitVRLittleEndian,
        stream: bytes | None = None,
        **attributes: object,
    ) -> Path:
        dataset = mammography_dataset(stored, bits=bits, syntax=syntax)
        if stream is not None:
            dataset.PixelData = encapsulate([stream])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        elif syntax in (uid.RLELossless, uid.JPEG2000Lossless):
            dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
            dataset.compress(syntax, generate_instance_uid=False)
        for keyword, value in attributes.items():
            if value is None:
                delattr(dataset, keyword)
            elif isinstance(value, DataElement):
                dataset.add(value)
            else:
                setattr(dataset, keyword, value)
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def ramp() -> np.ndarray:
    """Stored values: uint16 (40, 50) of 12 bits, every pixel another value."""
    return np.arange(2000, dtype=np.uint16).reshape(40, 50) * 2 + 5
