"""A listener as a process of its own: `python listening.py config.toml`. Its processing makes a small valid report."""

import hashlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid

from exchange.pacs.config import PacsConfig
from exchange.pacs.listener import Listener


def make_report(images: Path, out: Path) -> list[Path]:
    """Write a basic text report of a study's images, its UID of their UIDs alone, and return its file."""
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(images.glob("*/*.dcm"))]
    uids = sorted(str(one.SOPInstanceUID) for one in headers)
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = pydicom.uid.BasicTextSRStorage
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID = generate_uid(entropy_srcs=uids)
    report.StudyInstanceUID = headers[0].StudyInstanceUID
    report.SeriesInstanceUID = generate_uid(entropy_srcs=[*uids, "series"])
    report.PatientID, report.PatientName, report.Modality = headers[0].PatientID, "W", "SR"
    report.ValueType, report.CompletionFlag, report.VerificationFlag = "CONTAINER", "COMPLETE", "UNVERIFIED"
    report.ContentDate, report.InstanceNumber = "20200101", 1
    report.ContentTime = f"120000.{time.time_ns() % 10**6:06d}"  # so that a second processing gives other bytes
    item = Dataset()
    item.RelationshipType, item.ValueType, item.TextValue = "CONTAINS", "TEXT", f"{len(uids)} images"
    report.ContentSequence = [item]
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{hashlib.sha256(''.join(uids).encode()).hexdigest()[:16]}.{os.getpid()}.dcm"
    report.save_as(path, enforce_file_format=True)
    return [path]


if __name__ == "__main__":
    configuration = Path(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    listener = Listener(
        PacsConfig.read(configuration),
        lambda images: make_report(images, configuration.parent / "made"),
        lambda line: print(line, flush=True),
    )
    listener.run(stop)
