from benchmarks.opposite_breast import mirrored_places
from embedder.datasets import read_dataset


def test_places_move_to_the_normal_breast_and_back_again(mini_mias):
    frame = read_dataset("mini-mias", mini_mias).frame
    places = mirrored_places(frame)
    findings = frame[frame["granularity"] == "finding"].set_index("row_id")
    breasts = frame[frame["granularity"] == "breast"].set_index("path")
    assert 50 < len(places) < len(findings)
    for _, place in places.iterrows():
        own = findings.loc[place["row_id"]]
        assert breasts.loc[place["path"], "pathology"] == "normal"
        assert breasts.loc[place["path"], "patient_id"] == own["patient_id"] == place["patient_id"]
        assert place["path"] != own["path"]
        assert place["laterality"] != own["laterality"]
        assert (1024 - place["x1"], 1024 - place["x0"]) == (own["x0"], own["x1"])
        assert (place["y0"], place["y1"]) == (own["y0"], own["y1"])
    normal = set(breasts[breasts["pathology"] == "normal"]["patient_id"])
    assert set(places["patient_id"]) == {woman for woman in findings["patient_id"] if woman in normal}
