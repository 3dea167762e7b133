"""What it takes to kill a listener and to look at what came of it: small studies, senders that retry, an archive."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from exchange.pacs.config import PacsConfig
from exchange.pacs.options import filled
from exchange.pacs.spoolview import look
from exchange.pacs.storing import store

MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
OURS, SENDER, ARCHIVE = "MAMMOSEEK", "SENDER", "SINK"

_RETRIES = {"count": 100, "backoff_s": 0.05, "longest_s": 0.5}


def make_instance(
    study: str, series: str, sop: str, *, pixels: npt.NDArray[np.uint8] | None = None, seed: int = 0, **attributes: Any
) -> Dataset:
    """Return a mammogram, of 16 × 16 random pixels unless others are given."""
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(0, 255, (16, 16)).astype(np.uint8)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(MAMMOGRAM)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = UID(sop)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.Modality, dataset.PatientID, dataset.StudyDate = "MG", "W7", "20200102"
    dataset.PatientName, dataset.StudyID, dataset.AccessionNumber = "W7", "1", ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


@dataclass
class Archive:
    """A C-STORE receiver that counts what comes, and answers as it is told."""

    port: int
    came: list[tuple[str, bytes]] = field(default_factory=list)
    status: Callable[[str, int], int] = lambda sop_uid, count: 0

    @property
    def tables(self) -> dict[str, Any]:
        """Tables that reach it."""
        return {"dimse": {"host": "127.0.0.1", "port": self.port, "called_ae": ARCHIVE}}

    @property
    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order in which they came, repeats and all."""
        return [uid for uid, _ in self.came]


@contextmanager
def running_archive(
    port: int, syntaxes: list[str] | None = None, callers: list[str] | None = None
) -> Iterator[Archive]:
    """Start an archive; it ends with the block."""
    from pynetdicom import AE, AllStoragePresentationContexts, evt

    archive = Archive(port)

    def handle(event: Any) -> int:
        sop_uid = str(event.request.AffectedSOPInstanceUID)
        status = archive.status(sop_uid, len(archive.came))
        if status < 0:
            event.assoc.dul.socket.close()
            return 0
        if status == 0:
            archive.came.append((sop_uid, event.encoded_dataset(include_meta=False)))
        return status

    entity = AE(ae_title=ARCHIVE)
    entity.require_called_aet = True
    entity.require_calling_aet = callers or []
    entity.add_supported_context("1.2.840.10008.1.1")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), syntaxes or context.transfer_syntax)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, handle)])
    assert server is not None  # it does not block
    try:
        yield archive
    finally:
        server.shutdown()


def write_configuration(path: Path, archive: Archive, port: int, spool: Path, **listen: Any) -> None:
    """Write a listener's configuration with short waits.

    Args:
        path: The TOML file.
        archive: Where reports go.
        port: The listener's.
        spool: Its spool.
        listen: Further options of the table `[listen]`: numbers and texts.
    """
    options = {"port": port, "spool": str(spool), **listen}
    told = "\n".join(
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in options.items()
    )
    path.write_text(
        f"""
        retries = {{ count = 2, backoff_s = 0.05 }}
        limits = {{ free_mib = 0.0 }}
        [dimse]
        host = "127.0.0.1"
        port = {archive.port}
        called_ae = "{ARCHIVE}"
        [listen]
        callers = ["{SENDER}"]
        {told}
        """
    )


def wait_for(holds: Callable[[], object], seconds: float) -> bool:
    """Wait until something holds, and tell whether it does."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return True


class KilledListener:
    """A listener as a process of its own, killed and started again while senders retry.

    Args:
        command: Starts it.
        log: File of what it says.
        environment: Variables that it sees.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self._command, self._log, self._environment = list(command), log, dict(environment)
        self._running: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._running = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        self._before = self._listening()
        self.starts += 1

    def _listening(self) -> int:
        return self._log.read_text(errors="replace").count("Listening as")

    def is_listening(self) -> bool:
        """Tell whether it has listened since it was started."""
        return self._listening() > self._before

    def kill(self) -> None:
        """End it as `kill -9` does, and start it again."""
        assert self._running is not None
        self._running.kill()
        self._running.wait(10)
        self.start()

    def end(self, seconds: float = 30) -> int:
        """End it as SIGTERM does, and return its exit status."""
        assert self._running is not None
        self._running.terminate()
        return self._running.wait(seconds)


def send_all(port: int, studies: Sequence[Sequence[Path]], pauses: Sequence[float], senders: int) -> list[str]:
    """Send studies, each in an association of its own, by several senders at once that retry.

    Args:
        port: The listener's.
        studies: Files of each.
        pauses: Seconds before each.
        senders: How many.

    Returns:
        What could not be sent.
    """
    tables = {"host": "127.0.0.1", "port": port, "called_ae": OURS, "calling_ae": SENDER}
    config: PacsConfig = filled(PacsConfig, {"dimse": tables, "retries": _RETRIES}, "sender")
    failures: list[str] = []

    def send(first: int) -> None:
        for number in range(first, len(studies), senders):
            time.sleep(pauses[number])
            failures.extend(told for _, told in store(config, studies[number]).failures)

    threads = [threading.Thread(target=send, args=(first,)) for first in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def read_report(data: bytes) -> Dataset:
    """Return a data set that reached an archive, in explicit VR little endian, as a file would hold it."""
    report = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    report.file_meta.MediaStorageSOPInstanceUID = report.SOPInstanceUID
    return report


@dataclass(frozen=True)
class Sent:
    """What reached an archive.

    Attributes:
        sends: Reports, repeats and all.
        uids: Their SOP Instance UIDs by study.
        repeats: Reports that came again under the same UID.
        differing: UIDs under which different bytes came.
    """

    sends: int
    uids: dict[str, set[str]]
    repeats: int
    differing: int


def what_was_sent(archive: Archive) -> Sent:
    """Count what reached an archive."""
    versions: dict[str, set[bytes]] = {}
    uids: dict[str, set[str]] = {}
    came = list(archive.came)
    for uid, data in came:
        versions.setdefault(uid, set()).add(data)
        uids.setdefault(str(read_report(data).StudyInstanceUID), set()).add(uid)
    return Sent(len(came), uids, len(came) - len(versions), sum(len(found) > 1 for found in versions.values()))


def phases(spool: Path) -> set[str]:
    """Return the phases of the studies of a spool that another process holds."""
    return {row.phase for row in look(spool)}


def environment() -> dict[str, str]:
    """Return the variables that a listener sees: where the modules are, and one thread a process."""
    return {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PATH": os.defpath, "OMP_NUM_THREADS": "1"}
