"""Where to compute: CPU, CUDA or MPS."""

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
