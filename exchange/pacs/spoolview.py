"""A look into a spool, without its lock: a listener may be at work in it."""

import stat
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exchange import ExchangeError
from exchange.pacs import studystate
from exchange.pacs.instances import safe_name

_LOOKS = 5
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class StudyRow:
    """One study of a spool.

    Args:
        study: Its Study Instance UID, or what stands for one that is no file's name.
        phase: See `exchange.pacs.studystate`.
        round: Which processing.
        images: Images that are there.
        bytes: Bytes of all its files on the disk.
        failures: How often this round was refused.
        reason: What failed last.
        age_s: Seconds since its state or its images changed.
    """

    study: str
    phase: str
    round: int
    images: int
    bytes: int
    failures: int
    reason: str
    age_s: float

    @property
    def age(self) -> str:
        """Its age in the largest unit of which it is at least two.

        >>> [StudyRow("1", "sent", 1, 1, 1, 0, "", seconds).age for seconds in (9.0, 200.0, 86400.0, 1e6)]
        ['9 s', '3 min', '24 h', '11 d']
        """
        unit, seconds = next(((u, s) for u, s in _UNITS if self.age_s >= 2 * s), _UNITS[-1])
        return f"{int(self.age_s // seconds)} {unit}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return asdict(self)


def look(spool: Path, studies: Collection[str] | None = None) -> list[StudyRow]:
    """Return the studies of a spool as they are now, by name.

    Args:
        spool: Its folder.
        studies: Study Instance UIDs; None for all.

    Raises:
        ExchangeError: There is no spool or no such study, or it can't be read.
    """
    home = Path(spool) / "studies"
    try:
        names = studystate.names(home)
    except OSError as error:
        raise ExchangeError(
            spool, f"is no spool that can be read ({error.strerror})", "name the folder in listen.spool of a listener"
        ) from error
    wanted = names if studies is None else [safe_name(uid) for uid in studies]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise ExchangeError(spool, f"holds no study {unknown[0]}", "look at all of it, and check the UID")
    rows = (_row(home / name) for name in wanted)
    return [row for row in rows if row is not None]


def _row(study: Path) -> StudyRow | None:
    """Return what is there of a study; None where it was deleted meanwhile."""
    for _ in range(_LOOKS):
        try:
            return _seen(study)
        except OSError:  # a listener renamed or deleted something in between
            if not study.is_dir():
                return None
    raise ExchangeError(study, "can't be read, or changes all the time", "look again, as the spool's owner")


def _seen(study: Path) -> StudyRow:
    state, images = studystate.study_state(study), studystate.images(study)
    changed = study.stat().st_mtime
    sizes: dict[int, int] = {}  # by inode: a round's images are links to those received
    for path in study.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            sizes[status.st_ino] = status.st_size
            changed = max(changed, status.st_mtime)
    age, size = max(time.time() - changed, 0.0), sum(sizes.values())
    return StudyRow(study.name, state.phase, state.round, len(images), size, state.failures, state.reason, age)
