"""Where to compute: CPU, CUDA or MPS, and with how many bits."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from embedder.checkpoint import ModelError


def choose_device(name: str = "auto") -> torch.device:
    """Return the device to compute on: the one named, or the best that is there.

    Raises:
        ModelError: The device is unknown, or not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(name, "is no device", "use auto, cpu, cuda, cuda:0 or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(name, "there is no CUDA device here", "use --device cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(name, f"there are only {torch.cuda.device_count()} CUDA devices", "count from cuda:0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError(name, "there is no MPS device here", "use --device cpu or auto")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(name, "mammoseek does not run on this device", "use auto, cpu, cuda, cuda:0 or mps")
    return device


class _WholeFloats:
    """How many threads ask for whole float32 now, and what the process had before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asking = 0
        self.before = False


_WHOLE_FLOATS = _WholeFloats()


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Convolve in float32 as a processor does: by default a GPU rounds the factors to TF32, which has 10 bits.

    A vector that differs from the processor's in its fourth decimal is another neighbour here and there, and a gallery
    made on one machine is asked on others. torch knows one switch for all threads: it stays as it is here until the
    last thread that asked for it is done.

    Args:
        device: Where is computed; nothing is done for any but CUDA.
    """
    if device.type != "cuda":
        yield
        return
    state = _WHOLE_FLOATS
    with state.lock:
        if not state.asking:
            state.before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
        state.asking += 1
    try:
        yield
    finally:
        with state.lock:
            state.asking -= 1
            if not state.asking:
                torch.backends.cudnn.allow_tf32 = state.before
