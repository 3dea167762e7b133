"""The commands of models as their users meet them."""

import json
import signal
import subprocess

import console
from tests.commandline import TINY, assert_clear, command_line, environment, line, run

__all__ = ["line", "run"]  # fixtures


def test_descriptors_beside_a_pretrained_backbone(run, line, tmp_path):
    asked = ("--set", 'preparation.descriptors=["intensity", "texture"]')
    assert_clear(run("model", "pretrained", "-o", tmp_path / "none", *TINY, *asked), "descriptors have to be")
    model, gallery = tmp_path / "model", tmp_path / "gallery"
    assert run("model", "pretrained", "-o", model, *TINY, *asked, "--fit", line.manifest).code == 0
    assert run("index", "build", line.manifest, "--model", model, "-o", gallery).code == 0
    row = line.frame.iloc[0]
    asking = [
        run("query", gallery, *which, "--json")
        for which in ((row["path"], "--box", "13,48,37,72"), ("--row", row["row_id"]))
    ]
    by_image, by_row = (json.loads(outcome.out)["neighbours"] for outcome in asking)
    assert [n["row_id"] for n in by_image] == [n["row_id"] for n in by_row]
    wrong = run("model", "pretrained", "-o", tmp_path / "b", *TINY, "--set", 'preparation.descriptors=["zones"]')
    assert_clear(wrong, "descriptors are some of shape")


def test_ctrl_c_while_training_keeps_the_last_epoch_and_goes_on(line, tmp_path):
    model = tmp_path / "model"
    arguments = command_line("train", line.manifest, "-o", model, "--epochs", 400, *TINY)
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if text.startswith("epoch 2/"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == console.EXIT_INTERRUPTED
    assert "Interrupted. The last whole epoch is kept" in rest
    assert "Traceback" not in rest
    with subprocess.Popen(arguments, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = next(text for text in process.stderr if text.startswith("epoch"))
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert int(first.split()[1].split("/")[0]) >= 3, "the training goes on where it was"
