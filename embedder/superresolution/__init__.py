"""Single-image super-resolution: a small network that enlarges a film by two instead of interpolating it.

Three convolutions of 9 × 9, 1 × 1 and 5 × 5 on a bicubically enlarged image (SRCNN: Dong et al., IEEE Trans Pattern
Anal Mach Intell 38, 2016), which add what bicubic interpolation lost (Kim et al., CVPR 2016). A preparation asks for
a network by its name; a name stands for the same weights for ever, so that the name alone binds a model to them.

`srcnn-rsna` has learned from digital mammograms that were halved, and restores these better than interpolation does;
digitised films of mini-MIAS it restores worse (`benchmarks/results/super-resolution.csv`).
"""

from functools import cache
from pathlib import Path

from embedder.superresolution.network import SuperResolution, SuperResolutionError, load_network

NETWORKS: dict[str, str] = {"srcnn-rsna": "292437c22ade4d111cb5e6ba6ad0433864d6544d15a7771e3fc9f501889b9627"}
"""SHA-256 of the weights that each name of `PreparationConfig.super_resolution` stands for."""

ROLE = "super-resolution"
"""What a woman was to a model whose preparation enlarges by a network that learned from her films."""

_HOME = Path(__file__).resolve().parent


@cache
def packaged_network(name: str) -> SuperResolution:
    """Return one of the networks that come with mammoseek, read once.

    Args:
        name: One of `NETWORKS`.

    Raises:
        SuperResolutionError: Its file is missing, damaged, or holds other weights than the name stands for.
    """
    network = load_network(_HOME / name)
    if network.digest != NETWORKS[name]:
        raise SuperResolutionError(
            _HOME / name,
            f"holds the weights {network.digest[:12]}, and {name} stands for {NETWORKS[name][:12]}",
            "install mammoseek again",
        )
    return network


def seen_by(name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the digests of the women, and of the image files, that a network was trained on; none for `none`.

    Args:
        name: One of `NETWORKS`, or `none`.

    Raises:
        SuperResolutionError: See `packaged_network`.
    """
    if name == "none":
        return (), ()
    card = packaged_network(name).card
    return card["women"], card["images"]
