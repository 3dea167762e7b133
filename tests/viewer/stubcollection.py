"""An invented collection for tests of the page: two women's mammograms, 24 findings of others, and what they answer."""

import hashlib
import json
from typing import Any

import numpy as np

from tests.viewer.tilesite import Film

SCRIPT = "<img src=x onerror=alert(1)>Doe^Jane"
"""A patient's name that must stay text."""

ROWS, COLUMNS = 640, 480
MASS = (120, 260, 190, 330)
SPECKS = (150, 400, 200, 440)


def breast(seed: int, *, chest_wall: str, lesion: bool) -> np.ndarray:
    """Return uint16 rows × columns: a half disc of grey tissue, with a bright disc in `MASS` if it has a lesion."""
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    noise = np.random.default_rng(seed).normal(0, 2500, (ROWS, COLUMNS))
    tissue = ((rows - ROWS / 2) / (0.46 * ROWS)) ** 2 + (columns / (0.8 * COLUMNS)) ** 2 < 1
    values = np.where(tissue, 19000 + noise + 6000 * np.sin(columns / 37) * np.sin(rows / 53), 500)
    if lesion:
        x, y = (MASS[0] + MASS[2]) / 2, (MASS[1] + MASS[3]) / 2
        values += 26000 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 300)
    values = values if chest_wall == "left" else values[:, ::-1]
    return np.clip(values, 0, 65535).astype(np.uint16)


def _film(name: str, laterality: str, view: str, detections: list[dict[str, Any]]) -> Film:
    wall = "left" if laterality == "L" else "right"
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16)
    values = breast(seed, chest_wall=wall, lesion=bool(detections))
    return Film(name, values, laterality=laterality, view=view, chest_wall=wall, detections=detections)


def _detection(name: str, box: tuple[int, int, int, int], label: str, side: str) -> dict[str, Any]:
    x0, y0, x1, y1 = box if side == "L" else (COLUMNS - box[2], box[1], COLUMNS - box[0], box[3])
    return {
        "detection": name, "box": [x0, y0, x1, y1], "outline": None, "score": 0.8, "label": label, "detector": "test",
        "lesion_id": "1",
    }  # fmt: skip


def _neighbours() -> list[dict[str, Any]]:
    outcomes, types = (
        ("malignant", "benign", "benign", "unknown"),
        ("mass", "calcification", "architectural distortion"),
    )
    return [
        {
            "row": f"row-{at}", "similarity": 0.95 - 0.01 * at, "outcome": outcomes[at % 4],
            "lesion_type": types[at % 3], "density": "ABCD"[at % 4], "view": ("CC", "MLO")[at % 2],
            "age": 41 + at, "woman": f"woman {at + 1}",
            "dataset": "invented", "size_mm": 6.5 + at, "mm": 40.0, "box": [10, 10, 60, 60], "image": None,
            "has_picture": at != 7, "agreement": None, "typicality": 0.1 if at == 3 else 0.8,
        }
        for at in range(24)
    ]  # fmt: skip


class Collection:
    """What the stub shows."""

    def __init__(self) -> None:
        both = [_detection("d2", MASS, "mass", "R"), _detection("d3", SPECKS, "calcification", "R")]
        self.films = {
            film.name: film
            for film in (
                _film("a" * 16, "R", "CC", [_detection("d1", MASS, "mass", "R")]),
                _film("b" * 16, "L", "CC", []),
                _film("c" * 16, "R", "MLO", both),
                _film("d" * 16, "L", "MLO", []),
                _film("e" * 16, "L", "MLO", []),
            )
        }  # fmt: skip
        self.studies = [
            self._study("1" * 16, "woman A", SCRIPT, ["a" * 16, "b" * 16, "c" * 16, "d" * 16], 0.8),
            self._study("2" * 16, "woman B", None, ["e" * 16], None),
        ]
        self.neighbours = _neighbours()

    def _study(
        self, study: str, woman: str, name: str | None, images: list[str], urgency: float | None
    ) -> dict[str, Any]:
        films = [self.films[image] for image in images]
        return {
            "study": study, "woman": woman, "name": name, "date": "2024-03-01", "age": 57, "state": "new",
            "detections": sum(len(film.detections) for film in films), "urgency": urgency, "verdicts": 0,
            "images": [
                {
                    "image": film.name, "view": film.view, "laterality": film.laterality, "rows": ROWS,
                    "columns": COLUMNS, "spacing_mm": 0.1, "detections": film.detections,
                    "place": {"row": int(film.view == "MLO"), "column": int(film.laterality == "L")},
                }
                for film in films
            ],
        }  # fmt: skip


def answer_to(body: dict[str, Any], collection: Collection, *, far: bool) -> dict[str, Any]:
    """Return what `/query` answers: the same to the same question, another to another one."""
    filters = body["filters"]
    allowed = [
        one
        for one in collection.neighbours
        if all(
            not filters[name] or one[name] in filters[name] for name in ("density", "view", "lesion_type", "dataset")
        )
        and (not filters["age"] or filters["age"][0] <= one["age"] <= filters["age"][1])
        and not (body["typical"] and one["typicality"] < 0.3)
    ]
    moved = dict.fromkeys(body["positive"], 0.3) | dict.fromkeys(body["negative"], -0.3)
    shift = 0.05 * len(body["further"])
    ranked = sorted(
        ({**one, "similarity": one["similarity"] + moved.get(one["row"], 0) - shift} for one in allowed),
        key=lambda one: (-one["similarity"], one["row"]),
    )
    classes = None
    if body["two_rows"]:
        classes, found = [], []
        for value in ("benign", "malignant"):
            own = [one for one in ranked if one["outcome"] == value]
            classes.append({"value": value, "neighbours": len(own[: body["k"]]), "allowed_rows": len(own)})
            found += [{**one, "rank": rank} for rank, one in enumerate(own[: body["k"]], 1)]
    else:
        found = [{**one, "rank": rank} for rank, one in enumerate(ranked[: body["k"]], 1)]
    sentence = (
        "no close precedent: the nearest of these findings has the similarity 0.410, and 98.0 % of the gallery's women "
        "have a closer one among the others; don't read them as similar cases"
        if far
        else "the nearest is closer than what 62 % of the gallery's women find among the others"
    )
    return {
        "question": body, "question_id": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16],
        "neighbours": found, "classes": classes, "closeness": {"no_close_precedent": far, "sentence": sentence},
        "suggested_mm": 40.0, "allowed_rows": len(allowed), "excluded_rows": 2,
        "notes": ["the view is not known of 3 rows"],
        "milliseconds": {"queued": 0.4, "embedding": 210.0, "search": 3.1, "all": 214.0},
        "replay": {"generation": 3, "model_digest": "0a1b2c3d", "version": "0.1.0"},
    }  # fmt: skip


OPINION = {
    "targets": [
        {
            "target": "pathology", "classes": ["benign", "malignant"],
            "vote": {"counts": {"malignant": 7, "benign": 3}, "neighbours": 10, "women": 10, "probabilities": []},
            "calibrated": {"probability": 0.62, "low": 0.5, "high": 0.74, "of": "malignant"},
            "head": None, "basis": "of 119 women",
        }
    ],
    "sentences": ["7 of 10 were malignant, from 10 women; calibrated 0.62, 95 % interval 0.50 to 0.74"],
}  # fmt: skip

COLLECTION = {
    "counts": {"pathology": {"benign": {"rows": 61, "women": 55}, "malignant": {"rows": 51, "women": 49}}},
    "scorecard": {
        "file": "scorecard.json",
        "content": {
            "context": {"protocol": "cross-validated by woman, 5 folds", "test_women": 104},
            "targets": {"pathology": {"scores": {"retrieval": {"P@10": {"value": 0.56, "low": 0.51, "high": 0.61}}}}},
        },
    },
    "drift": {
        "this_month": {"n": 41, "median": 0.71}, "gallery": {"women": 104, "median": 0.74, "quartiles": [0.7, 0.78]},
        "months": [
            {"month": "2024-02", "queries": 30, "median": 0.73, "share_without_precedent": 0.03},
            {"month": "2024-03", "queries": 41, "median": 0.71, "share_without_precedent": 0.07},
        ],
    },
    "curate": {
        "doubtful": [{"row": "row-3", "label": "benign", "typicality": 0.1, "neighbours": {"malignant": 9}}],
        "duplicates": [{"row": "row-4", "other": "row-5", "similarity": 0.999}], "atypical": None,
    },
}  # fmt: skip

AUDIT = {
    "entries": [{"time": "2024-03-01T09:00:00Z", "user": "dr-may", "action": "query"}], "intact": True, "head": "ab12",
}  # fmt: skip

OPENAPI = {
    "info": {"title": "mammoseek", "version": "0.1.0"},
    "paths": {
        "/query": {
            "post": {
                "summary": "Ask", "description": "Find similar findings.", "responses": {"200": {}, "503": {}},
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Body"}}}},
            }
        },
        "/rows/{row}": {
            "get": {
                "summary": "One row", "responses": {"200": {}},
                "parameters": [{"name": "row", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        },
    },
    "components": {"schemas": {"Body": {"type": "object", "properties": {"k": {"type": "integer"}}}}},
}  # fmt: skip


def row_of(name: str, collection: Collection) -> dict[str, Any] | None:
    """Return what `/rows/{row}` answers; None for an unknown row."""
    found = next((one for one in collection.neighbours if one["row"] == name), None)
    if found is None:
        return None
    other = collection.neighbours[(collection.neighbours.index(found) + 1) % 24]
    return {
        "row": name, "box": [120, 260, 190, 330], "record": {}, "woman": found["woman"], "outcome": found["outcome"],
        "image": "b" * 16, "has_picture": True,
        "other_views": [{"row": other["row"], "view": other["view"], "laterality": "R", "image": None}],
        "facts": [{"name": "lesion_type", "value": found["lesion_type"]}, {"name": "margin", "value": "spiculated"}],
    }  # fmt: skip
