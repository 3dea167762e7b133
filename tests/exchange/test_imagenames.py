"""Names of images, from any system and from anybody."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange import ExchangeError
from exchange.imagenames import parse_name, stem_of


@dataclass(frozen=True)
class File:
    path: str
    relative: str


def test_a_windows_path_is_cut_at_its_backslashes_and_loses_its_drive() -> None:
    name = parse_name(r"D:\films\w1\a.png")
    assert (name.folders, name.name, name.stem, name.absolute) == (("films", "w1"), "a.png", "a", False)


@pytest.mark.parametrize("name", ["../../etc/passwd", r"..\..\secret.png", "/films/../a.png", "C:..\\..\\a.png", ".."])
def test_a_name_that_climbs_is_refused(name: str) -> None:
    with pytest.raises(ExchangeError, match=r"climbs out of its folder"):
        parse_name(name)


@pytest.mark.parametrize("name", ["", "  ", "/", "C:\\", "a\0.png", "a\n.png", "x" * 5000, "\ud800.png"])
def test_what_names_no_image_is_refused_with_a_short_message(name: str) -> None:
    with pytest.raises(ExchangeError) as caught:
        parse_name(name)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=60))
def test_whatever_is_accepted_has_no_part_that_climbs_or_that_no_file_can_have(name: str) -> None:
    try:
        parsed = parse_name(name)
    except ExchangeError:
        return
    parts = (*parsed.folders, parsed.name)
    assert all(part not in ("", ".", "..") and "/" not in part and "\0" not in part for part in parts)


@pytest.mark.parametrize(
    ("name", "path", "relative", "shared"),
    [
        ("w1/a.png", "/films/w1/a.png", "w1/a.png", 1),
        ("a.png", "/films/w1/a.png", "w1/a.png", 0),
        ("/their/machine/w1/a.png", "/films/w1/a.png", "w1/a.png", 1),
        ("/their/machine/a.png", "/films/a.png", "a.png", 0),
        ("w2/a.png", "/films/w1/a.png", "w1/a.png", None),
        ("w2/left/a.png", "/films/w1/left/a.png", "w1/left/a.png", None),
    ],
)
def test_folders_that_contradict_each_other_are_never_the_same_image(
    name: str, path: str, relative: str, shared: int | None
) -> None:
    assert parse_name(name).agreeing_folders(File(path, relative)) == shared


def test_a_uid_keeps_its_dots() -> None:
    assert [stem_of(name) for name in ("1.2.840.5", "1.2.840.5.dcm", ".png", "a.b.JPEG")] == [
        "1.2.840.5",
        "1.2.840.5",
        ".png",
        "a.b",
    ]
