"""A copy of a folder of DICOM mammograms without identity, see `exchange.confidentiality` for what is done to each.

Images only: structured reports, presentation states and documents are text about people, and are left out. What the
gatekeeper refuses is left out too: a file that is no mammogram, whose pixels can't be looked at, or that has text burnt
into them. Before a file is written it is searched for the names and numbers that were taken out of it; where one is
still there (in the comment of a JPEG stream, say) the file is left out.

The copies lie under `woman/study/series/object.dcm`, of new names only. A run that was stopped goes on where it was.
"""

import csv
import io
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, UID_dictionary

from embedder import dicomheader, dicomvalues
from embedder.dicom import BoundedReader, read_attributes
from embedder.header import MammogramError
from embedder.mammogram import is_dicom
from embedder.quiet import quiet_libraries
from errors import MammoseekError
from exchange import ExchangeError
from exchange.confidentiality import EDITION, Woman, deidentified
from exchange.deflated import inflate
from exchange.gatekeeper import GatekeeperConfig, judge_image
from exchange.identities import find_identities
from exchange.pseudonyms import PseudonymKey
from exchange.verdicts import REFUSE
from index.durable import make_folder, write_whole

WRITTEN, THERE, DUPLICATE, REFUSED, FAILED, LEFT_OUT = (
    *("written", "already there", "duplicate", "refused", "failed", "left out"),
)
REPORT_NAME = "report.csv"
MARK_NAME = "deidentification.json"

_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("PatientID", "PatientName", "IssuerOfPatientID", "SpecificCharacterSet"),
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DeidentifyConfig:
    """What is left to choose.

    Args:
        issuer: Who gave the patient ids, where a file does not say (Issuer of Patient ID). Give the same name for
            files and manifests of the same women.
        allow_burned_in: Copy images with text burnt into their pixels too.
        check_pixels: Look at the pixels for such text; without it only Burned In Annotation is believed.
    """

    issuer: str = ""
    allow_burned_in: bool = False
    check_pixels: bool = True

    @property
    def gatekeeper(self) -> GatekeeperConfig:
        """Its rules here: what is refused is only what can't be told to be without identity."""
        return GatekeeperConfig(
            allow_for_processing=True,
            multi_frame="note",
            allow_burned_in=self.allow_burned_in,
            check_pixels=self.check_pixels,
        )


@dataclass(frozen=True)
class FileOutcome:
    """What became of one file.

    Attributes:
        source: The file.
        status: WRITTEN, THERE, DUPLICATE, REFUSED, FAILED or LEFT_OUT.
        output: Its copy, relative to the output folder; None where there is none.
        code: Why, in one word; the report has it in place of the reason.
        reason: Why, for the reader of the source: it may quote the file.
    """

    source: Path
    status: str
    output: Path | None = None
    code: str = ""
    reason: str = ""


class _CannotCopy(Exception):
    """Why a file gets no copy."""

    def __init__(self, status: str, code: str, reason: str) -> None:
        super().__init__(reason)
        self.status, self.code, self.reason = status, code, reason


class _Claims:
    """Which objects have been copied: two files of one object would write one copy.

    An object is held while it is copied, so that a whole file still gets its turn after a damaged one.
    """

    def __init__(self) -> None:
        self.copied: set[Path] = set()
        self._locks: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def hold(self, output: Path) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(output, threading.Lock())


def deidentify_folder(
    source: Path,
    output: Path,
    key: PseudonymKey,
    config: DeidentifyConfig | None = None,
    *,
    workers: int = 2,
    progress: Progress | None = None,
) -> tuple[FileOutcome, ...]:
    """Copy all DICOM mammograms below a folder, without identity.

    Args:
        source: A folder, or one file. Links to folders are not followed.
        output: The folder of the copies; it gets `report.csv`, which names source files by a keyed token only, and
            `deidentification.json`, which tells a later run with another key from this one.
        key: Makes the pseudonyms.
        config: What is left to choose.
        workers: Threads; each holds one file and its pixels.
        progress: Called with files done and files in all.

    Returns:
        What became of each file, in the order of their names.

    Raises:
        ExchangeError: The source is not there, one folder lies in the other, or another key was used before.
        OSError: The output folder can't be written.
    """
    files = _list_files(source, output)
    prepare_output(output, key)
    claims, config = _Claims(), config or DeidentifyConfig()
    outcomes: list[FileOutcome] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for outcome in pool.map(lambda path: _copy(path, output, key, config, claims), files):
                outcomes.append(outcome)
                if progress is not None:
                    progress(len(outcomes), len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _write_report(output, source, key, outcomes)
    return tuple(outcomes)


def deidentify_file(
    path: Path, output: Path, key: PseudonymKey, config: DeidentifyConfig, woman: Woman | None = None
) -> FileOutcome:
    """Copy one DICOM mammogram into a prepared folder; whatever is wrong with it is told in the outcome.

    Args:
        path: The file.
        output: See `prepare_output`.
        key: Makes the pseudonyms.
        config: What is left to choose.
        woman: Whose it is, where that is known better than by the file.
    """
    return _copy(path, output, key, config, _Claims(), woman)


def prepare_output(output: Path, key: PseudonymKey) -> None:
    """Make the folder of the copies, or check that it was made with this key.

    Raises:
        ExchangeError: It was made with another one, or is no folder.
    """
    if output.exists() and not output.is_dir():
        raise ExchangeError(output, "is a file", "name a folder")
    make_folder(output.absolute())
    mark = output / MARK_NAME
    content = {"format": 1, "profile": f"PS3.15 {EDITION}", "key": key.fingerprint}
    if not mark.exists():
        write_whole(mark, (json.dumps(content, indent=2) + "\n").encode())
        return
    try:
        known = json.loads(mark.read_text("utf-8"))
        same = isinstance(known, dict) and known.get("key") == key.fingerprint
    except (OSError, ValueError) as error:
        raise ExchangeError(mark, "can't be read", "name another output folder") from error
    if not same:
        raise ExchangeError(
            output, "was made with another key: one woman would have two pseudonyms", "use that key or another folder"
        )


def _list_files(source: Path, output: Path) -> list[Path]:
    if not source.exists():
        raise ExchangeError(source, "there is no such file or folder", "check its name")
    inner, outer = output.resolve(), source.resolve()
    if inner == outer or inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ExchangeError(output, f"lies in {source}, or holds it", "name an output folder apart from it")
    return [source] if source.is_file() else sorted(_walk(source))


def _walk(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder, followlinks=False):
        for name in names:
            yield Path(place) / name


def _copy(
    path: Path,
    output: Path,
    key: PseudonymKey,
    config: DeidentifyConfig,
    claims: _Claims,
    woman: Woman | None = None,
) -> FileOutcome:
    try:
        if not _is_image_file(path):
            raise _CannotCopy(LEFT_OUT, "no-dicom", "it is no DICOM file")
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            readable = path
            if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                readable = inflate(path, Path(folder) / "inflated.dcm")
            header = read_attributes(readable, _KEYWORDS)
            woman = woman or _woman(header, config)
            place = _place(header, key, woman)
            with claims.hold(place):
                if place in claims.copied:
                    raise _CannotCopy(DUPLICATE, "same-object", "another file of this run holds the same object")
                if (output / place).exists():  # by an earlier run, whichever file of the same object it was made of
                    return FileOutcome(path, THERE, place)
                content = _copied(readable, woman, key, config)
                make_folder((output / place).absolute().parent)
                write_whole(output / place, content)
                claims.copied.add(place)
                return FileOutcome(path, WRITTEN, place)
    except _CannotCopy as why:
        return FileOutcome(path, why.status, code=why.code, reason=why.reason)
    except OSError as error:
        return FileOutcome(path, FAILED, code="not-written", reason=error.strerror or str(error))
    except MammoseekError as error:
        return FileOutcome(path, FAILED, code="unreadable", reason=error.cause)
    except Exception as error:  # pydicom raises of many kinds at a damaged file, which mean the same here
        return FileOutcome(path, FAILED, code="unreadable", reason=f"it is damaged ({str(error)[:160]})")


def _copied(path: Path, woman: Woman, key: PseudonymKey, config: DeidentifyConfig) -> bytes:
    """Return the bytes of a file's copy, once the gatekeeper has let it pass."""
    verdict = judge_image(path, config.gatekeeper)
    if verdict.verdict == REFUSE:
        burned_in = not config.allow_burned_in and (verdict.burned_in or verdict.text_found)
        code = "burned-in" if burned_in else "refused-by-gatekeeper"
        raise _CannotCopy(REFUSED, code, "; ".join(verdict.reasons))
    with BoundedReader(path) as file:
        dataset = dcmread(file)
    _check_pixel_bytes(dataset)
    return _encode(dataset, woman, key)


def _is_image_file(path: Path) -> bool:
    try:
        return is_dicom(path)
    except MammogramError:
        return False


def _woman(header: Dataset, config: DeidentifyConfig) -> Woman:
    """Return whose image it is; the examination's, where it does not say."""
    patient_id = dicomheader.patient_id(header)
    issuer = dicomvalues.text(header, "IssuerOfPatientID") or config.issuer
    if patient_id is not None:
        return Woman(issuer, patient_id)
    study = dicomvalues.text(header, "StudyInstanceUID")
    if study is None:
        raise _CannotCopy(REFUSED, "no-identifiers", "it has neither a Patient ID nor a Study Instance UID")
    return Woman("\0study", study)


def _place(header: Dataset, key: PseudonymKey, woman: Woman) -> Path:
    uids = [dicomvalues.text(header, f"{level}InstanceUID") for level in ("Study", "Series", "SOP")]
    known = [uid for uid in uids if uid is not None]
    if len(known) < len(uids):
        raise _CannotCopy(REFUSED, "no-identifiers", "it lacks the UID of its study, its series or itself")
    if dicomvalues.text(header, "SOPClassUID") not in UID_dictionary:
        raise _CannotCopy(REFUSED, "unknown-class", "its SOP class is none of the standard's")
    study, series, itself = (key.uid(uid) for uid in known)
    return Path(key.woman(woman.issuer, woman.patient_id)) / study / series / f"{itself}.dcm"


def _check_pixel_bytes(dataset: Dataset) -> None:
    """Refuse pixel data that go on after their images: nobody looks there, and anything may stand there."""
    if UID(dataset.file_meta.TransferSyntaxUID).is_encapsulated:
        return
    samples = dicomvalues.integer(dataset, "SamplesPerPixel") or 1
    if dicomvalues.text(dataset, "PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2
    frames = dicomvalues.integer(dataset, "NumberOfFrames") or 1
    size = dataset.Rows * dataset.Columns * frames * samples * dataset.BitsAllocated // 8
    if len(dataset.PixelData) > size + size % 2:
        raise _CannotCopy(REFUSED, "pixel-excess", "its pixel data hold more than its images")


def _encode(dataset: Dataset, woman: Woman, key: PseudonymKey) -> bytes:
    """Return the bytes of the copy, in the transfer syntax of the file.

    File meta information (group 2) and the preamble are made anew: they name the system that sent the file.
    """
    clean = deidentified(dataset, woman, key)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = clean.SOPClassUID
    meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    clean.file_meta = meta
    buffer = io.BytesIO()
    dcmwrite(buffer, clean, enforce_file_format=True)
    content = buffer.getvalue()
    compressed = UID(meta.TransferSyntaxUID).is_encapsulated
    # Pixel data come last. Grey values may be the same as letters by chance, compressed ones hardly at this length.
    searched = content if compressed else content[: -len(dataset.PixelData)]
    if find_identities(dataset).in_bytes(searched):
        raise _CannotCopy(REFUSED, "identity-left", "a name or number of the file would still be in its copy")
    return content


def _write_report(output: Path, source: Path, key: PseudonymKey, outcomes: list[FileOutcome]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("source_token", "status", "output", "code"))
    for one in outcomes:
        name = one.source.relative_to(source) if one.source != source else Path(one.source.name)
        token = key.token("file", os.fsencode(name))
        writer.writerow((token, one.status, "" if one.output is None else one.output.as_posix(), one.code))
    write_whole(output / REPORT_NAME, text.getvalue().encode())
