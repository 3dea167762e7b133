"""What became of one study of a spool: its `state.json`, read and judged together with the images that are there."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from index.durable import TEMPORARY_SUFFIX

Phase = Literal["receiving", "complete", "processed", "sent", "failed", "emptied"]

PHASES: tuple[Phase, ...] = get_args(Phase)
STATE_FILE = "state.json"
IMAGES, RESULTS, ROUND, WORK = "images", "results", "round", "work"
"""Folders of a study: what was received; what processing gave; the images of this round and the processing's own."""


@dataclass(frozen=True)
class StudyState:
    """What became of a study.

    Args:
        phase: Where it is.
        round: Which processing of the study, from 1.
        covered: Its images of this round: relative path to a mark of the file's version.
        failures: How often this round's processing, or the sending of it, was refused.
        interruptions: How often the processing was begun and not ended.
        reason: What failed last.
        failed_at: The step that failed.
        sent_at: When it was sent, in seconds since 1970; 0 where it was not.
        known: Images that were sent and deleted: relative path to SHA-256.
    """

    phase: Phase = "receiving"
    round: int = 0
    covered: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    interruptions: int = 0
    reason: str = ""
    failed_at: Literal["", "processing", "sending"] = ""
    sent_at: float = 0.0
    known: dict[str, str] = field(default_factory=dict)


def written_state(study: Path) -> StudyState:
    """Return what a study's `state.json` says, whatever images are there."""
    try:
        state = StudyState(**json.loads((study / STATE_FILE).read_bytes()))
        counts = (state.round, state.failures, state.interruptions)
        kinds = {type(one) for one in counts}, {type(state.covered), type(state.known)}
        if state.phase not in PHASES or kinds != ({int}, {dict}) or not isinstance(state.sent_at, int | float):
            raise ValueError(STATE_FILE)
        return state
    except FileNotFoundError:
        return StudyState()
    except (OSError, ValueError, TypeError, RecursionError):
        # Not ours or damaged: the images are there, and are processed again.
        return StudyState(round=max(rounds(study), default=0))


def study_state(study: Path) -> StudyState:
    """Return what became of a study. What is done is being received again when it has other images than it had."""
    state = written_state(study)
    others = {"sent": state.covered, "failed": state.covered, "emptied": {}}.get(state.phase)
    if others is not None and others != images(study):
        return StudyState(round=state.round, known=state.known)
    return state


def images(study: Path) -> dict[str, str]:
    """Return a study's images: relative path to a mark of the file's version."""
    home = study / IMAGES
    found = {}
    for path in home.glob("*/*.dcm"):
        status = path.stat()
        found[path.relative_to(home).as_posix()] = f"{status.st_size}-{status.st_mtime_ns}"
    return dict(sorted(found.items()))


def rounds(study: Path) -> list[int]:
    """Return the rounds whose results are there."""
    results = study / RESULTS
    return [int(path.name) for path in results.glob("*") if path.name.isdecimal()] if results.is_dir() else []


def names(studies: Path) -> list[str]:
    """Return the names of all studies below a folder, sorted; not what a kill left unfinished."""
    entries = [entry for entry in os.scandir(studies) if entry.is_dir(follow_symlinks=False)]
    return sorted(entry.name for entry in entries if not entry.name.endswith(TEMPORARY_SUFFIX))
