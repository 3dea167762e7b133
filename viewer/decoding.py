"""Reading images for the page, those whose decoders let nobody else work in child processes.

Decoders of JPEG, JPEG-LS and JPEG 2000 hold Python's lock for as long as they decode, up to seconds for a full-size
image; in a thread of the server they would hold up everybody's tiles and answers. Their images are decoded by child
processes, which are started when the first one is opened. All others are read by the thread that wants them.
"""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydicom.uid import RLELossless

from embedder.dicom import NATIVE
from embedder.mammogram import is_dicom, read_header
from viewer.childprocess import Child, result_of
from viewer.display import DisplayImage, read_display

_CHILDREN = 2
_CAPACITY = 1_000
_FREE = (*NATIVE, RLELossless)  # of RLE it takes a twentieth of a second


class DecodeWork:
    """What a child does."""

    def run(self, jobs: Sequence[tuple[str, int | None]]) -> Iterator[Any]:
        """Yield each image, or why it can't be read."""
        for path, frame in jobs:
            yield result_of("decoder", lambda path=path, frame=frame: read_display(Path(path), frame=frame))  # type: ignore[misc]


class Decoders:
    """Reads images, in child processes where that keeps the server free.

    Args:
        children: Child processes.
    """

    def __init__(self, children: int = _CHILDREN) -> None:
        self._children = [
            Child(f"decoder {number}", DecodeWork, (), capacity=_CAPACITY, batch=1) for number in range(children)
        ]
        self._started = False
        self._lock = threading.Lock()

    def read(self, path: Path, frame: int | None) -> DisplayImage:
        """Read an image; see `viewer.display.read_display`.

        Raises:
            MammoseekError: It can't be read.
        """
        if not is_dicom(path) or read_header(path).transfer_syntax in _FREE:
            return read_display(path, frame=frame)
        with self._lock:
            if not self._started:
                self._started = True
                for child in self._children:
                    child.start()
            least = min(self._children, key=lambda child: child.waiting + child.running)
            future = least.submit((str(path), frame))
        image: DisplayImage = future.result()
        return image

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            child.close()
