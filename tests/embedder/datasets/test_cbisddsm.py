"""CBIS-DDSM in small trees of its official layout: both ways to name files, and its known defects."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from embedder.datasets import DatasetError, read_dataset
from embedder.datasets.cbisddsm import find_case_folders, read_cbis_ddsm
from embedder.datasets.cbistables import TABLES, read_case_tables
from embedder.manifest import read_manifest, validate, write_manifest

HEAD = (
    "patient_id,{density},left or right breast,image view,abnormality id,abnormality type,{descriptors},"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
HEADS = {
    "mass": HEAD.format(density="breast_density", descriptors="mass shape,mass margins"),
    "calc": HEAD.format(density="breast density", descriptors="calc type,calc distribution"),
}
SIZE = (120, 80)
RNG = np.random.default_rng(3)


def write_dicom(path: Path, pixels: npt.NDArray[np.integer], case: str, series: str, description: str) -> None:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality = "MG"
    data.PatientID = data.PatientName = case
    data.StudyInstanceUID = generate_uid()
    data.SeriesInstanceUID = series
    data.SeriesDescription = description
    data.BodyPartExamined = "BREAST"
    data.Laterality = "L" if "LEFT" in case else "R"
    data.PatientOrientation = "MLO" if "MLO" in case else "CC"
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = 0
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def film(size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint16]:
    return RNG.integers(0, 60_000, size, dtype=np.uint16)


def mask(*boxes: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    pixels = np.zeros(size, np.uint8)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 255
    return pixels


class Tree:
    """A copy of CBIS-DDSM that is being made up."""

    def __init__(self, folder: Path, naming: str = "tables") -> None:
        self.folder = folder
        self.naming = naming
        self.images = folder / ("CBIS-DDSM" if naming == "tables" else "manifest-ZkhPvrLo/CBIS-DDSM")
        self.rows: dict[tuple[str, str], list[str]] = {}

    def add(
        self,
        case: str,
        number: int,
        files: list[npt.NDArray[np.integer]],
        *,
        described: str = "IRREGULAR,SPICULATED,4,MALIGNANT,5",
        density: str = "2",
    ) -> None:
        """Add a lesion; the first of its files is what the table calls the mask, the second the crop."""
        kind, split = case.split("_")[0].split("-")
        _, _, woman, side, view = case.split("_")
        paths = [self.uids(case, 0)] + [self.uids(f"{case}_{number}", position) for position in (1, 0)]
        for position, (pixels, path) in enumerate(zip(files, (paths[2], paths[1]), strict=False)):
            self.write(pixels, f"{case}_{number}", path, position + 1, "ROI mask images")
        rows = self.rows.setdefault((kind.lower(), "train" if split == "Training" else "test"), [])
        name = "mass" if kind == "Mass" else "calcification"
        rows.append(
            f'P_{woman},{density},{side},{view},{number},{name},{described},{paths[0]},"{paths[1]}\n",{paths[2]}'
        )

    def add_image(self, case: str, pixels: npt.NDArray[np.integer] | None = None) -> None:
        """Add the full image of a case."""
        self.write(film() if pixels is None else pixels, case, self.uids(case, 0), 1, "full mammogram images")

    def uids(self, name: str, position: int) -> str:
        digits = "".join(str(ord(letter) % 10) for letter in name)
        return f"{name}/1.2.{digits}.1/1.2.{digits}.2/00000{position}.dcm"

    def write(self, pixels: npt.NDArray[np.integer], name: str, listed: str, position: int, description: str) -> None:
        path = self.images / listed
        if self.naming == "retriever":
            path = self.images / name / "07-20-2016-DDSM-30688" / f"1.000000-{description}-21505" / f"1-{position}.dcm"
        write_dicom(path, pixels, name, listed.split("/")[2], description)

    def close(self) -> Path:
        """Write the tables."""
        for (kind, split), rows in self.rows.items():
            (self.folder / TABLES[kind, split]).write_text("\n".join([HEADS[kind], *rows]) + "\n")
        return self.folder


@pytest.mark.parametrize("naming", ["tables", "retriever"])
def test_masks_are_found_by_their_pixels(tmp_path: Path, naming: str) -> None:
    tree = Tree(tmp_path, naming)
    case = "Mass-Training_P_00001_LEFT_CC"
    tree.add_image(case)
    tree.add(case, 1, [mask((10, 20, 30, 50)), film((30, 20))])
    # Swapped: what the table calls the mask is the crop.
    tree.add(case, 2, [film((12, 9)), mask((0, 0, 5, 4), (70, 100, 80, 120))], described="OVAL,N/A,3,BENIGN,2")
    reading = read_dataset("cbis-ddsm", tree.close())
    assert reading.left_out == ()
    frame = reading.frame.set_index("row_id")
    first, second = frame.loc[f"{case}_1"], frame.loc[f"{case}_2"]
    assert first[["x0", "y0", "x1", "y1"]].tolist() == [10, 20, 30, 50]
    # The box is around all parts of a mask.
    assert second[["x0", "y0", "x1", "y1"]].tolist() == [0, 0, 80, 120]
    assert first[["image_rows", "image_columns"]].tolist() == list(SIZE)
    assert first[["laterality", "view", "patient_id", "split", "density"]].tolist() == [
        "L",
        "CC",
        "P_00001",
        "train",
        "B",
    ]
    assert first[["shape", "margin", "assessment", "subtlety"]].tolist() == [
        "irregular",
        "spiculated",
        "4",
        5,
    ]
    assert frame.loc["P_00001_L_CC", "pathology"] == "malignant"
    assert frame.loc["P_00001_L_CC", "lesion_type"] == "mass"
    assert frame.loc["P_00001_L_CC", ["shape", "margin", "x0"]].isna().all()
    assert len({*frame["path"]}) == 1
    validate(reading.frame)
    write_manifest(reading.frame, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv").set_index("row_id")
    assert again.loc[f"{case}_1", "native_shape"] == "IRREGULAR"


def test_masks_of_another_size_are_scaled_or_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    case = "Mass-Test_P_00002_RIGHT_MLO"
    tree.add_image(case)
    tree.add(case, 1, [mask((5, 10, 20, 60), size=(60, 40)), film((20, 20))])
    tree.add(case, 2, [film((20, 20)), mask((5, 10, 20, 40), size=(60, 60))])
    tree.add(case, 3, [mask((1, 1, 9, 62), size=(122, 80))])
    reading = read_cbis_ddsm(tree.close())
    findings = reading.frame[reading.frame["granularity"] == "finding"].set_index("row_id")
    assert findings.loc[f"{case}_1", ["x0", "y0", "x1", "y1"]].tolist() == [10, 20, 40, 120]
    assert findings.loc[f"{case}_3", ["x0", "y0", "x1", "y1"]].tolist() == [1, 0, 9, 61]
    assert reading.left_out == ((f"{case}_2", "mask: it has another shape than the image"),)
    assert any(note.startswith("2 masks were scaled") for note in reading.notes)
    # A lesion that has no box is still known to be in its breast.
    assert reading.frame.set_index("row_id").loc["P_00002_R_MLO", "pathology"] == "malignant"


def test_defects_are_left_out_with_a_reason(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "retriever")
    good, bare, broken = (f"Calc-Training_P_0000{number}_LEFT_CC" for number in (1, 2, 3))
    described = "PLEOMORPHIC,CLUSTERED,4,BENIGN,3"
    tree.add_image(good)
    tree.add(good, 1, [mask((1, 1, 5, 5)), film((5, 5))], described=described)
    tree.add(good, 2, [mask(), film((5, 5))], described=described)
    tree.add(good, 3, [], described=described)
    tree.add(good, 4, [mask((3, 3, 4, 4))], described=described)
    damaged = next(tree.images.glob(f"{good}_4/*/*/*.dcm"))
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    damaged.with_name("._1-1.dcm").write_bytes(b"made by macOS")
    tree.add(bare, 1, [mask((1, 1, 5, 5))], described=described)
    tree.add_image(broken)
    tree.add(broken, 1, [mask((1, 1, 5, 5))], described=described)
    next(tree.images.glob(f"{broken}/*/*/*.dcm")).write_bytes(b"")
    calls: list[tuple[int, int]] = []
    reading = read_cbis_ddsm(tree.close(), progress=lambda done, total: calls.append((done, total)))
    assert reading.frame["row_id"].tolist() == [f"{good}_1", "P_00001_L_CC"]
    assert dict(reading.left_out) == {
        f"{good}_2": "mask: none of the files is a readable mask with a lesion in it",
        f"{good}_3": "mask: its folder is missing or empty",
        f"{good}_4": "mask: none of the files is a readable mask with a lesion in it",
        bare: "image: its folder is missing or empty",
        f"{bare}_1": "image: its folder is missing or empty",
        broken: "image: the file is empty",
        f"{broken}_1": "image: the file is empty",
    }
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_women_in_both_tables_go_to_the_test_side(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    calc, mass, other = (
        "Calc-Training_P_00038_LEFT_CC",
        "Mass-Test_P_00038_LEFT_CC",
        "Mass-Training_P_00040_LEFT_CC",
    )
    for case in (calc, mass, other):
        tree.add_image(case)
    tree.add(calc, 1, [mask((1, 1, 5, 5))], described="SKIN-PUNCTATE,N/A,2,BENIGN_WITHOUT_CALLBACK,3")
    tree.add(mass, 1, [mask((9, 9, 15, 15))])
    tree.add(other, 1, [mask((9, 9, 15, 15))], density="0")
    reading = read_cbis_ddsm(tree.close())
    frame = reading.frame.set_index("row_id")
    assert frame.loc[f"{calc}_1", "split"] == "test"
    assert frame.loc[f"{mass}_1", "split"] == "test"
    assert frame.loc[f"{other}_1", "split"] == "train"
    assert frame.loc[f"{calc}_1", "calcification_type"] == "skin + punctate"
    # One film, published twice: one breast, with what both cases say of it.
    breasts = frame[frame["granularity"] == "breast"]
    assert breasts.index.tolist() == ["P_00040_L_CC", "P_00038_L_CC"]
    assert breasts.loc["P_00038_L_CC", "pathology"] == "malignant"
    assert breasts["density"].isna().tolist() == [True, False]
    assert breasts.loc["P_00038_L_CC", ["lesion_type", "shape", "assessment"]].isna().all()
    moved = next(note for note in reading.notes if "training and test tables" in note)
    assert moved.startswith("1 women")
    assert "1 training rows" in moved
    assert moved.endswith("(P_00038)")
    assert any(note.startswith("1 films are published as a mass case and") for note in reading.notes)
    assert any(TABLES["calc", "test"] in note for note in reading.notes)
    assert "split: test 2, train 1" in reading.summary()
    validate(reading.frame)


def test_one_of_several_images_is_chosen_by_its_series(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "retriever")
    case = "Mass-Training_P_00001_LEFT_CC"
    tree.add_image(case)
    tree.add(case, 1, [mask((1, 1, 5, 5))])
    right = next(tree.images.glob(f"{case}/*/*/*.dcm"))
    right.with_name("._1-1.dcm").write_bytes(b"made by macOS")
    other = right.with_name("1-2.dcm")
    write_dicom(other, film(), case, "1.2.3", "full mammogram images")
    tree.close()
    assert set(read_cbis_ddsm(tmp_path).frame["path"]) == {str(right)}
    # Downloaded twice, in parts that overlap.
    again = tmp_path / "manifest-2" / "CBIS-DDSM" / case / "again" / "1-1.dcm"
    again.parent.mkdir(parents=True)
    again.write_bytes(right.read_bytes())
    assert len(read_cbis_ddsm(tmp_path).frame) == 2
    again.unlink()
    write_dicom(right, film(), case, "1.2.3", "full mammogram images")
    with pytest.raises(DatasetError, match="several images"):
        read_cbis_ddsm(tmp_path)


def test_tables_alone_are_not_enough(cbis_tables: Path) -> None:
    with pytest.raises(DatasetError, match="has the tables but no folder of images"):
        read_cbis_ddsm(cbis_tables)


def test_case_folders_are_found_but_not_searched_for_ever(tmp_path: Path) -> None:
    case = "Calc-Test_P_00038_LEFT_CC_1"
    first, second = tmp_path / "manifest-1" / "CBIS-DDSM" / case, tmp_path / "CBIS-DDSM" / case
    for folder in (
        first,
        second,
        tmp_path / "a" / "b" / "c" / "d" / case,
        tmp_path / ".hidden" / case,
        first / case,
    ):
        folder.mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    found = find_case_folders(tmp_path)
    assert set(found) == {case}
    assert sorted(found[case]) == sorted([first, second])


def test_real_images_with_the_real_tables(tmp_path: Path, cbis_dicom: list[Path], cbis_tables: Path) -> None:
    """Real films under the retriever's names, described by the real tables; only their masks are made up."""
    for table in TABLES.values():
        (tmp_path / table).symlink_to(cbis_tables / table)
    sizes = {}
    for file in cbis_dicom:
        header = dcmread(file, stop_before_pixels=True)
        folder = tmp_path / "CBIS-DDSM" / header.PatientID / "10-04-2016-DDSM-1" / "1.0-full mammogram images-1"
        folder.mkdir(parents=True)
        (folder / "1-1.dcm").symlink_to(file)
        sizes[header.PatientID] = (header.Rows, header.Columns)
    table = read_case_tables(cbis_tables).set_index("case")
    described = [case for case in sizes if case in table.index]
    assert described
    case = described[0]
    name = f"{case}_1"
    path = tmp_path / "CBIS-DDSM" / name / "10-04-2016-DDSM-2" / "1.0-ROI mask images-1" / "1-2.dcm"
    write_dicom(path, mask((100, 200, 300, 500), size=sizes[case]), name, "1.2.3", "ROI mask images")
    reading = read_cbis_ddsm(tmp_path)
    findings = reading.frame[reading.frame["granularity"] == "finding"]
    assert findings["row_id"].tolist() == [name]
    assert findings[["x0", "y0", "x1", "y1"]].to_numpy().tolist() == [[100, 200, 300, 500]]
    breasts = reading.frame[reading.frame["granularity"] == "breast"]
    assert len(breasts) == len(described)
    assert dict(reading.left_out)["Mass-Training_P_00001_LEFT_CC_1"] == "image: its folder is missing or empty"
    assert any(note.startswith("31 women") and "83 training rows" in note for note in reading.notes)
    validate(reading.frame)
    # The tables' UIDs are those of the files.
    listed = table.loc[described, "image_file"].groupby(level=0).first().str.split("/").str[1]
    for row in breasts.itertuples():
        header = dcmread(row.path, stop_before_pixels=True)
        assert listed[header.PatientID] == header.StudyInstanceUID
        assert row.laterality == header.Laterality
        assert row.view == header.PatientOrientation
