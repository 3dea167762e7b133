"""No identifier of the input is in any byte of the output: see also test_deidentify.py for whole folders."""

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MultiFrameTrueColorSecondaryCaptureImageStorage

from embedder.quiet import quiet_libraries
from exchange.confidentiality import KEPT_BYTES, KEPT_TEXT, Woman, deidentified
from exchange.profiletable import ACTIONS
from exchange.pseudonyms import PseudonymKey

KEY = PseudonymKey(b"k" * 32)
WOMAN = Woman("", "W7")
TEXT_VRS = {"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", "CS", "UI"}
BYTE_VRS = {"OB", "OW", "UN", "OD", "OF", "OL", "OV", "OB or OW", "US or OW", "US or SS or OW"}
# What the cleaner itself writes.
OWN = {
    *("PatientID", "PatientName", "PatientIdentityRemoved", "DeidentificationMethod", "SpecificCharacterSet"),
    *("DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified"),
}


def attributes() -> Iterator[tuple[int, str, str]]:
    """Yield tag, keyword and VR of every attribute of the dictionary that a data set may hold."""
    for tag in DicomDictionary:
        if tag >> 16 >= 8 and keyword_for_tag(tag) and tag < 0xFFFE0000 and dictionary_VR(tag) != "NONE":
            yield tag, keyword_for_tag(tag), dictionary_VR(tag)


def planted(tag: int, vr: str) -> object:
    """Return a value that is found nowhere else."""
    word = f"PLANT{tag:08X}"
    if vr == "UI":
        return f"1.2.999.{tag}.77"
    if vr in BYTE_VRS:
        return (word + " ").encode() * 2
    return word


def full_dataset() -> Dataset:
    """Return a data set with every text and byte attribute of PS3.6 planted, at the root and in a nested item."""
    root, item, inner = Dataset(), Dataset(), Dataset()
    for tag, _, vr in attributes():
        if vr in TEXT_VRS or vr in BYTE_VRS:
            for place in (root, inner):
                place.add(DataElement(tag, vr.split(" or ")[-1] if vr in BYTE_VRS else vr, planted(tag, vr)))
    item.ViewModifierCodeSequence = Sequence([inner])
    root.SharedFunctionalGroupsSequence = Sequence([item])
    return root


def encoded(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = io.BytesIO()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2"
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def cleaned(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Write, read and clean a data set, as for a file."""
    with quiet_libraries():
        return deidentified(pydicom.dcmread(io.BytesIO(encoded(dataset, syntax)), force=True), WOMAN, KEY)


@pytest.fixture(scope="module")
def everything() -> tuple[Dataset, bytes]:
    """The full data set cleaned, and its bytes."""
    with quiet_libraries():
        clean = deidentified(full_dataset(), WOMAN, KEY)
        return clean, encoded(clean)


def test_of_every_text_in_the_dictionary_only_the_listed_ones_are_left(everything: tuple[Dataset, bytes]) -> None:
    _, content = everything
    left = set()
    for tag, keyword, vr in attributes():
        if vr in TEXT_VRS or vr in BYTE_VRS:
            value = planted(tag, vr)
            word = value if isinstance(value, bytes) else str(value).encode()
            if word.strip() in content:
                left.add((keyword, vr))
    texts = {keyword for keyword, vr in left if vr in TEXT_VRS - {"CS", "UI"}}
    # A code is kept only whole and of a published scheme, and this one is not.
    assert texts <= KEPT_TEXT
    assert {keyword for keyword, vr in left if vr in BYTE_VRS} <= KEPT_BYTES
    assert not {keyword for keyword, vr in left if vr == "UI"}
    # A coded string of the right form is not told from a defined term, where the table does not have it.
    assert not {keyword for keyword, vr in left if vr == "CS"} & set(ACTIONS)


def test_every_attribute_of_the_table_that_is_known_is_treated_as_its_action_says(
    everything: tuple[Dataset, bytes],
) -> None:
    clean, _ = everything
    known = {keyword: vr for _, keyword, vr in attributes()}
    # Commands, files and media (groups below 8) are not of data sets.
    others = {keyword_for_tag(tag) for tag in DicomDictionary if tag >> 16 < 8}
    unknown = [name for name in ACTIONS if name not in known and name not in others]
    # Older and newer than the dictionary: they have no keyword there, and are removed because they are unknown.
    assert all(int(name, 16) not in DicomDictionary for name in unknown)
    assert len(ACTIONS) == 652
    for keyword, action in ACTIONS.items():
        if keyword not in known or keyword in OWN or known[keyword] not in TEXT_VRS:
            continue
        if action == "X" and known[keyword] != "UI":
            assert keyword not in clean
        elif action in ("Z", "X/Z"):
            assert clean[keyword].is_empty
        elif keyword in clean and known[keyword] != "UI":
            assert clean[keyword].value == "REMOVED"
        elif known[keyword] == "UI":
            assert clean[keyword].value.startswith("2.25.")


def test_every_sequence_of_the_table_is_removed_emptied_or_cleaned() -> None:
    root = Dataset()
    for tag, _, vr in attributes():
        if vr == "SQ":
            item = Dataset()
            item.PatientName, item.TextValue, item.ReferencedSOPInstanceUID = (
                "PLANTED^NAME",
                "PLANTED TEXT",
                "1.2.999.7",
            )
            root.add(DataElement(tag, "SQ", Sequence([item])))
    clean = cleaned(root)
    content = encoded(clean)
    assert b"PLANTED" not in content
    assert b"1.2.999.7" not in content
    for keyword, action in ACTIONS.items():
        if keyword in root and action == "X":
            assert keyword not in clean


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_private_attributes_overlays_curves_and_group_lengths_are_gone(syntax: str) -> None:
    dataset = Dataset()
    dataset.add_new(0x00090010, "LO", "PLANTED CREATOR")
    dataset.add_new(0x00091001, "LO", "PLANTED VALUE")
    dataset.add_new(0x60003000, "OW", b"PLANTED OVERLAY ")
    dataset.add_new(0x60004000, "LT", "PLANTED COMMENT")
    dataset.add_new(0x60000022, "LO", "PLANTED DESCRIPTION")
    dataset.add_new(0x50003000, "OW", b"PLANTED CURVE  ")
    dataset.add_new(0x50020022, "LO", "PLANTED LABEL")
    dataset.add_new(0x00104444, "LO", "PLANTED UNKNOWN")
    dataset.add_new(0x00100000, "UL", 70)
    item = Dataset()
    item.add_new(0x00091001, "LO", "PLANTED NESTED")
    item.CodeMeaning, item.CodeValue, item.CodingSchemeDesignator = "cranio-caudal", "399162004", "SCT"
    dataset.ViewCodeSequence = Sequence([item])
    clean = cleaned(dataset, syntax)
    assert b"PLANTED" not in encoded(clean)
    assert clean.ViewCodeSequence[0].CodeMeaning == "cranio-caudal"


def test_what_is_no_value_of_its_kind_is_not_copied() -> None:
    dataset = Dataset()
    with quiet_libraries():
        for keyword, vr, value in (
            ("KVP", "DS", "SMITH"),
            ("SeriesNumber", "IS", "JANE"),
            ("BodyPartExamined", "CS", "Jane's <breast>"),
            ("ViewPosition", "LT", "SMITH JANE, BORN 1961"),
            ("StudyDate", "DA", "SMITH"),
            ("StudyTime", "TM", "SMITH"),
            ("Rows", "US", [0x4D53, 0x5449, 0x2048]),
            ("ExposureTime", "IS", "12"),
            ("ImageLaterality", "CS", "L"),
        ):
            raw = np.array(value, "<u2").tobytes() if vr == "US" else str(value).encode()
            element = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(keyword), vr, len(raw), raw, 0, is_implicit_VR=False, is_little_endian=True
            )
            dataset[keyword] = element
        clean = deidentified(dataset, WOMAN, KEY)
        content = encoded(clean)
    assert not any(word in content for word in (b"SMITH", b"JANE", b"Jane", b"SMIT"))
    assert clean.ExposureTime == 12
    assert clean.ImageLaterality == "L"
    assert clean["StudyDate"].is_empty


def test_a_kept_text_that_holds_her_name_or_number_is_not_kept() -> None:
    dataset = Dataset()
    dataset.PatientName = "Okonkwo^Adaeze"
    dataset.PatientID = "4711-0815"
    dataset.Manufacturer = "Maker of ADAEZE's unit"
    dataset.ManufacturerModelName = "Model 4711-0815"
    dataset.SoftwareVersions = "1.0"
    dataset.BodyPartExamined = "OKONKWO"
    clean = cleaned(dataset)
    assert "Manufacturer" not in clean
    assert "ManufacturerModelName" not in clean
    assert "BodyPartExamined" not in clean
    assert clean.SoftwareVersions == "1.0"


def test_a_code_of_a_hospitals_own_scheme_is_dropped_and_a_published_one_stays() -> None:
    dataset = Dataset()
    items = []
    for value, scheme, meaning in (("399163009", "SCT", "Magnification"), ("7", "99HOSPITAL", "of Jane Smith")):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
        items.append(item)
    dataset.ViewCodeSequence = Sequence(items)
    clean = cleaned(dataset)
    assert [item.CodeMeaning for item in clean.ViewCodeSequence] == ["Magnification"]


def test_dates_are_moved_and_those_of_her_birth_and_death_are_gone() -> None:
    dataset = Dataset()
    dataset.StudyDate, dataset.SeriesDate, dataset.AcquisitionDateTime = "20240301", "20240310", "20240301120000.5"
    dataset.PatientBirthDate, dataset.PatientBirthTime = "19610302", "1200"
    dataset.PatientAge, dataset.PatientSex = "063Y", "F"
    dataset.DateOfLastCalibration = ["20230101", "20240101"]
    clean = cleaned(dataset)
    days = KEY.shift_days("", "W7")
    first, second = (np.datetime64(f"{one[:4]}-{one[4:6]}-{one[6:]}") for one in (clean.StudyDate, clean.SeriesDate))
    assert (first - np.datetime64("2024-03-01")).astype(int) == days
    assert (second - first).astype(int) == 9
    assert clean.AcquisitionDateTime == clean.StudyDate + "120000.5"
    assert len(clean.DateOfLastCalibration) == 2
    assert clean["PatientBirthDate"].is_empty
    assert clean["PatientSex"].is_empty
    assert "PatientBirthTime" not in clean
    assert "PatientAge" not in clean
    assert clean.LongitudinalTemporalInformationModified == "MODIFIED"
    assert clean.PatientIdentityRemoved == "YES"
    assert [code.CodeValue for code in clean.DeidentificationMethodCodeSequence] == ["113100", "113107"]


def test_uids_are_replaced_alike_everywhere_and_those_of_the_standard_stay() -> None:
    dataset, item = Dataset(), Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.2"
    dataset.SOPInstanceUID = "1.2.999.1"
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.999.1"
    dataset.ReferencedImageSequence = Sequence([item])
    clean = cleaned(dataset)
    assert clean.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.2"
    assert clean.SOPInstanceUID == KEY.uid("1.2.999.1")
    assert clean.ReferencedImageSequence[0].ReferencedSOPInstanceUID == clean.SOPInstanceUID


def test_a_number_keeps_the_digits_that_it_was_written_with() -> None:
    dataset = Dataset()
    dataset.ImagerPixelSpacing = ["0.0700", "0.0700"]
    dataset.WindowCenter = ["1e3", "-2.50"]
    content = encoded(cleaned(dataset))
    assert b"0.0700\\0.0700" in content
    assert b"1e3\\-2.50" in content


def test_nesting_without_end_ends() -> None:
    dataset = Dataset()
    dataset.PatientName = "PLANTED"
    for _ in range(60):
        outer = Dataset()
        outer.SharedFunctionalGroupsSequence = Sequence([dataset])
        dataset = outer
    assert b"PLANTED" not in encoded(cleaned(dataset))
