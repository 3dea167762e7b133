"""Devices: the best that is there, or a clear word that it is not."""

from contextlib import ExitStack

import pytest
import torch

from embedder.checkpoint import ModelError
from embedder.devices import choose_device, whole_float32


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device().type == "cpu"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("gpu", "is no device"),
        ("", "is no device"),
        ("cuda", "there is no CUDA device here; use --device cpu"),
        ("mps", "there is no MPS device here"),
        ("meta", "does not run on this device"),
    ],
)
def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, name: str, cause: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ModelError, match=cause):
        choose_device(name)


def test_a_gpu_beyond_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(ModelError, match="there are only 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize("before", [True, False])
def test_whole_floats_are_kept_until_the_last_who_asked_is_done(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    first, second = ExitStack(), ExitStack()
    first.enter_context(whole_float32(torch.device("cuda")))
    second.enter_context(whole_float32(torch.device("cuda:1")))
    assert not torch.backends.cudnn.allow_tf32
    first.close()
    assert not torch.backends.cudnn.allow_tf32
    second.close()
    assert torch.backends.cudnn.allow_tf32 == before
    with whole_float32(torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == before


def test_whole_floats_end_with_an_error_too() -> None:
    before = torch.backends.cudnn.allow_tf32

    def fails() -> None:
        with whole_float32(torch.device("cuda")):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="memory"):
        fails()
    assert torch.backends.cudnn.allow_tf32 == before
