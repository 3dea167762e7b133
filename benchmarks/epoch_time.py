"""How long an epoch of training takes on a GPU and on the processor: our backbones at our sizes of input.

    python -m benchmarks.epoch_time --devices cuda -o benchmarks/results/epoch-time.csv
    OMP_NUM_THREADS=1 python -m benchmarks.epoch_time --devices cpu -o benchmarks/results/epoch-time.csv

The training loop as it is (augmentation, losses, mining, mixed precision where the device has it) on crops of random
numbers in memory, in batches of 24. The first epoch of each does not count; the figure is the median of the others.
`seconds_of_1000` is what an epoch of 1,000 breasts takes. A table that is there keeps the rows of other machines: those
of a GPU stand beside those of a processor.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.setting import describe_machine, errors_told
from embedder.augmentation import BREAST_AUGMENTATION
from embedder.crops import crop_shape
from embedder.devices import choose_device
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from embedder.rois import CropStore
from embedder.trainingplan import TrainingConfig
from embedder.trainingrun import TrainingRun

SIZES = (
    ("tf_efficientnet_lite0", 160, 160),
    ("tf_efficientnet_lite0", 224, 160),
    ("tf_efficientnet_lite0", 448, 320),
    ("tf_efficientnet_lite0", 640, 448),
    ("tf_efficientnet_lite2", 640, 448),
)
"""Backbone, height and width."""

_MACHINE = ("processor", "threads", "device")  # what tells one machine's rows from another's

HEADS = {"density": ("dense", "fatty", "glandular"), "pathology": ("benign", "malignant")}


def main() -> None:
    """Run the benchmark and write its table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--devices", nargs="+", default=["cuda", "cpu"], help="which (cuda cpu)")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="so many sizes, the smallest first (all)")
    parser.add_argument("--images", type=int, default=48, help="breasts of an epoch (48)")
    parser.add_argument("--seconds", type=float, default=3.0, help="about how long each is measured (3)")
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    with errors_told():
        run(parser.parse_args())


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write; the table is written anew after each figure.

    Args:
        arguments: As `main` parses them.
    """
    rows: list[dict[str, Any]] = []
    others = pd.DataFrame()
    if arguments.output is not None and arguments.output.exists():
        others = pd.read_csv(arguments.output)
        here = [describe_machine(choose_device(name)) for name in arguments.devices]
        for machine in here:
            same = (others[list(_MACHINE)] == [machine[name] for name in _MACHINE]).all(axis=1)
            others = others[~same]
    for device in (choose_device(name) for name in arguments.devices):
        machine = describe_machine(device)
        for backbone, height, width in SIZES[: arguments.sizes]:
            found = epoch_seconds(backbone, (height, width), device, arguments.images, arguments.seconds)
            rows.append({"backbone": backbone, "height": height, "width": width, **found, **machine})
            print(f"{machine['device']}, {backbone}, {height} x {width}: {found['images_per_second']} a second")
            if arguments.output is not None:
                arguments.output.parent.mkdir(parents=True, exist_ok=True)
                pd.concat([others, pd.DataFrame(rows)]).to_csv(arguments.output, index=False)


def epoch_seconds(
    backbone: str, size: tuple[int, int], device: torch.device, images: int, allowance: float
) -> dict[str, Any]:
    """Return how fast a training goes on a device.

    Args:
        backbone: timm's name.
        size: Height and width of the input.
        device: Where to compute.
        images: Crops of an epoch.
        allowance: About how many seconds may be spent; two epochs are timed at least.
    """
    run = _training(backbone, PreparationConfig(granularity="breast", height=size[0], width=size[1]), device, images)
    seen = sum(len(rows) for rows in run.batches.epoch(0))
    run.train_epoch(0)
    spent: list[float] = []
    while len(spent) < 2 or sum(spent) < allowance:
        start = time.perf_counter()
        run.train_epoch(len(spent) + 1)  # it returns losses as numbers, so the device is waited for
        spent.append(time.perf_counter() - start)
    rate = seen / statistics.median(spent)
    return {
        "precision": str(run.precision).removeprefix("torch."),
        "images": seen,
        "epochs": len(spent),
        "images_per_second": round(rate, 1),
        "seconds_of_1000": round(1000 / rate, 2),
    }


def _training(backbone: str, preparation: PreparationConfig, device: torch.device, images: int) -> TrainingRun:
    random = np.random.default_rng(0)
    numbers = np.arange(images)
    frame = pd.DataFrame(
        {
            "row_id": numbers.astype(str),
            "dataset": "random",
            "patient_id": (numbers // 2).astype(str),
            **{name: np.array(classes)[numbers // 2 % len(classes)] for name, classes in HEADS.items()},
            "role": "train",
        }
    )
    shape = (images, *crop_shape(preparation, BREAST_AUGMENTATION.margin))
    crops = CropStore(
        random.random(shape, np.float32).astype(np.float16),
        np.full(images, 200, np.float32),
        np.empty((images, 0), np.float32),
        frame,
        [],
    )
    network = TrainingRun.new_network(NetworkConfig(backbone, "none"), HEADS, 0, 0)
    config = TrainingConfig(epochs=100_000, validation_share=0)
    return TrainingRun(network, crops, tuple(HEADS), preparation, config, BREAST_AUGMENTATION, device)


if __name__ == "__main__":
    main()
