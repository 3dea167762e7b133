"""DICOM files: every transfer syntax of mammography, how pixels become brightness, and hostile files."""

import base64
import io
import struct
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from PIL import Image
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from embedder import dicom
from embedder.mammogram import MammogramError, read_header, read_mammogram

LINEAR = {"WindowCenter": "2048", "WindowWidth": "4096", "VOILUTFunction": "LINEAR_EXACT"}


def encode_jpeg_lossless(stored: np.ndarray, bits: int, predictor: int) -> bytes:
    """Encode an image as JPEG lossless (ISO/IEC 10918-1 H), with predictor 1 (left) or 2 (above)."""
    values = stored.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1] if predictor == 1 else np.vstack([values[:1, :-1] * 0, values[:-1, 1:]])
    predicted[0, 1:] = values[0, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << bits - 1
    coded: list[str] = []
    for difference in (values - predicted).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << size) - 1
        # Every category has a code of five bits: its own number.
        coded.append(f"{size:05b}" + (f"{extra:0{size}b}" if size else ""))
    string = "".join(coded)
    string += "1" * (-len(string) % 8)
    entropy = int(string, 2).to_bytes(len(string) // 8, "big").replace(b"\xff", b"\xff\x00")
    rows, columns = stored.shape
    frame = struct.pack(">BHHB", bits, rows, columns, 1) + bytes([1, 0x11, 0])
    huffman = bytes([0]) + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17))
    scan = bytes([1, 1, 0, predictor, 0, 0])
    segments = ((0xC3, frame), (0xC4, huffman), (0xDA, scan))
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + head + entropy + b"\xff\xd9"


# 12 bits, (x·x·3 + y·y·5 + x·y) mod 4096 for 20 rows and 24 columns, by CharLS.
JPEG_LS = base64.b64decode(
    "/9j/9wALDAAUABgBAREA/9oACAEBAAAAAKLRt6eaClqq+0vpHSKbUqvXLDZrXcLresqRMoUqWWWWWWDFizZsyZMmTJk3jqS7BmzZ"
    "kyZMm6JEiRIkSJEiRIkSjEytkRLFixYsWIyJEiSJEiRMmTKFxGqsVaIFTJkyZLCZQoUKlSxYuXLm5Yq4hq0QKmzxoWLFy5gwZMmj"
    "Rs2JDVVxPJh0mYPHZo0JCIRCIRCIRCIRCITT5rjZ2QEpUXmggfCCQiEQiEQiEQiEQiEVhOrYsGrp+SFJcIHF2eyAQCAQCAQCAQCA"
    "XxqrYql7Ry+EygQMzWYGp0fHx8fHx8fGgvK0OjL5Q0fFBA7ICUrMDU6PT09PT04mdtXBZwiXOHStg2eEJOWGJsdnp6eno4Nr46NE"
    "Cxs6RJ1rNy+IykuMzg9PhDPLa+OjT5U2dJcCZYxbvSIoLTI3PRMEJtjLNl8qaOlWTCnWsnD0jKC0yNxMEttjLNl8qaOmGrJhTrWb"
    "h8RlJcZiYDt7jHRp8qaOmm3PhyKmDV2QEpUXiYMj3GWbL5U0fd+OrTFd0kYPCYwPCYNr2+OjT5U0P2aXm2GrZEudEhccEwtnd8eF"
    "CBxoI26nu+OjRAqbEBYbEwD/2Q=="
)


def jpeg_ls_image() -> np.ndarray:
    y, x = np.mgrid[0:20, 0:24]
    return ((x * x * 3 + y * y * 5 + x * y) % 4096).astype(np.uint16)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.RLELossless,
        uid.JPEG2000Lossless,
    ],
)
@pytest.mark.parametrize("kind", ["<u2", "<i2", "u1"])
def test_lossless_transfer_syntaxes_give_the_stored_values(write_dicom, ramp, syntax, kind):
    if kind == "u1":
        stored, bits, window = (
            (ramp % 256).astype(np.uint8),
            8,
            {**LINEAR, "WindowCenter": "128", "WindowWidth": "256"},
        )
        expected = stored / 256
    elif kind == "<i2":
        stored, bits, window = ramp.astype(np.int16) - 2000, 13, {**LINEAR, "WindowCenter": "0"}
        expected = (stored + 2048) / 4096
    else:
        stored, bits, window, expected = ramp, 12, LINEAR, ramp / 4096
    path = write_dicom(stored, bits=bits, syntax=syntax, **window)
    mammogram = read_mammogram(path)
    np.testing.assert_allclose(mammogram.pixels, expected, atol=1e-6)
    assert mammogram.pixels.dtype == np.float32
    assert mammogram.transfer_syntax == syntax
    assert (mammogram.bits, mammogram.frames, mammogram.format) == (bits, 1, "DICOM")


@pytest.mark.parametrize(("syntax", "predictor"), [(uid.JPEGLosslessSV1, 1), (uid.JPEGLossless, 2)])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless(write_dicom, ramp, syntax, predictor, bits):
    stored = (ramp.astype(int) * 13 % (1 << bits)).astype(np.uint8 if bits == 8 else np.uint16)
    stream = encode_jpeg_lossless(stored, bits, predictor)
    window = {**LINEAR, "WindowCenter": str(1 << bits - 1), "WindowWidth": str(1 << bits)}
    path = write_dicom(stored, bits=bits, syntax=syntax, stream=stream, **window)
    np.testing.assert_allclose(read_mammogram(path).pixels, stored / (1 << bits), atol=1e-6)


def test_jpeg_ls(write_dicom):
    stored = jpeg_ls_image()
    path = write_dicom(stored, bits=12, syntax=uid.JPEGLSLossless, stream=JPEG_LS, **LINEAR)
    np.testing.assert_allclose(read_mammogram(path).pixels, stored / 4096, atol=1e-6)


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_baseline(write_dicom, syntax):
    stored = np.add.outer(np.arange(64), np.arange(80)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "JPEG", quality=98)
    window = {**LINEAR, "WindowCenter": "128", "WindowWidth": "256"}
    path = write_dicom(stored, syntax=syntax, stream=file.getvalue(), **window)
    np.testing.assert_allclose(read_mammogram(path).pixels, stored / 256, atol=3 / 256)


def test_overlay_bits_above_the_stored_bits_are_not_brightness(write_dicom, ramp):
    path = write_dicom(ramp | np.uint16(0xA000), bits=12, **LINEAR)
    np.testing.assert_allclose(read_mammogram(path).pixels, ramp / 4096, atol=1e-6)


def test_monochrome1_is_turned_and_is_not_called_inverted(write_dicom, ramp):
    mammogram = read_mammogram(write_dicom(ramp, bits=12, PhotometricInterpretation="MONOCHROME1", **LINEAR))
    np.testing.assert_allclose(mammogram.pixels, 1 - ramp / 4096, atol=1e-6)
    assert not mammogram.inverted


def test_rescale_and_window_and_padding_range(write_dicom, ramp):
    path = write_dicom(
        ramp,
        bits=12,
        RescaleSlope="2",
        RescaleIntercept="-100",
        WindowCenter=["1000", "5"],
        WindowWidth=["1801", "1"],
        PixelPaddingValue=5,
        PixelPaddingRangeLimit=105,
    )
    expected = np.clip((ramp * 2.0 - 100 - 999.5) / 1800 + 0.5, 0, 1)
    expected[ramp <= 105] = 0
    np.testing.assert_allclose(read_mammogram(path).pixels, expected, atol=1e-6)


def test_signed_padding_of_the_wrong_sign_is_understood(write_dicom, ramp):
    stored = ramp.astype(np.int16)
    stored[:, :10] = -2000
    path = write_dicom(stored, PixelPaddingValue=DataElement("PixelPaddingValue", "US", 65536 - 2000))
    # Written as US although the pixels are signed, as some writers do.
    pixels = read_mammogram(path).pixels
    assert (pixels[:, :10] == 0).all()
    assert pixels[0, 10] < 0.01


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_voi_and_modality_tables(write_dicom, ramp, syntax, as_bytes):
    def table(entries: np.ndarray, first: int) -> Sequence:
        item = Dataset()
        item.add_new("LUTDescriptor", "US", [len(entries), first, 12])
        if as_bytes:
            order = ">u2" if syntax == uid.ExplicitVRBigEndian else "<u2"
            item.add_new("LUTData", "OW", entries.astype(order).tobytes())
        else:
            item.add_new("LUTData", "US", entries.tolist())
        return Sequence([item])

    modality, voi = (np.arange(4096)[::-1] // 2).astype(int), (np.arange(1000) ** 2 // 250).astype(int)
    path = write_dicom(
        ramp,
        bits=12,
        syntax=syntax,
        ModalityLUTSequence=table(modality, 0),
        VOILUTSequence=table(voi, 200),
        **LINEAR,
    )
    expected = voi[np.clip(modality[ramp] - 200, 0, 999)] / 4095
    np.testing.assert_allclose(read_mammogram(path).pixels, expected, atol=1e-6)


def test_a_damaged_table_is_noted_and_not_used(write_dicom, ramp):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [500, 0, 12])
    item.add_new("LUTData", "US", [1, 2, 3])
    mammogram = read_mammogram(write_dicom(ramp, bits=12, VOILUTSequence=Sequence([item]), **LINEAR))
    np.testing.assert_allclose(mammogram.pixels, ramp / 4096, atol=1e-6)
    assert any("VOILUTSequence" in note for note in mammogram.notes)


@pytest.mark.parametrize(
    "window", [{"WindowCenter": "100", "WindowWidth": "0"}, {"WindowCenter": "100", "WindowWidth": "-5"}, {}]
)
def test_without_a_usable_window_the_range_of_the_values_is_used(write_dicom, ramp, window):
    mammogram = read_mammogram(write_dicom(ramp, bits=12, **window))
    np.testing.assert_allclose(mammogram.pixels, (ramp - 5.0) / (int(ramp.max()) - 5), atol=1e-6)
    assert bool(mammogram.notes) == bool(window)


def test_a_grey_secondary_capture_in_colour_becomes_grey_and_a_coloured_one_is_refused(write_dicom, ramp):
    grey = (ramp % 256).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    attributes = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    path = write_dicom(grey, **attributes, PixelData=colour.tobytes())
    np.testing.assert_allclose(read_mammogram(path).pixels, grey / 255, atol=1e-6)
    colour[3, 4] = (255, 0, 0)
    path = write_dicom(grey, **attributes, PixelData=colour.tobytes())
    with pytest.raises(MammogramError, match="colour"):
        read_mammogram(path)


def test_multi_frame_needs_a_frame_named(write_dicom, ramp):
    frames = np.stack([ramp, ramp[::-1], ramp[:, ::-1]])
    shared, anatomy, voi = Dataset(), Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    shared.FrameAnatomySequence = Sequence([anatomy])
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = LINEAR.values()
    shared.FrameVOILUTSequence = Sequence([voi])
    measures = Dataset()
    measures.PixelSpacing = [0.1, 0.1]
    shared.PixelMeasuresSequence = Sequence([measures])
    path = write_dicom(frames, bits=12, SharedFunctionalGroupsSequence=Sequence([shared]))
    header = read_header(path)
    assert (header.frames, header.laterality, header.spacing_mm) == (3, "R", 0.1)
    with pytest.raises(MammogramError, match=r"3 frames.*1 to 3"):
        read_mammogram(path)
    np.testing.assert_allclose(read_mammogram(path, frame=3).pixels, ramp[:, ::-1] / 4096, atol=1e-6)
    for frame in (0, 4, -1):
        with pytest.raises(MammogramError, match="no frame"):
            read_mammogram(path, frame=frame)


@pytest.mark.parametrize("by_class", [True, False])
def test_for_processing_is_refused_unless_asked_for(write_dicom, by_class):
    stored = np.linspace(100, 16000, 2000).astype(np.uint16).reshape(40, 50)
    said = {"PresentationIntentType": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2.1"}
    path = write_dicom(stored, bits=14, **(said if by_class else {"PresentationIntentType": "FOR PROCESSING"}))
    assert read_header(path).image_intent == "FOR PROCESSING"
    with pytest.raises(MammogramError, match="For Processing"):
        read_mammogram(path)
    pixels = read_mammogram(path, allow_for_processing=True).pixels
    # Few X-rays behind dense tissue: the lowest value is the brightest.
    assert pixels[0, 0] == 1
    assert pixels[-1, -1] == 0
    assert (np.diff(pixels.ravel()) <= 0).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_for_processing_follows_the_sign_of_the_pixel_intensity(write_dicom, ramp, sign):
    path = write_dicom(
        ramp,
        PresentationIntentType="FOR PROCESSING",
        PixelIntensityRelationship="LOG",
        PixelIntensityRelationshipSign=sign,
    )
    expected = (ramp - 5.0) / (int(ramp.max()) - 5)
    pixels = read_mammogram(path, allow_for_processing=True).pixels
    np.testing.assert_allclose(pixels, expected if sign == -1 else 1 - expected, atol=1e-6)


@pytest.mark.parametrize(
    ("attributes", "cause"),
    [
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": None}, "photometric"),
        ({"Rows": None}, "rows and columns"),
        ({"Rows": 60000, "Columns": 60000}, "million"),
        ({"Rows": 8}, "no mammogram"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "bits"),
        ({"BitsStored": 17}, "bits"),
        ({"BitsStored": 1, "HighBit": 0}, "bits"),
        ({"HighBit": 15}, "high bit"),
        ({"SamplesPerPixel": 4}, "samples"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"NumberOfFrames": -1}, "frames"),
        ({"NumberOfFrames": 5}, "cut short"),
        ({"PixelRepresentation": None}, "signed"),
        ({"PixelData": b"12"}, "cut short"),
        ({"PixelData": None}, "no pixel data"),
        ({"Modality": "CT"}, "not a mammogram.*CT"),
        ({"Modality": "SR"}, "not a mammogram.*SR"),
    ],
)
def test_what_can_not_be_a_mammogram_is_refused_with_its_reason(write_dicom, ramp, attributes, cause):
    path = write_dicom(ramp, bits=12, **{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", **attributes})
    with pytest.raises(MammogramError, match=cause) as caught:
        read_mammogram(path)
    assert caught.value.subject == str(path)
    assert caught.value.remedy


def test_an_image_of_one_value_is_refused(write_dicom):
    with pytest.raises(MammogramError, match="one value"):
        read_mammogram(write_dicom(np.full((30, 30), 9, np.uint16), **LINEAR))


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1]
)
def test_a_file_cut_anywhere_is_refused(write_dicom, ramp, syntax):
    stream = encode_jpeg_lossless(ramp, 12, 1) if syntax == uid.JPEGLosslessSV1 else None
    path = write_dicom(ramp, bits=12, syntax=syntax, stream=stream)
    whole = path.read_bytes()
    read_mammogram(path)
    for length in [*range(1, 700, 23), *range(700, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(MammogramError):
            read_mammogram(path)
        with pytest.raises(MammogramError):
            read_header(path)


@pytest.mark.parametrize(
    "make", [lambda stream: stream[: len(stream) // 2], lambda stream: b"\0\0", lambda stream: b"\0" * 500]
)
@pytest.mark.parametrize(
    "syntax", [uid.JPEGLosslessSV1, uid.JPEG2000, uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.RLELossless]
)
def test_a_stream_cut_inside_a_whole_file_is_refused(write_dicom, ramp, syntax, make):
    stream = encode_jpeg_lossless(ramp, 12, 1)
    if syntax == uid.JPEG2000:
        source = pydicom.dcmread(write_dicom(ramp, bits=12, syntax=uid.JPEG2000Lossless))
        stream = next(pydicom.encaps.generate_frames(source.PixelData, number_of_frames=1))
    path = write_dicom(ramp, bits=12, syntax=syntax, stream=make(stream))
    with pytest.raises(MammogramError):
        read_mammogram(path)


def test_a_stream_larger_than_the_header_says_is_never_decoded(write_dicom, ramp, monkeypatch):
    huge = bytearray(encode_jpeg_lossless(ramp, 12, 1))
    place = huge.index(b"\xff\xc3") + 5
    huge[place : place + 4] = struct.pack(">HH", 65000, 65000)
    path = write_dicom(ramp, bits=12, syntax=uid.JPEGLosslessSV1, stream=bytes(huge))
    monkeypatch.setattr(dicom, "pixel_array", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(MammogramError, match="65000 × 65000"):
        read_mammogram(path)


def test_an_attribute_that_declares_gigabytes_costs_nothing(write_dicom, ramp):
    path = write_dicom(ramp, PatientComments="x" * 100, RescaleSlope="1", syntax=uid.ImplicitVRLittleEndian)
    data = path.read_bytes()
    place = data.index(b"\x28\x00\x53\x10") + 4
    path.write_bytes(data[:place] + struct.pack("<L", 0xFFFFFFF0) + data[place + 4 :])
    with pytest.raises(MammogramError, match="cut short"):
        read_mammogram(path)


@pytest.mark.parametrize("tag", [b"\x08\x00\x18\x22", b"\x40\x00\x75\x02"])
def test_sequences_nested_without_end_are_refused(write_dicom, ramp, tag):
    path = write_dicom(ramp, syntax=uid.ImplicitVRLittleEndian)
    data = path.read_bytes()
    place = data.index(b"\x10\x00\x20\x00")
    bomb = (tag + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4) * 20000
    path.write_bytes(data[:place] + bomb + data[place:])
    with pytest.raises(MammogramError):
        read_header(path)


@pytest.mark.parametrize("syntax", [uid.DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.99", ""])
def test_other_transfer_syntaxes_are_named(write_dicom, ramp, syntax):
    stream = encode_jpeg_lossless(ramp, 12, 1)
    path = write_dicom(ramp, bits=12, syntax=uid.JPEGLosslessSV1, stream=stream)
    path.write_bytes(path.read_bytes().replace(uid.JPEGLosslessSV1.encode(), str(syntax).encode().ljust(22, b"\0")))
    with pytest.raises(MammogramError, match="transfer syntax"):
        read_header(path)


def test_a_missing_decoder_names_the_extra(write_dicom, monkeypatch):
    class NoDecoder:
        is_available = False

    monkeypatch.setattr(dicom, "get_decoder", lambda _: NoDecoder())
    path = write_dicom(jpeg_ls_image(), bits=12, syntax=uid.JPEGLSLossless, stream=JPEG_LS)
    with pytest.raises(MammogramError, match=r"pip install 'mammoseek\[dicom\]'"):
        read_mammogram(path)


def test_a_header_is_read_without_decoding(write_dicom, ramp, monkeypatch):
    monkeypatch.setattr(dicom, "pixel_array", lambda *_, **__: pytest.fail("decoded"))
    header = read_header(write_dicom(ramp, bits=12, syntax=uid.JPEG2000Lossless))
    assert (header.rows, header.columns, header.bits) == (40, 50, 12)


def test_burnt_in_text_is_reported(write_dicom, ramp):
    mammogram = read_mammogram(write_dicom(ramp, BurnedInAnnotation="YES"))
    assert mammogram.burned_in_annotation is True
    assert any("burnt" in note for note in mammogram.notes)
    assert read_mammogram(write_dicom(ramp, BurnedInAnnotation="NO")).burned_in_annotation is False
    assert read_mammogram(write_dicom(ramp)).burned_in_annotation is None


def test_the_samples(dicom_samples: Path):
    mammogram = read_mammogram(dicom_samples / "MG1_J2KI.dcm")
    assert mammogram.pixels.shape == (4664, 3064)
    assert (mammogram.laterality, mammogram.view, mammogram.age, mammogram.bits) == ("L", "MLO", 75.0, 12)
    assert mammogram.spacing_mm is None  # Spatial Resolution is no spacing
    with pytest.raises(MammogramError, match=r"MG1_JPLY\.dcm: its pixels can't be decoded \(JPEG Extended") as caught:
        read_mammogram(dicom_samples / "MG1_JPLY.dcm")
    assert caught.value.remedy
    assert read_header(dicom_samples / "MG1_JPLY.dcm").rows == 4664
    pattern = read_mammogram(dicom_samples / "MG_Explicit_Little.dcm")
    assert pattern.pixels.shape == (512, 512)
    assert pattern.spacing_mm == pytest.approx(0.5 / 1.5)  # at the detector, magnified 1.5 times
    assert (pattern.laterality, pattern.view, pattern.image_intent) == ("R", "CC", "FOR PRESENTATION")
