"""Embedding with Ray: the same vectors as one process, whatever happens to the workers."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classifiers.filling import new_gallery
from embedder import fleet
from embedder.cluster import connected
from embedder.datasets import read_dataset
from embedder.embedding import EmbeddedBatch, Embedder, pretrained_model
from embedder.fleet import AHEAD, Fleet, FleetConfig, check_seen, smaller_lots
from embedder.fleetworker import Done, FleetError, do_task
from embedder.network import NetworkConfig
from embedder.preparation import PreparationConfig
from index import buffering

# Read when it is imported: a cluster on the loopback, and none of its messages.
os.environ.update(
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
ray = pytest.importorskip("ray", reason="install mammoseek[ray]")

Make = Callable[..., pd.DataFrame]


def _fragile() -> None:
    """Let a worker die of images of certain names, as it would of a decoder that crashes or an operator's kill."""
    from pathlib import Path

    from embedder import rois

    read = rois.read_mammogram

    def read_or_die(path: Path, **options: Any) -> Any:
        once = Path(path).with_suffix(".killed")
        if "kill-once" in Path(path).name and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if "kill-always" in Path(path).name:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, **options)

    rois.read_mammogram = read_or_die


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers on this machine."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Its sockets' names may have a hundred characters only.
    with tempfile.TemporaryDirectory(prefix="ms-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=128 << 20,
            runtime_env={"worker_process_setup_hook": _fragile, "env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
            _temp_dir=folder,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def model(
    tiny_network: NetworkConfig, tiny_preparation: PreparationConfig, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pretrained_model(folder, tiny_network, tiny_preparation)
    return folder


@pytest.fixture(scope="module")
def embedder(model: Path) -> Embedder:
    return Embedder.load(model, device="cpu", batch_size=8)


def run(embedder: Embedder, model: Path, frame: pd.DataFrame, **options: Any) -> list[EmbeddedBatch]:
    with Fleet(FleetConfig("local", device="cpu"), model, embedder) as workers:
        return list(workers.embed_manifest(frame, **options))


def same(some: list[EmbeddedBatch], others: list[EmbeddedBatch]) -> bool:
    return len(some) == len(others) and all(
        one.records.equals(other.records)
        and one.vectors.tobytes() == other.vectors.tobytes()
        and one.thumbnails == other.thumbnails
        and one.failures == other.failures
        for one, other in zip(some, others, strict=True)
    )


def contents(gallery: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return a gallery's files, and its manifest without the time of day."""
    files = {str(path.relative_to(gallery)): path.read_bytes() for path in gallery.rglob("*") if path.is_file()}
    del files["writer.lock"]  # says who wrote last
    manifest = json.loads(files.pop("gallery.json"))
    return files, {name: value for name, value in manifest.items() if name not in ("created", "updated", "checksum")}


class Threadless:
    """Stands for Ray: does a task at once, and notes how many are out."""

    exceptions = ray.exceptions

    def __init__(self, workers: int = 2) -> None:
        self.workers = workers
        self.submitted = self.taken = self.most_out = 0
        self.cancelled: list[Any] = []

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.workers)}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **options: Any) -> Any:
        def submit(task: Any, files: list[Any]) -> Any:
            self.submitted += 1
            self.most_out = max(self.most_out, self.submitted - self.taken)
            return do_task(task, lambda: files[0])

        return lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=submit))

    def get(self, result: Any) -> Any:
        self.taken += 1
        return result

    def cancel(self, result: Any, *, force: bool) -> None:
        self.cancelled.append(result)


@pytest.fixture
def threadless(monkeypatch: pytest.MonkeyPatch) -> Threadless:
    stand_in = Threadless()
    monkeypatch.setattr(fleet, "connected", lambda *_: nullcontext(stand_in))
    return stand_in


class TestTheDriver:
    def test_a_bounded_number_of_tasks_is_out(
        self, threadless: Threadless, embedder: Embedder, model: Path, synthetic_manifest: Make
    ) -> None:
        frame = pd.concat([synthetic_manifest(40)] * 10, ignore_index=True)
        frame["row_id"] = frame["patient_id"] = [f"r{row}" for row in range(len(frame))]
        with Fleet(FleetConfig("local"), model, embedder) as workers:
            stream = workers.embed_manifest(frame)
            next(stream)
            assert threadless.submitted == AHEAD * 2
            rows = 8 + sum(len(batch.records) for batch in stream)
        assert rows == 400
        assert threadless.most_out == AHEAD * 2
        assert threadless.cancelled == []

    def test_leaving_takes_back_what_is_out(
        self, threadless: Threadless, embedder: Embedder, model: Path, synthetic_manifest: Make
    ) -> None:
        frame = pd.concat([synthetic_manifest(40)] * 10, ignore_index=True)
        with Fleet(FleetConfig("local"), model, embedder) as workers:
            next(workers.embed_manifest(frame))
        assert len(threadless.cancelled) == threadless.submitted - threadless.taken > 0

    def test_nothing_to_do_needs_no_cluster(self, embedder: Embedder, model: Path, synthetic_manifest: Make) -> None:
        with Fleet(FleetConfig("ray://nowhere.invalid:1"), model, embedder) as workers:
            assert list(workers.embed_manifest(synthetic_manifest(3).iloc[:0])) == []

    def test_workers_that_die_of_everything_end_the_build(
        self,
        threadless: Threadless,
        embedder: Embedder,
        model: Path,
        synthetic_manifest: Make,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def get(result: Any) -> Any:
            raise ray.exceptions.WorkerCrashedError

        monkeypatch.setattr(threadless, "get", get)
        with Fleet(FleetConfig("local"), model, embedder) as workers:
            stream = workers.embed_manifest(synthetic_manifest(20))
            failed = [next(stream).failures[0][0] for _ in range(7)]
            assert failed == [f"w{woman}-0" for woman in range(7)]
            with pytest.raises(FleetError, match="each cost every worker its life"):
                next(stream)

    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (FleetError("a worker", "is wrong", "mend it"), "a worker: is wrong; mend it"),
            (ModuleNotFoundError("No module named 'embedder'"), "can't import what they need .*install mammoseek"),
            (ray.exceptions.RaySystemError("No module named 'embedder'"), "what they need .*install mammoseek"),
        ],
    )
    def test_what_a_worker_says_is_said_once(
        self,
        threadless: Threadless,
        embedder: Embedder,
        model: Path,
        synthetic_manifest: Make,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        message: str,
    ) -> None:
        def get(result: Any) -> Any:
            raise ray.exceptions.RayTaskError("work", "a traceback", error).as_instanceof_cause()

        monkeypatch.setattr(threadless, "get", get)
        with Fleet(FleetConfig("local"), model, embedder) as workers, pytest.raises(FleetError, match=message) as told:
            next(workers.embed_manifest(synthetic_manifest(2)))
        assert "traceback" not in str(told.value)

    def test_a_cluster_without_room_is_refused(
        self, threadless: Threadless, embedder: Embedder, model: Path, synthetic_manifest: Make
    ) -> None:
        for config in (FleetConfig("local", threads=3), FleetConfig("local", device="cuda")):
            with (
                Fleet(config, model, embedder) as workers,
                pytest.raises(FleetError, match="has no room for a worker: each takes"),
            ):
                next(workers.embed_manifest(synthetic_manifest(2)))

    def test_images_that_only_the_driver_sees_are_told(self, tmp_path: Path) -> None:
        here = tmp_path / "here.png"
        here.touch()
        paths = pd.Series(["/nowhere/at/all.png", str(here)])
        check_seen(Done([], "far", [0]), paths)
        with pytest.raises(FleetError, match=r"here\.png: is here, but the worker on far can't see it"):
            check_seen(Done([], "far", [0, 1]), paths)

    def test_smaller_lots_are_batches_then_images(self) -> None:
        paths = pd.Series(list("aabbc"))
        batches = [np.array([0, 1]), np.array([2, 4, 3])]
        assert [[part.tolist() for part in lot] for lot in smaller_lots(batches, paths)] == [[[0, 1]], [[2, 4, 3]]]
        assert [[part.tolist() for part in lot] for lot in smaller_lots(batches[1:], paths)] == [[[2, 3]], [[4]]]
        assert smaller_lots(batches[:1], paths) == []

    @pytest.mark.parametrize("options", [{"device": "mps"}, {"threads": 0}, {"gpus": 0}, {"gpus": 1.5}])
    def test_options_out_of_their_range_are_refused(self, options: dict[str, Any]) -> None:
        with pytest.raises(FleetError):
            FleetConfig("local", **options)


class TestReachingACluster:
    def test_what_ray_prints_of_itself_is_not_in_the_answer(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(ray, "is_initialized", lambda: True)
        with connected("local"):
            for name in ("ray_listen_error_messages", "mine"):
                thread = threading.Thread(target=print, args=("told by", name), name=name)
                thread.start()
                thread.join()
        assert capsys.readouterr() == ("told by mine\n", "")

    @pytest.mark.parametrize(
        "address", ["", "somewhere", "127.0.0.1:6379", "ray://", "ray://host", "ray://a b:1", "x" * 999]
    )
    def test_what_is_no_address_is_refused(self, address: str) -> None:
        with pytest.raises(FleetError, match="use local"):
            FleetConfig(address)

    def test_ray_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(FleetError, match=r"not installed; install mammoseek\[ray\]"), connected("local"):
            pass

    @pytest.mark.parametrize("address", ["auto", "ray://127.0.0.1:1", "ray://nowhere.invalid:10001", "ray://h:99999"])
    def test_a_cluster_that_is_not_there(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
        start = time.monotonic()
        with pytest.raises(FleetError, match=r"Ray at .* can't be reached"), connected(address):
            pass
        assert time.monotonic() - start < 20


@pytest.mark.usefixtures("cluster")
class TestOnACluster:
    def test_the_same_batches_bit_for_bit(self, embedder: Embedder, model: Path, synthetic_manifest: Make) -> None:
        frame = synthetic_manifest(30, view_count=2)
        frame["study_id"] = [None if woman % 3 == 0 else f"s{woman}" for woman in range(30) for _ in range(2)]
        expected = list(embedder.embed_manifest(frame, thumbnails=True))
        assert len(expected) == 8
        assert same(run(embedder, model, frame, thumbnails=True), expected)

    def test_the_same_gallery_byte_for_byte_and_after_a_stop(
        self, model: Path, synthetic_manifest: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(buffering, "SEGMENT_ROWS", 40)
        frame = synthetic_manifest(70, view_count=2)
        frame["study_id"] = frame["patient_id"]
        frame.loc[5, "path"] = str(tmp_path / "missing.png")
        new_gallery(frame, model, tmp_path / "one", thumbnails=True, device="cpu")
        told: list[tuple[int, int]] = []
        report = new_gallery(
            frame,
            model,
            tmp_path / "many",
            thumbnails=True,
            device="cpu",
            ray="local",
            progress=lambda *now: told.append(now),
        )
        assert report.added == 139
        assert [row for row, _ in report.failures] == [frame["row_id"].iloc[5]]
        assert told[-1] == (140, 140)
        assert len(told) > 4
        assert contents(tmp_path / "many") == contents(tmp_path / "one")

        def stop(done: int, total: int) -> None:
            if done > 70:
                raise KeyboardInterrupt

        whole = frame.drop(index=5).reset_index(drop=True)
        new_gallery(whole, model, tmp_path / "whole", device="cpu")
        with pytest.raises(KeyboardInterrupt):
            new_gallery(whole, model, tmp_path / "stopped", device="cpu", ray="local", progress=stop)
        report = new_gallery(whole, model, tmp_path / "stopped", device="cpu", ray="local")
        assert report.already_there == 63
        assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")

    def test_real_mammograms(self, embedder: Embedder, model: Path, mini_mias: Path) -> None:
        frame = read_dataset("mini-mias", mini_mias).frame
        frame = frame[frame["granularity"] == "finding"].iloc[:20].reset_index(drop=True)
        assert same(run(embedder, model, frame), list(embedder.embed_manifest(frame)))

    def test_a_bad_image_costs_its_own_rows(
        self, embedder: Embedder, model: Path, synthetic_manifest: Make, tmp_path: Path
    ) -> None:
        frame = synthetic_manifest(12)
        (tmp_path / "empty.png").touch()
        frame.loc[3, "path"] = str(tmp_path / "empty.png")
        frame.loc[11, "path"] = str(tmp_path / "missing.png")
        found = run(embedder, model, frame)
        assert [row for batch in found for row, _ in batch.failures] == ["w3-0", "w11-0"]
        assert same(found, list(embedder.embed_manifest(frame)))

    def test_a_killed_workers_studies_are_done_again(
        self, embedder: Embedder, model: Path, synthetic_manifest: Make, tmp_path: Path
    ) -> None:
        frame = synthetic_manifest(20)
        path = tmp_path / "kill-once.png"
        path.write_bytes(Path(frame["path"].iloc[7]).read_bytes())
        frame.loc[7, "path"] = str(path)
        found = run(embedder, model, frame)
        assert path.with_suffix(".killed").exists()
        assert same(found, list(embedder.embed_manifest(frame)))

    def test_an_image_that_no_worker_survives_costs_its_own_rows(
        self,
        embedder: Embedder,
        model: Path,
        synthetic_manifest: Make,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # Each new worker takes seconds to start.
        monkeypatch.setattr(fleet, "RETRIES", 0)
        frame = synthetic_manifest(4)
        expected = np.concatenate([batch.vectors for batch in embedder.embed_manifest(frame)])
        path = tmp_path / "kill-always.png"
        path.write_bytes(Path(frame["path"].iloc[2]).read_bytes())
        frame.loc[2, "path"] = str(path)
        found = run(embedder, model, frame)
        assert [name for batch in found for name in batch.records["row_id"]] == ["w0-0", "w1-0", "w3-0"]
        [failure] = [failure for batch in found for failure in batch.failures]
        assert failure[0] == "w2-0"
        assert "every worker that read it died" in failure[1]
        vectors = np.concatenate([batch.vectors for batch in found])
        assert np.abs(vectors - expected[[0, 1, 3]]).max() < 1e-6


SCRIPT = """
import sys
from pathlib import Path
import pandas as pd
from embedder.embedding import Embedder
from embedder.fleet import Fleet, FleetConfig

frame, model = pd.read_parquet(sys.argv[1]), Path(sys.argv[2])
with Fleet(FleetConfig("local", device="cpu"), model, Embedder.load(model, device="cpu")) as workers:
    for batch in workers.embed_manifest(frame):
        print("embedded", len(batch.records), file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_stops_the_tasks_and_the_cluster(model: Path, synthetic_manifest: Make, tmp_path: Path) -> None:
    frame = pd.concat([synthetic_manifest(50)] * 400, ignore_index=True)
    frame["row_id"] = frame["patient_id"] = [f"r{row}" for row in range(len(frame))]
    frame.to_parquet(tmp_path / "frame.parquet")
    with tempfile.TemporaryDirectory(prefix="ms-", dir="/tmp") as folder:
        environment = {**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "frame.parquet"), str(model)]
        # A session of its own, so that the interrupt meets all of its processes as that of a terminal does.
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, start_new_session=True, text=True
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "embedded 32\n"
            assert len(list(Path(folder).glob("mammoseek-ray-*"))) == 1
            assert processes_of(folder)
            os.killpg(process.pid, signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        assert output == ""
        assert list(Path(folder).glob("mammoseek-ray-*")) == []
        until = time.monotonic() + 10
        while processes_of(folder) and time.monotonic() < until:
            time.sleep(0.1)
        assert processes_of(folder) == []


def processes_of(folder: str) -> list[str]:
    """Return the command lines of the processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().decode(errors="replace")
        except OSError:  # it has ended
            continue
        if f"{folder}/" in line:
            lines.append(line)
    return lines
