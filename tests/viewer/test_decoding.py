"""Images that are decoded in child processes are the same as those read here."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom.uid as uid
import pytest

from embedder.header import MammogramError
from tests.embedder.test_dicom import encode_jpeg_lossless
from viewer.decoding import Decoders
from viewer.display import read_display


def test_compressed_images_come_from_a_child(write_dicom: Callable[..., Path], ramp: np.ndarray) -> None:
    plain = write_dicom(ramp, bits=12)
    expected = read_display(plain)
    decoders = Decoders(1)
    try:
        assert (decoders.read(plain, None).pixels == expected.pixels).all()
        assert not decoders._started
        stream = encode_jpeg_lossless(ramp, 12, 1)
        packed = write_dicom(ramp, bits=12, syntax=uid.JPEGLosslessSV1, stream=stream)
        image = decoders.read(packed, None)
        assert decoders._started
        assert (image.pixels == expected.pixels).all()
        assert image.header.transfer_syntax == uid.JPEGLosslessSV1
        broken = write_dicom(ramp, bits=12, syntax=uid.JPEGLosslessSV1, stream=stream[: len(stream) // 2])
        with pytest.raises(MammogramError):
            decoders.read(broken, None)
    finally:
        decoders.close()
