"""A listener as a process of its own: `python listening.py config.toml`. Its processing makes a small valid report.

The processing runs in a `Worker`, and does worse to studies whose folder of images says so.
"""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import generate_uid

from exchange import ExchangeError
from exchange.pacs.config import PacsConfig
from exchange.pacs.listener import Listener
from exchange.pacs.worker import Worker


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


def make_nothing(**options: Any) -> None:
    """Fail to make a processing."""
    raise ExchangeError("gallery", "is not here", f"make it of {options['stones']}")


def make_processing(say: Callable[[str], None], **_: Any) -> Callable[[Path, Path], list[Path]]:
    """Make a processing that does what the folder of images is named for, else a report."""

    def process(images: Path, work: Path) -> list[Path]:
        say(f"process {os.getpid()}")
        match images.name:
            case "hangs":
                time.sleep(60)
            case "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "ended":
                os.kill(os.getpid(), signal.SIGTERM)
            case "leaves":
                os._exit(7)
            case "refused":
                raise ExchangeError("a study", "is odd: \udcff", "mend it")
            case "wrong":
                raise ValueError("nothing \n seen")
            case "prints":
                print("a library has something to say")
                os.write(1, b"and so has C\n")
                return [work / "one.dcm"]
        return make_report(images, work)

    return process


def main(configuration: Path) -> None:
    """Listen until SIGTERM."""
    stop = threading.Event()
    config = PacsConfig.read(configuration)

    def say(line: str) -> None:
        print(line, flush=True)

    worker = Worker(f"{__name__}:make_processing", {}, config.listen.processing_s, stop, say)
    listener = Listener(config, worker, say)
    worker.start()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    listener.run(stop)
    worker.close()


if __name__ == "__main__":
    __name__ = "tests.exchange.pacs.listening"  # where the child finds it
    main(Path(sys.argv[1]))
