"""The commands that ask a gallery: similar cases, and the labels that follow from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli_options import Dataset, Device, GalleryPlace, ImageOptions, JsonFlag, Model, option_groups
from console import print_json, print_notes, print_table, say

if TYPE_CHECKING:
    from classifiers.cases import Source

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""

ImagePath = Annotated[
    Path | None, typer.Argument(help="The mammogram: DICOM, PNG, JPEG, PGM or TIFF.", metavar="IMAGE")
]
BoxText = Annotated[
    str | None, typer.Option("--box", help="The place, in pixels of the stored image.", metavar="X0,Y0,X1,Y1")
]
Where = Annotated[
    str | None,
    typer.Option(help="Only neighbours for which this holds, such as \"density == 'dense' and view == 'MLO'\"."),
]
Patient = Annotated[str | None, typer.Option(help="The query's woman, where the file does not name her.")]
SamePatient = Annotated[bool, typer.Option("--include-same-patient", help="Let the woman's own findings answer.")]


@app.command("query")
@option_groups
def query_command(
    gallery: GalleryPlace,
    image: ImagePath = None,
    box: BoxText = None,
    row: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask with a row of the gallery instead of an image. Repeated: views of one finding.", metavar="ROW_ID"
        ),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another view of the same finding. Repeatable.", metavar="IMAGE@X0,Y0,X1,Y1"),
    ] = None,
    fusion: Annotated[str, typer.Option(help="Several views: the mean of their similarities, or the max.")] = "mean",
    k: Annotated[int | None, typer.Option("-k", help="How many neighbours; 10 unless --minimum is given.")] = None,
    minimum: Annotated[
        float | None, typer.Option(help="Smallest similarity of a neighbour. Without -k: all that reach it.")
    ] = None,
    where: Where = None,
    typical_only: Annotated[
        str | None,
        typer.Option(
            help="Only neighbours whose own neighbours don't contradict their label: pathology, or pathology:0.5 for a"
            " typicality of 0.5 (chance) or more instead of 0.3. Rows without the label are not held out.",
            metavar="LABEL",
        ),
    ] = None,
    group_by: Annotated[str, typer.Option(help="Limit the rows of one woman, study or lesion.")] = "woman",
    per_group: Annotated[int, typer.Option(min=0, help="Rows of one group at most; 0 for no limit.")] = 1,
    per_class: Annotated[
        str | None,
        typer.Option(help="The nearest of each class: pathology, or COLUMN=VALUE,VALUE.", metavar="COLUMN"),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(help="Prefer what agrees, as in margin:0.1 or density=D:0.05. Repeatable.", metavar="FACET"),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option(help="A row that is alike: the query moves toward it.", metavar="ROW_ID")
    ] = None,
    unlike: Annotated[
        list[str] | None, typer.Option(help="A row that is not: the query moves away from it.", metavar="ROW_ID")
    ] = None,
    least_percentile: Annotated[
        float,
        typer.Option(help="No close precedent where fewer per cent of the gallery's women have one so far."),
    ] = 5.0,
    patient: Patient = None,
    dataset: Dataset = None,
    include_same_patient: SamePatient = False,
    *,
    reading: ImageOptions,
    model: Model = None,
    montage: Annotated[Path | None, typer.Option(help="Write a picture of the query and its neighbours.")] = None,
    device: Device = "cpu",
    skip_damaged: Annotated[bool, typer.Option("--skip-damaged", help="Go on without damaged segments.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Find the most similar findings of other women, with what is known of them: one of each woman, unless asked.

    \b
    Examples:
      mammoseek query gallery mdb028.png --box 282,653,395,766 --spacing-mm 0.2 -k 5 --montage answer.png
      mammoseek query gallery --row mdb028-1 --where "pathology in ('benign', 'malignant')" --json
      mammoseek query gallery cc.dcm --box 900,700,1100,930 --also mlo.dcm@1200,800,1500,1130 --per-class pathology
      mammoseek query gallery --row mdb028-1 --prefer margin:0.1 --prefer density:0.05 --like mdb010-1 --unlike mdb005-1
      mammoseek query gallery --row mdb028-1 --minimum 0.9
      mammoseek query gallery --row mdb028-1 --typical-only pathology
      mammoseek query milvus://localhost:19530/findings --row mdb028-1
    """
    from classifiers.cases import ask_source
    from index.answers import Question
    from index.facets import Facet
    from index.grouping import PerClass
    from index.refinement import Refinement
    from index.typicalrows import Typical

    first, *further = _sources(image, box, row, also, patient, dataset, reading)
    answer = ask_source(
        gallery,
        first,
        Question(
            k=k if k is not None or minimum is not None else 10,
            where=where,
            include_same_patient=include_same_patient,
            minimum=minimum,
            group_by=group_by,
            per_group=per_group,
            per_class=None if per_class is None else PerClass.parse(per_class),
            facets=tuple(Facet.parse(text) for text in prefer or ()),
            refinement=Refinement(tuple(like or ()), tuple(unlike or ())) if like or unlike else None,
            fusion=fusion,  # type: ignore[arg-type]
            least_percentile=least_percentile,
            typical=None if typical_only is None else Typical.parse(typical_only),
        ),
        further=further,
        model=model,
        device=device,
        montage=montage,
        skip_damaged=skip_damaged,
    )
    found = answer.to_dict()
    if as_json:
        print_json(found)
    else:
        shown = [name.replace("_", " ") for name in _SHOWN]
        for title, neighbours in _lists(found):
            rows = [
                (
                    *(n["rank"], n["row_id"], n["patient_id"], n["similarity"]),
                    *(n.get(name) for name in _SHOWN),
                    Path(n["path"] or "").name,
                )
                for n in neighbours
            ]
            print_table(("rank", "row", "woman", "similarity", *shown, "image"), rows, title)
        excluded = found["excluded_patient"]
        typer.echo(f"Left out: {excluded} ({found['excluded_rows']} rows)" if excluded else "Left out: nobody")
        near = found["closeness"]
        if near and near["percentile"] is not None and not near["no_close_precedent"]:
            typer.echo(
                f"Closest precedent: {near['best_similarity']:.3f}, closer than what {near['percentile']:.0f} % of"
                " the gallery's women find among the others"
            )
        print_notes(found["notes"])
    if montage:
        say(f"Montage in {montage}")


def _lists(found: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the neighbours of an answer as one list, or as one of each class."""
    neighbours = found["neighbours"]
    if found["classes"] is None:
        return [("", neighbours)]
    lists, start = [], 0
    for part in found["classes"]:
        lists.append((f"{part['value']}:", neighbours[start : start + part["neighbours"]]))
        start += part["neighbours"]
    return lists


_SHOWN = ("lesion_type", "pathology", "density", "laterality", "view")


def _sources(
    image: Path | None,
    box: str | None,
    rows: list[str] | None,
    also: list[str] | None,
    patient: str | None,
    dataset: str | None,
    reading: ImageOptions,
) -> "list[Source]":
    """Return what is asked: an image's place or rows of the gallery, then its further views."""
    from classifiers.cases import Source
    from embedder.findings import VIEWS, Box

    if (image is None) == (not rows):
        raise typer.BadParameter("name either an IMAGE or a --row of the gallery")
    if reading.view is not None and reading.view not in VIEWS:
        raise typer.BadParameter(f"{reading.view!r} is none of {', '.join(VIEWS)}", param_hint="--view")
    names: list[str | None] = [*rows] if rows else [None]
    sources = [
        Source(
            path=image,
            box=Box.parse(box) if box is not None else None,
            row_id=name,
            patient=patient,
            dataset=dataset,
            spacing_mm=reading.spacing_mm,
            view=reading.view,
            frame=reading.frame,
            allow_for_processing=reading.for_processing,
        )
        for name in names
    ]
    for text in also or ():
        path, at, place = text.rpartition("@")
        sources.append(
            Source(
                path=Path(path if at else place),
                box=Box.parse(place) if at else None,
                spacing_mm=reading.spacing_mm,
                allow_for_processing=reading.for_processing,
            )
        )
    return sources


@app.command("classify")
@option_groups
def classify_command(
    gallery: GalleryPlace,
    image: ImagePath = None,
    box: BoxText = None,
    row: Annotated[
        list[str] | None,
        typer.Option(help="Classify a row of the gallery. Repeated: views of one finding.", metavar="ROW_ID"),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Another view of the same finding, or the other breast, repeatable.", metavar="IMAGE[@X0,Y0,X1,Y1]"
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A label column; every usual one that can be answered unless given.")
    ] = None,
    patient: Patient = None,
    dataset: Dataset = None,
    *,
    reading: ImageOptions,
    model: Model = None,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Classify a place by the vote of its neighbours and by a linear head, side by side, with calibrated probabilities.

    The woman's own findings neither vote nor train: everything is fitted on other women.

    \b
    Examples:
      mammoseek classify gallery mdb028.png --box 282,653,395,766 --spacing-mm 0.2 --target pathology
      mammoseek classify gallery --row mdb028-1 --json
      mammoseek classify breasts mdb027.png --also mdb028.png --target density
    """
    from classifiers.cases import classify_source

    first, *further = _sources(image, box, row, also, patient, dataset, reading)
    found = classify_source(
        gallery,
        first,
        further=further,
        targets=tuple(target) if target else None,
        model=model,
        device=device,
    ).to_dict()
    if as_json:
        print_json(found)
        return
    for answer in found["targets"]:
        _print_classification(answer)
    typer.echo(f"Left out: {found['excluded_patient'] or 'nobody'}")
    print_notes(found["notes"])


def _print_classification(found: dict[str, Any]) -> None:
    methods = {"kNN vote": found["knn"], "linear head": found["head"]}
    probabilities = [part.get("probabilities") or {} for part in methods.values()]
    rows = [(name, *(known.get(name) for known in probabilities)) for name in found["classes"]]
    print_table((found["target"], *methods), rows)
    for label, part in methods.items():
        typer.echo(f"  {label}: {part['basis']}")
    risk = found["risk"]
    if risk["probability"] is not None:
        parts = ", ".join(f"{name} {part:+.2f}" for name, part in risk["parts"].items())
        typer.echo(f"  risk ({risk['positive']}): {risk['probability']:.3f} (log odds: {parts}); {risk['basis']}")
    typer.echo("")
