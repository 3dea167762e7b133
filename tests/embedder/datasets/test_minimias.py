"""mini-MIAS: the real one against its ground truth and pixels, and small trees with all kinds of damage."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.datasets import DatasetError, DatasetReading, read_dataset
from embedder.datasets.minimias import Film, Lesion, parse_truth, read_mini_mias
from embedder.manifest import read_manifest, validate, write_manifest


@pytest.fixture(scope="module")
def real(mini_mias: Path) -> DatasetReading:
    return read_dataset("mini-mias", mini_mias)


@pytest.fixture(scope="module")
def truth_lines(mini_mias: Path) -> list[list[str]]:
    text = (mini_mias / "Info.txt").read_text(encoding="latin-1")
    return [line.split() for line in text.splitlines() if re.match(r"mdb\d{3} ", line)]


def write_pgm(path: Path, size: int = 1024) -> None:
    path.write_bytes(b"P5\n%d %d\n255\n" % (size, size) + bytes(range(256)) * (size * size // 256))


def tree(folder: Path, *lines: str, truth: str = "Info.txt", images: tuple[str, ...] | None = None) -> Path:
    (folder / truth).write_text("prose about mdb files\r\n\r\n" + "\r\n".join(lines) + "\r\n", encoding="latin-1")
    for name in images if images is not None else sorted({line.split()[0] + ".pgm" for line in lines}):
        write_pgm(folder / name)
    return folder


def test_real_counts(real: DatasetReading) -> None:
    findings = real.frame[real.frame["granularity"] == "finding"]
    breasts = real.frame[real.frame["granularity"] == "breast"]
    assert len(findings) == 119
    assert findings["patient_id"].nunique() == 104
    assert findings["pathology"].value_counts().to_dict() == {"benign": 68, "malignant": 51}
    assert findings["native_lesion_type"].value_counts().to_dict() == {
        "CALC": 27,
        "CIRC": 24,
        "ARCH": 19,
        "SPIC": 19,
        "MISC": 15,
        "ASYM": 15,
    }
    assert len(breasts) == 322
    assert breasts["patient_id"].nunique() == 161
    assert breasts["patient_id"].value_counts().eq(2).all()
    # Both breasts of a woman have one density.
    assert breasts.groupby("patient_id")["density"].nunique().eq(1).all()
    assert [what for what, _ in real.left_out] == ["mdb059-1", "mdb216-1", "mdb233-1", "mdb245-1"]
    assert "119 rows of 104 women" in real.summary()
    assert "left out, a lesion without a place (its breast keeps the label): 4" in real.summary()


def test_real_breasts_take_the_worst_pathology(real: DatasetReading, truth_lines: list[list[str]]) -> None:
    breasts = real.frame[real.frame["granularity"] == "breast"].set_index("row_id")
    for name, row in breasts.iterrows():
        severities = [words[3] for words in truth_lines if words[0] == name and words[2] != "NORM"]
        expected = "normal" if not severities else "malignant" if "M" in severities else "benign"
        assert row["pathology"] == expected, name
    # mdb144 has a benign and a malignant lesion of one class; mdb245 only a lesion without a place.
    assert breasts.loc["mdb144", ["pathology", "lesion_type"]].tolist() == ["malignant", "mass"]
    assert breasts.loc["mdb245", ["pathology", "lesion_type"]].tolist() == ["malignant", "calcification"]


def test_real_boxes_are_the_circles_squares(real: DatasetReading, truth_lines: list[list[str]]) -> None:
    findings = real.frame[real.frame["granularity"] == "finding"]
    placed = [words for words in truth_lines if len(words) == 7]
    assert len(placed) == len(findings)
    for words, row in zip(placed, findings.itertuples(), strict=True):
        x, y, radius = map(int, words[4:])
        inside = [column for column in range(1024) if abs(column - x) <= radius]
        lines = [line for line in range(1024) if abs((1023 - line) - y) <= radius]
        assert row.row_id.startswith(words[0])
        assert (row.x0, row.x1) == (inside[0], inside[-1] + 1)
        assert (row.y0, row.y1) == (lines[0], lines[-1] + 1)


def test_real_boxes_lie_on_the_lesions(real: DatasetReading) -> None:
    """A mass is brighter than what surrounds it; were y counted from the top, three in ten would not be."""
    masses = real.frame[(real.frame["granularity"] == "finding") & (real.frame["lesion_type"] == "mass")]
    for row in masses.itertuples():
        image = cv2.imread(row.path, cv2.IMREAD_UNCHANGED).astype(float)
        height, width = (row.y1 - row.y0) // 4, (row.x1 - row.x0) // 4
        core = image[row.y0 + height : row.y1 - height, row.x0 + width : row.x1 - width]
        box = image[row.y0 : row.y1, row.x0 : row.x1]
        around = image[
            max(0, row.y0 - 2 * height) : row.y1 + 2 * height, max(0, row.x0 - 2 * width) : row.x1 + 2 * width
        ]
        ring = (around.sum() - box.sum()) / (around.size - box.size)
        assert core.mean() > ring, row.row_id


def test_real_sides_agree_with_the_chest_wall(real: DatasetReading) -> None:
    """The chest wall is a straight bright edge: on the left of a left breast, on the right of a right one."""
    breasts = real.frame[real.frame["granularity"] == "breast"].iloc[::8]
    agreeing = 0
    for row in breasts.itertuples():
        tissue = cv2.imread(row.path, cv2.IMREAD_UNCHANGED)[512:] > 40
        columns = np.flatnonzero(tissue.mean(axis=0) > 0.02)
        share = tissue[:, columns[0] : columns[-1] + 1].mean(axis=0)
        half = len(share) // 2
        agreeing += (share[:half].sum() > share[half:].sum()) == (row.laterality == "L")
    assert agreeing > 0.9 * len(breasts)


def test_real_manifest_round_trip(real: DatasetReading, tmp_path: Path) -> None:
    validate(real.frame)
    write_manifest(real.frame, tmp_path / "manifest.csv")
    assert len(read_manifest(tmp_path / "manifest.csv")) == 441


@pytest.mark.parametrize("truth", ["Info.txt", "README"])
@pytest.mark.parametrize("below", ["", "images"])
def test_official_layouts(tmp_path: Path, truth: str, below: str) -> None:
    tree(tmp_path, "mdb001 G CIRC B 535 425 197", "mdb002 G NORM ", truth=truth, images=())
    (tmp_path / below).mkdir(exist_ok=True)
    write_pgm(tmp_path / below / "mdb001.pgm")
    cv2.imwrite(str(tmp_path / below / "mdb002.png"), np.full((1024, 1024), 9, np.uint8))
    calls: list[tuple[int, int]] = []
    reading = read_mini_mias(tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert reading.frame["row_id"].tolist() == ["mdb001", "mdb001-1", "mdb002"]
    assert reading.frame["laterality"].tolist() == ["R", "R", "L"]
    assert reading.frame["patient_id"].unique().tolist() == ["mias-001"]
    assert calls == [(1, 2), (2, 2)]
    finding = reading.frame.iloc[1]
    assert finding[["x0", "y0", "x1", "y1"]].tolist() == [338, 401, 733, 796]
    assert (finding["margin"], finding["spacing_mm"], finding["view"]) == ("circumscribed", 0.2, "MLO")


def test_truth_is_found_where_the_list_is(tmp_path: Path) -> None:
    tree(tmp_path, "mdb001 G NORM", truth="README")
    (tmp_path / "Info.txt").write_text("see README")
    assert len(read_mini_mias(tmp_path).frame) == 1


def test_damaged_images_are_left_out(tmp_path: Path) -> None:
    tree(tmp_path, "mdb001 G NORM", "mdb003 D NORM", "mdb005 F ASYM B 9 9 5", "mdb007 F NORM")
    (tmp_path / "mdb001.pgm").unlink()
    write_pgm(tmp_path / "mdb003.pgm", 512)
    (tmp_path / "mdb005.pgm").write_bytes(b"")
    reading = read_mini_mias(tmp_path)
    assert reading.frame["row_id"].tolist() == ["mdb007"]
    reasons = dict(reading.left_out)
    assert reasons["mdb001"] == "the image file is missing"
    assert "not 1024 by 1024" in reasons["mdb003"]
    assert reasons["mdb005"] == "the file is empty"
    assert "left out, the file is empty: 1 (mdb005)" in reading.summary()


def test_repeated_lines_count_once(tmp_path: Path) -> None:
    tree(tmp_path, "mdb005 F CIRC B 477 133 30", "mdb005 F CIRC B 500 168 26", "mdb005  F CIRC B 477 133 30")
    reading = read_mini_mias(tmp_path)
    assert reading.frame["row_id"].tolist() == ["mdb005", "mdb005-1", "mdb005-2"]
    assert "lines of Info.txt that repeat an earlier one count once: 5" in reading.notes


def test_lesions_that_differ_leave_their_breast_without_a_type(tmp_path: Path) -> None:
    tree(tmp_path, "mdb001 F CIRC B 500 500 30", "mdb001 F CALC M *NOTE 3*", "mdb002 F NORM")
    breast = read_mini_mias(tmp_path).frame.set_index("row_id").loc["mdb001"]
    assert breast["pathology"] == "malignant"
    assert breast[["lesion_type", "native_lesion_type", "margin"]].isna().all()


@pytest.mark.parametrize(
    "line",
    [
        *("mdb001 X NORM", "mdb001 G", "mdb001 G CIRC", "mdb001 G CIRC Q 1 2 3", "mdb001 G BLOB B 1 2 3"),
        *(
            "mdb001 G CIRC B 1 2",
            "mdb001 G CIRC B 1 2 3 4",
            "mdb001 G CIRC B x 2 3",
            "mdb001 G CIRC B -1 2 3",
        ),
        *(
            "mdb001 G CIRC B 1024 2 3",
            "mdb001 G CIRC B 1 2 0",
            "mdb000 G NORM",
            "mdb323 G NORM",
            "mdb01 G NORM",
        ),
        *(
            "mdb001 G NORM 1 2 3",
            "mdb001 G CIRC B *NOTE 4*",
            "and then prose",
            "mdb002 D NORM",
            "mdb002 G ARCH M",
        ),
    ],
)
def test_garbled_lines_are_named(tmp_path: Path, line: str) -> None:
    tree(tmp_path, "mdb002 G NORM", line, images=("mdb001.pgm", "mdb002.pgm"))
    if line == "mdb002 G NORM":
        return
    with pytest.raises(DatasetError, match=r"Info\.txt: line 4 \('") as caught:
        read_mini_mias(tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        read_mini_mias(tmp_path / "absent")
    with pytest.raises(DatasetError, match=r"has no Info\.txt or README"):
        read_mini_mias(tmp_path)
    (tmp_path / "Info.txt").write_text("")
    with pytest.raises(DatasetError, match="no line of ground truth"):
        read_mini_mias(tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        read_mini_mias(tmp_path / "Info.txt")
    (tmp_path / "Info.txt").write_text("mdb001 G NORM")
    with pytest.raises(DatasetError, match=r"no image .* \(of mdb001: the image file is missing\)"):
        read_mini_mias(tmp_path)
    (tmp_path / "Info.txt").write_text("x" * 1_000_001)
    with pytest.raises(DatasetError, match="too large"):
        read_mini_mias(tmp_path)


lesions = st.builds(
    Lesion,
    kind=st.sampled_from(["CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM"]),
    severity=st.sampled_from("BM"),
    circle=st.none() | st.tuples(st.integers(0, 1023), st.integers(0, 1023), st.integers(1, 500)),
)
films = st.builds(
    Film,
    number=st.integers(1, 322),
    tissue=st.sampled_from("FGD"),
    lesions=st.lists(lesions, max_size=4, unique=True).map(tuple),
)


@settings(deadline=None, max_examples=50)
@given(st.lists(films, min_size=1, max_size=8, unique_by=lambda film: film.number))
def test_truth_round_trip(tmp_path_factory: pytest.TempPathFactory, expected: list[Film]) -> None:
    lines = []
    for film in expected:
        lines += [f"{film.name} {film.tissue} NORM "] * (not film.lesions)
        for lesion in film.lesions:
            place = " ".join(map(str, lesion.circle)) if lesion.circle else "*NOTE 3*"
            lines.append(f"{film.name} {film.tissue} {lesion.kind} {lesion.severity} {place}")
    path = tmp_path_factory.mktemp("truth") / "Info.txt"
    path.write_text("\n".join(lines))
    found, repeated = parse_truth(path)
    assert found == sorted(expected, key=lambda film: film.number)
    assert repeated == []
    for film in found:
        for lesion in film.lesions:
            box = lesion.box
            assert (box is None) == (lesion.circle is None)
            assert box is None or (0 <= box.x0 < box.x1 <= 1024 and 0 <= box.y0 < box.y1 <= 1024)


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.sampled_from([b"", b"mdb001 G NORM\n", b"mdb002 F CIRC B 1 2 3\n"]))
def test_hostile_truth_is_refused_plainly(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes
) -> None:
    path = tmp_path_factory.mktemp("truth") / "Info.txt"
    path.write_bytes(start + content)
    try:
        found, _ = parse_truth(path)
    except DatasetError:
        return
    assert found
