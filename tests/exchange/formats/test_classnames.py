"""Names of classes."""

from pathlib import Path

import pytest

from exchange import ExchangeError
from exchange.formats.classnames import read_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "mass\ncalcification, benign\n"),
        ("data.yaml", "train: x\nnc: 2\nnames: ['mass', \"calcification, benign\"]  # two\nval: y\n"),
        ("data.yaml", "names:\n  0: mass\n  1: 'calcification, benign'\n# end\nroboflow:\n  2: no\n"),
        ("data.yml", "names:\n- mass\n- calcification, benign\nnc: 2\n"),
        ("data.yaml", "names: {0: 'mass', 1: 'calcification, benign'}\n"),
    ],
)
def test_lists_and_yaml_give_names_by_number(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_names(tmp_path / name) == {0: "mass", 1: "calcification, benign"}


def test_unquoted_flow_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("names: [mass, focal asymmetry]\n")
    assert read_names(tmp_path / "a.yaml") == {0: "mass", 1: "focal asymmetry"}


def test_an_empty_line_keeps_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mass\n\ncalcification\n")
    assert read_names(tmp_path / "a.txt") == {0: "mass", 2: "calcification"}


@pytest.mark.parametrize(
    "text",
    ["", "nc: 2\n", "names: mass\n", "names:\n", "names: []\n", "names: " + "[" * 10_000 + "]", "names: [a\0]\n"],
)
def test_what_names_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ExchangeError):
        read_names(tmp_path / "a.yaml")
