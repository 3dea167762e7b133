"""The collection over HTTP, for curators."""

import json

from tests.viewer.readingroom import BOX, WOMEN, Room


def test_what_a_curator_sees(room: Room) -> None:
    room.ask(image=room.image(12), box=BOX)
    scorecard = room.state.config.state_folder / "scorecard.json"
    scorecard.write_text(json.dumps({"targets": {}}))
    try:
        found = room.client.get("/collection").json()
    finally:
        scorecard.unlink()
    assert found["gallery"]["rows"] == 2 * WOMEN
    assert found["counts"]["pathology"]["benign"] == {"rows": 32, "women": 16}
    assert sum(one["rows"] for one in found["counts"]["density"].values()) == 2 * WOMEN
    assert found["scorecard"] == {"file": "scorecard.json", "content": {"targets": {}}}
    assert found["drift"]["this_month"]["n"] >= 1
    assert -1 <= found["drift"]["this_month"]["median"] <= 1
    assert found["drift"]["gallery"]["women"] == WOMEN
    curate = found["curate"]
    assert set(curate) == {"doubtful", "duplicates", "atypical"}
    assert len(curate["atypical"]) == 50
    distances = [one["similarity"] for one in curate["atypical"]]
    assert distances == sorted(distances)
    assert room.client.get("/collection").json()["scorecard"] is None
