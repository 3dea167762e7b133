"""The worklist: studies with what readers have made of them so far, searched, sorted and cut into pages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from viewer.studies import Study

State = Literal["new", "seen", "decided"]
Sort = Literal["woman", "date", "urgency", "state"]

STATES: tuple[State, ...] = ("new", "seen", "decided")


@dataclass(frozen=True)
class WorklistQuery:
    """Which studies are wanted.

    Attributes:
        search: Words that all occur in woman, name, date or id; empty for all.
        state: One of STATES; None for all.
        sort: By what; dates and urgencies highest first.
        offset: Studies before the first.
        limit: Studies of one page.
    """

    search: str = ""
    state: State | None = None
    sort: Sort = "urgency"
    offset: int = 0
    limit: int = 50


def page_of(
    studies: Iterable[Study], query: WorklistQuery, state_of: Callable[[str], State]
) -> tuple[list[tuple[Study, State]], int]:
    """Return one page of the worklist.

    Args:
        studies: All studies.
        query: Which are wanted.
        state_of: Returns what became of a study so far.

    Returns:
        The studies of the page with their states, and how many there are on all pages.
    """
    words = query.search.casefold().split()
    found = [(study, state_of(study.study)) for study in studies if _has(study, words)]
    found = [(study, state) for study, state in found if query.state is None or state == query.state]
    found.sort(key=lambda one: (one[0].woman.casefold(), one[0].woman, one[0].study))
    if query.sort == "date":
        found.sort(key=lambda one: one[0].date or "", reverse=True)
    elif query.sort == "urgency":
        found.sort(key=lambda one: -1.0 if one[0].urgency is None else one[0].urgency, reverse=True)
    elif query.sort == "state":
        found.sort(key=lambda one: STATES.index(one[1]))
    return found[query.offset : query.offset + query.limit], len(found)


def study_line(study: Study, state: State, verdicts: int, *, names_shown: bool) -> dict[str, Any]:
    """Return a study as the worklist shows it, as plain values for JSON.

    Args:
        study: The study.
        state: What became of it so far.
        verdicts: How many verdicts on it stand.
        names_shown: Whether her name is shown.
    """
    return {
        "study": study.study,
        "woman": study.woman,
        "name": study.name if names_shown else None,
        "date": study.date,
        "age": study.age,
        "state": state,
        "detections": study.detections,
        "urgency": study.urgency,
        "verdicts": verdicts,
        "images": [
            {"image": one.image, "view": one.view, "laterality": one.laterality, "place": one.place.to_dict()}
            for one in study.images
        ],
    }


def _has(study: Study, words: list[str]) -> bool:
    text = " ".join(part for part in (study.woman, study.name, study.date, study.study) if part).casefold()
    return all(word in text for word in words)
