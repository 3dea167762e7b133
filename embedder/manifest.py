"""The manifest: a table of findings or breast images (CSV or Parquet), checked whenever it is read."""

import contextlib
import csv
import hashlib
import re
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from embedder.findings import COLUMNS, REQUIRED_COLUMNS, typed_columns
from embedder.mammogram import read_header
from embedder.manifestrules import MISSING_WORDS, ManifestError, Problem, quoted, raise_problems, validate
from embedder.manifesttypes import check_types
from errors import MammoseekError

__all__ = [
    "ManifestError",
    "Problem",
    "manifest_digest",
    "manifest_from_raw",
    "read_manifest",
    "read_raw_table",
    "validate",
    "write_manifest",
]

# A number as people write it: an id such as 007 is text.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_EXACT_DIGITS = 15  # of a whole number, that a float surely holds
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_LONGEST_HEADER = 100_000


def read_manifest(path: Path, *, check_images: bool = True) -> pd.DataFrame:
    """Read and check a manifest.

    Args:
        path: A .csv or .parquet file with at least the columns of REQUIRED_COLUMNS, and a box in every
            finding's row. An empty cell is an unknown value. Image paths are relative to the manifest's
            folder.
        check_images: Where the table does not give an image's size, read it from the header of the file, to
            check the boxes against it. Files that can't be read are no fault of the manifest: whoever opens
            them reports them.

    Returns:
        All standard columns in their types (see `findings_frame`), then the table's own; paths made absolute.

    Raises:
        ManifestError: The file can't be read, or rows are wrong; up to ten of them are named by row and
            column.
    """
    return manifest_from_raw(read_raw_table(path), path, check_images=check_images)


def manifest_from_raw(raw: pd.DataFrame, path: Path, *, check_images: bool = True) -> pd.DataFrame:
    """Check a table as it was read, and make a manifest of it.

    Args:
        raw: A table as `read_raw_table` gives it, its columns perhaps renamed or completed.
        path: The file that it was read from: errors name it, and image paths are relative to its folder.
        check_images: See `read_manifest`.

    Returns:
        As `read_manifest`.

    Raises:
        ManifestError: Rows are wrong; up to ten of them are named by row and column.
    """
    missing = [Problem(None, name, "is missing") for name in REQUIRED_COLUMNS if name not in raw.columns]
    raise_problems(path, missing)
    check_types(raw, path)
    frame = _infer_extra(typed_columns(raw))
    validate(frame, path)
    folder = Path(path).parent.resolve()
    frame["path"] = [str(_resolved(folder / name)) for name in frame["path"]]
    if check_images:
        frame = _with_image_sizes(frame)
    # Again, for what is known only now: the images' sizes, and which paths lead to one image.
    validate(frame, path)
    return frame


def read_raw_table(path: Path) -> pd.DataFrame:
    """Read a table without giving its cells a meaning.

    Args:
        path: A .csv or .parquet file.

    Returns:
        At least one row. Of a CSV file every cell is text, so that ids keep their zeros and types are checked
        with a row to name; an empty one, or a word for unknown, is missing. Column names are stripped and
        different from each other.

    Raises:
        ManifestError: It can't be read, has no rows, two columns of one name, or rows longer than its header.
    """
    path = Path(path)
    kind = _format(path)
    _check_file(path)
    if kind == "csv":
        _check_separator(path)
    try:
        frame = _read_csv(path) if kind == "csv" else pd.read_parquet(path)
    # Parsers of hostile files raise many kinds, all of which mean the same to the reader.
    except Exception as error:
        reason = str(error).strip().splitlines()
        cause = f"can't be read as {kind} ({reason[0][:200] if reason else type(error).__name__})"
        raise ManifestError(path, cause, "save it again as UTF-8 with commas, or as Parquet") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    twice = frame.columns[frame.columns.duplicated()]
    raise_problems(path, [Problem(None, quoted(name), "stands there twice") for name in twice])
    if frame.empty:
        raise ManifestError(path, "has no rows", "write at least one finding or breast image into it")
    return frame.reset_index(drop=True)


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Write a manifest in one atomic step, paths relative to its folder where the images lie below it.

    Args:
        frame: A table as `read_manifest` or `findings_frame` gives it.
        path: A .csv or .parquet file.

    Raises:
        ManifestError: The table is wrong, or the file can't be written.
    """
    path = Path(path)
    kind = _format(path)
    validate(frame, path)
    folder = path.parent.resolve()
    images = [Path(name).absolute() for name in frame["path"]]
    relative = [image.relative_to(folder) if image.is_relative_to(folder) else image for image in images]
    table = frame.assign(path=[image.as_posix() for image in relative])
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if kind == "csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
        temporary.replace(path)
    except OSError as error:
        raise ManifestError(path, f"can't be written ({error.strerror or error})", "choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def manifest_digest(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of a manifest's content; of each path only the file's name counts, not its place."""
    table = frame.assign(path=[Path(name).name for name in frame["path"]])
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def _format(path: Path) -> str:
    if path.suffix.lower() in (".csv", ".parquet"):
        return path.suffix.lower()[1:]
    raise ManifestError(path, "is neither .csv nor .parquet by its name", "name a manifest in one of these formats")


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ManifestError(path, "there is no such file", "check its name") from error
    except (OSError, ValueError) as error:  # a name that is too long, has a zero byte, or may not be looked at
        raise ManifestError(path, f"can't be opened ({getattr(error, 'strerror', None) or error})") from error
    if stat.S_ISDIR(mode):
        raise ManifestError(path, "is a folder", "name a .csv or .parquet file")
    if not stat.S_ISREG(mode):
        raise ManifestError(path, "is no regular file but a pipe or a device", "save the table to a file")


def _check_separator(path: Path) -> None:
    """Refuse a table whose header another separator divides further than commas do."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline(_LONGEST_HEADER)
        widths = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in (",", *_SEPARATORS)}
    except (OSError, ValueError, csv.Error):
        return  # whoever reads it all says why it can't be read
    widest = max(widths, key=lambda mark: widths[mark])
    if widths[widest] > widths[","]:
        raise ManifestError(path, f"its columns are divided by {_SEPARATORS[widest]}", "save it again with commas")


def _read_csv(path: Path) -> pd.DataFrame:
    # The header is read as a row: pandas would give a second column of one name another name, and would take
    # the first column for an index where rows are longer than the header.
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            header=None,
            dtype=str,
            skipinitialspace=True,
            encoding="utf-8-sig",
            keep_default_na=False,
            na_values=sorted(MISSING_WORDS),
        )
    names = ["" if pd.isna(name) else str(name) for name in table.iloc[0]]
    return table.iloc[1:].set_axis(names, axis=1)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links, a name that is too long; whoever opens it reports it
        return path.absolute()


def _infer_extra(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the table's own columns of text a type: numbers where every known cell is one."""
    inferred = {}
    for name in frame.columns.difference(list(COLUMNS)):
        known = frame[name].dropna()
        if known.empty or not all(isinstance(cell, str) and _NUMBER.fullmatch(cell) for cell in known):
            continue
        # Long whole numbers are ids, and would lose digits beside a missing cell.
        if any(cell.lstrip("-").isdigit() and len(cell) > _EXACT_DIGITS for cell in known):
            continue
        numbers = pd.to_numeric(frame[name])
        if np.isfinite(numbers.dropna()).all():
            inferred[name] = numbers
    return frame.assign(**inferred)


def _with_image_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """Read the sizes of images that carry findings and whose size the table leaves open."""
    unknown = (frame["granularity"] == "finding") & (frame["image_rows"].isna() | frame["image_columns"].isna())
    paths = frame.loc[unknown, "path"].unique()
    if not len(paths):
        return frame

    def size(path: str) -> tuple[int, int] | None:
        try:
            header = read_header(Path(path))
        except MammoseekError:
            return None
        return header.rows, header.columns

    with ThreadPoolExecutor(8) as pool:
        sizes = dict(zip(paths, pool.map(size, paths), strict=True))
    frame = frame.copy()
    for position, name in enumerate(("image_rows", "image_columns")):
        found = [
            read[position] if asked and (read := sizes.get(path)) else pd.NA
            for path, asked in zip(frame["path"], unknown, strict=True)
        ]
        frame[name] = frame[name].fillna(pd.Series(found, dtype="Int64"))
    return frame
