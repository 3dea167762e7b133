import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom.uid as uid
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from embedder.findings import Finding, findings_frame
from exchange import ExchangeError
from exchange.gatekeeper import TOMOSYNTHESIS, GatekeeperConfig, judge_image, judge_images
from exchange.verdicts import ACCEPT, NOTE, REFUSE, gate_manifest

WHOLE = {
    "ViewPosition": "CC",
    "ImageLaterality": "L",
    "ImagerPixelSpacing": ["0.07", "0.07"],
    "BurnedInAnnotation": "NO",
    "BreastImplantPresent": "NO",
    "PixelIntensityRelationship": "LOG",
}
Writer = Callable[..., Path]


def view_code(*modifiers: str) -> Sequence:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "399162004", "SCT"
    items = []
    for value in modifiers:
        item = Dataset()
        item.CodeValue = value
        items.append(item)
    code.ViewModifierCodeSequence = Sequence(items)
    return Sequence([code])


def test_a_whole_standard_view_is_accepted_and_what_was_read_is_told(write_dicom: Writer, ramp: np.ndarray) -> None:
    verdict = judge_image(write_dicom(ramp, bits=12, **WHOLE, EstimatedRadiographicMagnificationFactor="1.0"))
    assert (verdict.verdict, verdict.reasons) == (ACCEPT, ())
    assert (verdict.sop_uid, verdict.modality, verdict.intent) == ("1.2.3.4", "MG", "FOR PRESENTATION")
    assert (verdict.photometric, verdict.rows, verdict.columns, verdict.frames) == ("MONOCHROME2", 40, 50, 1)
    assert (verdict.spacing_mm, verdict.spacing_source, verdict.magnification) == (0.07, "ImagerPixelSpacing", 1.0)
    assert (verdict.view, verdict.laterality, verdict.view_modifiers) == ("CC", "L", ())
    assert (verdict.implant, verdict.burned_in, verdict.text_found) == (False, False, False)


@pytest.mark.parametrize(
    ("attributes", "config", "expected", "word"),
    [
        ({"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"}, {}, REFUSE, "not a mammogram"),
        ({"PresentationIntentType": "FOR PROCESSING"}, {}, REFUSE, "For Processing"),
        ({"PresentationIntentType": "FOR PROCESSING"}, {"allow_for_processing": True}, NOTE, "For Processing"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, {}, REFUSE, "PALETTE COLOR"),
        ({"ViewCodeSequence": view_code("399163009")}, {}, NOTE, "magnification view"),
        ({"ViewCodeSequence": view_code("R-102D7")}, {}, NOTE, "spot compression view"),
        ({"ViewCodeSequence": view_code("R-102D7")}, {"magnified": "refuse"}, REFUSE, "spot compression view"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, {}, NOTE, "magnified 1.8 times"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, {"magnified": "refuse"}, REFUSE, "magnified 1.8 times"),
        ({"EstimatedRadiographicMagnificationFactor": "1.08"}, {}, ACCEPT, ""),
        ({"ViewCodeSequence": view_code("399209000")}, {}, NOTE, "implant displaced"),
        ({"ViewCodeSequence": view_code("X-1", "399161006")}, {}, NOTE, "X-1, cleavage"),
        ({"BreastImplantPresent": "YES"}, {}, NOTE, "implant"),
        ({"PartialView": "YES"}, {}, NOTE, "Partial View"),
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "12"}, {}, NOTE, "with loss, 12 times"),
        ({"PixelIntensityRelationship": "LIN"}, {}, NOTE, "linear"),
        ({"BurnedInAnnotation": "YES"}, {}, REFUSE, "Burned In Annotation"),
        ({"BurnedInAnnotation": "YES"}, {"allow_burned_in": True}, NOTE, "Burned In Annotation"),
        ({"BurnedInAnnotation": "PERHAPS"}, {}, NOTE, "Burned In Annotation"),
        ({"ViewPosition": ""}, {}, NOTE, "view is unknown"),
        ({"ImageLaterality": "B"}, {}, NOTE, "laterality is unknown"),
        ({"ImagerPixelSpacing": ["0", "0"]}, {}, NOTE, "makes no sense"),
    ],
)
def test_each_rule_gives_its_verdict(
    write_dicom: Writer, ramp: np.ndarray, attributes: dict, config: dict, expected: str, word: str
) -> None:
    verdict = judge_image(write_dicom(ramp, bits=12, **{**WHOLE, **attributes}), GatekeeperConfig(**config))
    assert verdict.verdict == expected
    assert word in "; ".join(verdict.reasons)
    assert len(verdict.reasons) == (expected != ACCEPT)


def test_several_reasons_stand_together_the_gravest_first(write_dicom: Writer, ramp: np.ndarray) -> None:
    verdict = judge_image(write_dicom(ramp, PartialView="YES", BurnedInAnnotation="YES", ViewPosition="CC"))
    assert verdict.verdict == REFUSE
    assert "Burned In" in verdict.reasons[0]
    assert len(verdict.reasons) == 4


def test_tomosynthesis_and_several_frames_are_refused_or_a_note(write_dicom: Writer, ramp: np.ndarray) -> None:
    several = np.stack([ramp, ramp])
    for attributes in ({}, {"SOPClassUID": TOMOSYNTHESIS}):
        path = write_dicom(several, bits=12, **WHOLE, **attributes)
        assert judge_image(path).verdict == REFUSE
        assert judge_image(path, GatekeeperConfig(multi_frame="note")).verdict == NOTE
    assert "tomosynthesis image of 2 frames" in judge_image(path).reasons[0]
    assert judge_image(write_dicom(ramp, bits=12, **WHOLE, SOPClassUID=TOMOSYNTHESIS)).verdict == REFUSE


def test_damaged_pixels_are_refused_even_where_the_header_is_whole(write_dicom: Writer, ramp: np.ndarray) -> None:
    whole = write_dicom(ramp, bits=12, syntax=uid.RLELossless, **WHOLE)
    content = whole.read_bytes()
    assert judge_image(whole).verdict == ACCEPT
    for damaged in (content[: len(content) // 2], content[:-200] + bytes(200), content[:150], content[:132], b""):
        whole.write_bytes(damaged)
        verdict = judge_image(whole)
        assert verdict.verdict == REFUSE
        assert verdict.reasons[0]


def test_pixels_are_not_decoded_where_they_are_not_to_be_looked_at(write_dicom: Writer, ramp: np.ndarray) -> None:
    path = write_dicom(ramp, bits=12, stream=b"\xff\xd8no jpeg", syntax=uid.RLELossless, **WHOLE)
    assert judge_image(path).verdict == REFUSE
    unlooked = judge_image(path, GatekeeperConfig(check_pixels=False))
    assert (unlooked.verdict, unlooked.text_found) == (ACCEPT, None)


def test_text_in_the_background_is_refused_whatever_the_header_says(write_dicom: Writer) -> None:
    y, x = np.mgrid[:700, :600]
    stored = np.where((y - 350) ** 2 + x**2 < 240**2, 1800, 10).astype(np.uint16)
    drawn = np.zeros(stored.shape, np.uint8)
    cv2.putText(drawn, "SURNAME 19610302", (280, 80), cv2.FONT_HERSHEY_SIMPLEX, 0.8, 255, 2)
    assert judge_image(write_dicom(stored, bits=12, **WHOLE)).verdict == ACCEPT
    path = write_dicom(np.where(drawn > 127, 4095, stored).astype(np.uint16), bits=12, **WHOLE)
    verdict = judge_image(path)
    assert (verdict.verdict, verdict.text_found) == (REFUSE, True)
    assert "text is burnt into its background" in verdict.reasons[0]
    assert judge_image(path, GatekeeperConfig(allow_burned_in=True)).verdict == NOTE


@pytest.mark.parametrize("name", ["nowhere.dcm", "a\0b", "."])
def test_what_is_no_file_is_refused_without_an_error(tmp_path: Path, name: str) -> None:
    assert judge_image(tmp_path / name).verdict == REFUSE


def test_a_plain_image_is_judged_by_its_pixels_alone(tmp_path: Path, ramp: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "film.png"), ramp)
    verdict = judge_image(tmp_path / "film.png")
    assert (verdict.verdict, verdict.rows) == (NOTE, 40)
    (tmp_path / "film.png").write_bytes((tmp_path / "film.png").read_bytes()[:60])
    assert judge_image(tmp_path / "film.png").verdict == REFUSE


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400), junk=st.binary(max_size=40))
def test_no_damaged_header_raises(write_dicom: Writer, ramp: np.ndarray, cut: int, junk: bytes) -> None:
    path = write_dicom(ramp, bits=12, **WHOLE)
    content = bytearray(path.read_bytes())
    content[132 + cut : 132 + cut + len(junk)] = junk
    path.write_bytes(content)
    assert judge_image(path).verdict in (ACCEPT, NOTE, REFUSE)


def test_many_images_are_judged_in_their_order_whatever_the_number_of_threads(
    write_dicom: Writer, ramp: np.ndarray, tmp_path: Path
) -> None:
    paths = [write_dicom(ramp, bits=12, name=f"{at}.dcm", SOPInstanceUID=f"1.2.{at}", **WHOLE) for at in range(9)]
    paths.insert(4, tmp_path / "nowhere.dcm")
    seen: list[tuple[int, int]] = []
    verdicts = judge_images(paths, workers=4, progress=lambda done, total: seen.append((done, total)))
    assert verdicts == tuple(judge_image(path) for path in paths)
    assert [one.path for one in verdicts] == paths
    assert seen == [(done, 10) for done in range(1, 11)]
    assert threading.active_count() < 10
    assert judge_images([]) == ()
    with pytest.raises(ExchangeError, match="at least 1"):
        judge_images(paths, workers=0)


def test_a_wrong_word_in_the_configuration_is_refused() -> None:
    with pytest.raises(ExchangeError, match="`note` or `refuse`"):
        GatekeeperConfig(magnified="perhaps")  # type: ignore[arg-type]


def manifest_of(paths: list[Path]) -> pd.DataFrame:
    return findings_frame(
        Finding(row_id=str(at), path=str(path), granularity="breast", dataset="d", patient_id="w")
        for at, path in enumerate(paths)
    )


def test_a_manifest_keeps_the_rows_let_in_with_their_notes_and_lists_the_refused(
    write_dicom: Writer, ramp: np.ndarray
) -> None:
    good = write_dicom(ramp, bits=12, name="good.dcm", **WHOLE)
    noted = write_dicom(ramp, bits=12, name="noted.dcm", **{**WHOLE, "PartialView": "YES"})
    bad = write_dicom(ramp, bits=12, name="bad.dcm", **{**WHOLE, "BurnedInAnnotation": "YES"})
    frame = manifest_of([good, bad, noted, bad, good])
    gated, refused = gate_manifest(frame, judge_images([good, noted, bad]))
    assert list(gated["row_id"]) == ["0", "2", "4"]
    assert list(gated["gate"]) == [ACCEPT, NOTE, ACCEPT]
    assert gated["gate_note"].isna().tolist() == [True, False, True]
    assert [one.path for one in refused] == [bad]
    assert "gate" not in frame
    with pytest.raises(ExchangeError, match="has not been judged"):
        gate_manifest(frame, judge_images([good]))
    nothing, _ = gate_manifest(manifest_of([bad]), judge_images([bad]))
    assert nothing.empty
