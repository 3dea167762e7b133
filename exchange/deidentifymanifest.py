"""A manifest and its images without identity: DICOM files as `exchange.deidentify` does, PNG and JPEG stripped."""

import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from embedder.findings import COLUMNS
from embedder.mammogram import is_dicom
from embedder.manifest import read_manifest, write_manifest
from errors import MammoseekError
from exchange import ExchangeError
from exchange.confidentiality import Woman
from exchange.deidentify import (
    FAILED,
    REFUSED,
    THERE,
    WRITTEN,
    DeidentifyConfig,
    FileOutcome,
    Progress,
    deidentify_file,
    prepare_output,
)
from exchange.gatekeeper import judge_image
from exchange.imagestripping import strip_image
from exchange.pseudonyms import PseudonymKey
from exchange.verdicts import REFUSE
from index.durable import make_folder, write_whole

MANIFEST_NAME = "manifest.csv"

_UID = re.compile(r"[0-2](\.(0|[1-9]\d*)){2,}")
# The words of a data set for its labels are free text.
_FREE_TEXT = ("native_lesion_type", "native_pathology", "native_density")
# HIPAA's safe harbour (45 CFR 164.514(b)(2)(i)(C)): ages over 89 become one class.
_HIGHEST_AGE = 90.0


def deidentify_manifest(
    manifest: Path,
    output: Path,
    key: PseudonymKey,
    config: DeidentifyConfig | None = None,
    *,
    keep_columns: Sequence[str] = (),
    workers: int = 2,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, tuple[FileOutcome, ...]]:
    """Copy a manifest and its images without identity.

    Women, examinations and rows get pseudonyms; an examination's UID the one that its DICOM files get. Images lie under
    `woman/`, named after their content. Columns that are no standard ones of a manifest, and a data set's own words,
    are left out unless kept by name: what they say is not known. Ages from 90 become 90.

    Args:
        manifest: A .csv or .parquet file.
        output: The folder; it gets `manifest.csv` beside the images.
        key: Makes the pseudonyms.
        config: See `DeidentifyConfig`; without `issuer` a woman's issuer is her data set's name. The manifest's word
            counts, also for a DICOM file that names another woman or issuer.
        keep_columns: Further columns that hold no identity, as their owner vouches.
        workers: Threads.
        progress: Called with images done and images in all.

    Returns:
        The new manifest, without the rows whose image has no copy, and what became of each image.

    Raises:
        ExchangeError: No image could be copied, a column is not there, or the output has another key.
        ManifestError: The manifest is wrong.
        OSError: The output folder can't be written.
    """
    config = config or DeidentifyConfig()
    frame = read_manifest(manifest, check_images=False)
    missing = [name for name in keep_columns if name not in frame.columns]
    if missing:
        raise ExchangeError(manifest, f"has no column {missing[0]!r}", "name its columns as they are spelt")
    prepare_output(output, key)
    images = frame.drop_duplicates("path")
    outcomes: list[FileOutcome] = []
    tasks = [
        (Path(path), config.issuer or dataset, woman)
        for path, dataset, woman in zip(images["path"], images["dataset"], images["patient_id"], strict=True)
    ]
    with ThreadPoolExecutor(workers) as pool:
        for outcome in pool.map(lambda task: _copy_image(task[0], task[1], task[2], output, key, config), tasks):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(tasks))
    places = {str(one.source): one.output for one in outcomes if one.output is not None}
    kept = frame[frame["path"].isin(list(places))].reset_index(drop=True)
    if kept.empty:
        raise ExchangeError(manifest, "none of its images could be copied", f"the first: {outcomes[0].reason}")
    clean = _clean_rows(kept, output, places, key, config, keep_columns)
    write_manifest(clean, output / MANIFEST_NAME)
    return clean, tuple(outcomes)


def _clean_rows(
    kept: pd.DataFrame,
    output: Path,
    places: dict[str, Path],
    key: PseudonymKey,
    config: DeidentifyConfig,
    keep_columns: Sequence[str],
) -> pd.DataFrame:
    standard = [name for name in COLUMNS if name not in _FREE_TEXT]
    clean = kept[[*standard, *(name for name in keep_columns if name not in standard)]].copy()
    issuers = [config.issuer or dataset for dataset in kept["dataset"]]
    rows = zip(issuers, kept["row_id"], kept["patient_id"], strict=True)
    clean["row_id"] = [key.token("row", f"{issuer}\0{row}") for issuer, row, _ in rows]
    clean["patient_id"] = [key.woman(issuer, woman) for issuer, woman in zip(issuers, kept["patient_id"], strict=True)]
    studies = zip(issuers, kept["study_id"].astype("object"), strict=True)
    clean["study_id"] = pd.Series(
        [None if pd.isna(study) else _study(key, issuer, str(study)) for issuer, study in studies],
        index=clean.index,
        dtype="object",
    )
    clean["age"] = clean["age"].clip(upper=_HIGHEST_AGE)
    clean["path"] = [str((output / places[name]).absolute()) for name in kept["path"]]
    for name in _FREE_TEXT:
        if name not in clean:
            clean[name] = pd.Series(None, index=clean.index, dtype="object")
    return clean


def _study(key: PseudonymKey, issuer: str, study: str) -> str:
    return key.uid(study) if _UID.fullmatch(study) else key.token("study", f"{issuer}\0{study}")


def _copy_image(
    path: Path, issuer: str, woman: str, output: Path, key: PseudonymKey, config: DeidentifyConfig
) -> FileOutcome:
    try:
        if is_dicom(path):
            return deidentify_file(path, output, key, config, Woman(issuer, woman))
        content, suffix = strip_image(path)
        name = key.token("image", hashlib.sha256(content).digest())
        place = Path(key.woman(issuer, woman)) / f"{name}{suffix}"
        if (output / place).exists():
            return FileOutcome(path, THERE, place)
        verdict = judge_image(path, config.gatekeeper)
        if verdict.verdict == REFUSE:
            code = "burned-in" if verdict.text_found else "refused-by-gatekeeper"
            return FileOutcome(path, REFUSED, code=code, reason="; ".join(verdict.reasons))
        make_folder((output / place).absolute().parent)
        write_whole(output / place, content)
        return FileOutcome(path, WRITTEN, place)
    except MammoseekError as error:
        return FileOutcome(path, FAILED, code="unreadable", reason=error.cause)
    except OSError as error:
        return FileOutcome(path, FAILED, code="not-written", reason=error.strerror or str(error))
