"""What an adapter gives back: the manifest of a data set, and an account of what it left out and did."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from embedder.findings import GRANULARITIES, TERMS, patient_key
from errors import MammoseekError

Progress = Callable[[int, int], None]
"""Called with files done and files in all."""

_CLASSES_SHOWN = 12
_EXAMPLES_SHOWN = 3


class DatasetError(MammoseekError):
    """A data set that is not where it should be, or not what it should be."""


@dataclass(frozen=True, eq=False)
class DatasetReading:
    """A data set, read.

    Attributes:
        name: The data set.
        frame: Its manifest, image paths absolute; columns and types as of `embedder.findings.findings_frame`,
            then columns of the data set's own.
        left_out: What is not in the manifest and why; the reasons are few, so that they can be counted.
        notes: What the adapter did that the user should know, and the licence.
    """

    name: str
    frame: pd.DataFrame
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Say in a few lines what was found: rows, women, labels by class, what was left out, the notes."""
        lines = [f"{self.name}: {_count(self.frame)}"]
        for granularity in GRANULARITIES:
            rows = self.frame[self.frame["granularity"] == granularity]
            if not rows.empty:
                lines.append(f"{granularity}: {_count(rows)}")
                lines += [f"  {name}: {classes}" for name in (*TERMS, "split") if (classes := _classes(rows[name]))]
        for reason, count in Counter(reason for _, reason in self.left_out).most_common():
            names = [what for what, why in self.left_out if why == reason]
            more = ", …" if count > _EXAMPLES_SHOWN else ""
            lines.append(f"left out, {reason}: {count} ({', '.join(names[:_EXAMPLES_SHOWN])}{more})")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return the same account as plain values for JSON."""
        granularities: dict[str, Any] = {}
        for granularity in GRANULARITIES:
            rows = self.frame[self.frame["granularity"] == granularity]
            if not rows.empty:
                granularities[granularity] = {
                    "rows": len(rows),
                    "women": int(patient_key(rows).nunique()),
                    "images": int(rows["path"].nunique()),
                    "labels": {
                        name: {str(term): int(count) for term, count in rows[name].value_counts().items()}
                        for name in (*TERMS, "split")
                        if rows[name].notna().any()
                    },
                }
        return {
            "name": self.name,
            "rows": len(self.frame),
            "women": int(patient_key(self.frame).nunique()),
            "granularities": granularities,
            "left_out": [{"what": what, "why": why} for what, why in self.left_out],
            "notes": list(self.notes),
        }


def is_file(path: Path) -> bool:
    """Tell whether a file is there; a name that no file can have is one that is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _count(rows: pd.DataFrame) -> str:
    return f"{len(rows):,} rows of {patient_key(rows).nunique():,} women, {rows['path'].nunique():,} images"


def _classes(labels: pd.Series) -> str:
    counts = labels.value_counts()
    if counts.empty:
        return ""
    parts = [f"{term} {count:,}" for term, count in counts.iloc[:_CLASSES_SHOWN].items()]
    if len(counts) > _CLASSES_SHOWN:
        parts.append(f"{len(counts) - _CLASSES_SHOWN} rarer classes {counts.iloc[_CLASSES_SHOWN:].sum():,}")
    unknown = int(labels.isna().sum())
    return ", ".join(parts + ([f"unknown {unknown:,}"] if unknown else []))
