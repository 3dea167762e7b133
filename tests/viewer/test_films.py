"""Prepared films: each made once, within their bytes, and no question waits behind a film of somebody else."""

import threading
from collections import Counter
from dataclasses import dataclass

import pytest

from errors import MammoseekError
from viewer.films import Films


@dataclass
class Film:
    name: str
    nbytes: int = 10


class Bench:
    """Makes films, slowly where told so."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def make(self, name: str) -> Film:
        self.made[name] += 1
        if name.startswith("slow"):
            self.begun.set()
            assert self.go_on.wait(30)
        if name.startswith("broken"):
            raise MammoseekError(name, "is broken", "")
        if name.startswith("defect"):
            raise ValueError(name)
        if name.startswith("huge") and self.made[name] == 1:
            raise MemoryError
        return Film(name)


def wait_for(condition) -> None:
    done = threading.Event()
    for _ in range(3_000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it did not come")


def test_films_used_last_are_kept_within_their_bytes() -> None:
    bench = Bench()
    films = Films(bench.make, 25)
    assert films.get("a") is films.get("a")
    films.get("b")
    films.get("a")
    films.get("c")  # b is the one used longest ago
    assert ["a" in films, "b" in films, "c" in films] == [True, False, True]
    assert bench.made == {"a": 1, "b": 1, "c": 1}
    assert Films(bench.make, 1).get("large").nbytes > 1  # the one used last stays however large it is


def test_a_question_does_not_wait_behind_the_film_of_another_and_shares_its_own() -> None:
    bench = Bench()
    films = Films(bench.make, 1_000)
    films.ahead("slow")
    assert bench.begun.wait(30)
    films.ahead("next")
    assert films.get("other").name == "other"  # though the thread is at the slow one
    assert films.get("next").name == "next"  # what only waits is made by whoever asks
    found: list[Film] = []
    asker = threading.Thread(target=lambda: found.append(films.get("slow")))
    asker.start()
    assert not found
    bench.go_on.set()
    asker.join(30)
    assert [film.name for film in found] == ["slow"]
    assert bench.made == {"slow": 1, "other": 1, "next": 1}


def test_what_fails_ahead_is_told_to_whoever_asks_and_ends_nothing() -> None:
    bench = Bench()
    films = Films(bench.make, 1_000)
    films.get("kept")
    films.ahead("broken")
    films.ahead("defect")
    films.ahead("huge")
    wait_for(lambda: "kept" not in films)  # there was no memory for it, so all were let go
    films.ahead("fine")
    wait_for(lambda: "fine" in films)
    with pytest.raises(MammoseekError, match="is broken"):
        films.get("broken")
    assert films.get("huge").name == "huge"


def test_of_many_wanted_films_the_newest_are_made() -> None:
    bench = Bench()
    films = Films(bench.make, 10_000)
    films.ahead("slow")
    assert bench.begun.wait(30)
    for number in range(40):
        films.ahead(f"film {number}")
    bench.go_on.set()
    wait_for(lambda: "film 39" in films)
    assert set(bench.made) == {"slow", *(f"film {number}" for number in range(24, 40))}
