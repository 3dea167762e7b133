from pathlib import Path

import pytest

from index.memory import available_memory


def test_it_is_more_than_this_test_takes_and_less_than_there_is() -> None:
    assert 1 << 20 < available_memory() < 1 << 50


@pytest.mark.parametrize("content", ["", "MemTotal: 5 kB\n", None])
def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, content: str | None) -> None:
    def read(path: Path) -> str:
        if content is None:
            raise FileNotFoundError(path)
        return content

    monkeypatch.setattr(Path, "read_text", read)
    assert available_memory() > 1 << 20


def test_what_linux_says_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "MemTotal: 9 kB\nMemAvailable:    7 kB\nSwapFree: 1 kB\n")
    assert available_memory() == 7 * 1024
