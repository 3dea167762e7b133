"""The commands of whole images that say only cancer or none."""

import json

import console
from embedder.manifest import write_manifest
from tests.commandline import line, run

__all__ = ["line", "run"]  # fixtures


def test_whole_images_are_learned_scored_and_evaluated(run, line, tmp_path):
    nothing = dict.fromkeys(("x0", "y0", "x1", "y1", "lesion_type"))
    outcome = line.frame["lesion_type"].map({"mass": "malignant", "calcification": "no cancer"})
    breasts = line.frame.assign(granularity="breast", pathology=outcome, **nothing)
    known = breasts["patient_id"] != "w0"
    write_manifest(breasts[known].reset_index(drop=True), tmp_path / "known.csv")
    small = ("--set", "tiles.side=128", "--workers", 1)
    train = ("weak", "train", tmp_path / "known.csv", "--model", line.model, "-o", tmp_path / "weak", *small)
    trained = run(*train)
    assert trained.code == 0
    assert "22 images of 11 women" in trained.err
    assert "holds a model already" in run(*train).err
    image, seen = breasts["path"].iloc[0], breasts["path"].iloc[-1]
    scored = run("weak", "score", tmp_path / "weak", image, "--json", "--picture", tmp_path / "evidence.png")
    assert scored.code == 0
    [answer] = json.loads(scored.out)["answers"]
    assert 0 < answer["probability"] < 1
    assert len(answer["places"][0]["box"]) == 4
    assert (tmp_path / "evidence.png").is_file()
    partly = run("weak", "score", tmp_path / "weak", image, seen)
    assert partly.code == console.EXIT_PARTLY
    assert "probability of a cancer" in partly.out
    assert "was trained on this image" in partly.err
    evaluate = ("weak", "evaluate", tmp_path / "known.csv", "--model", line.model, "--cross-validate", 3, *small)
    found = json.loads(run(*evaluate, "--json").out)
    assert found["woman"]["auc"]["women"] == 11
