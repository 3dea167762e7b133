"""The commands of galleries: build, change, check, copy."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli_options import Device, GalleryPath, GalleryPlace, JsonFlag, ManifestPath, Model, Workers
from console import EXIT_FAILED, interruptible, print_json, print_table, progress_bar, report_failures, say, tell

index_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Galleries: build, add, remove, info, verify."
)

Ray = Annotated[
    str | None,
    typer.Option(help="Embed on a Ray cluster: local, auto, or ray://host:port.", metavar="ADDRESS"),
]
Engine = Annotated[
    str | None,
    # Named, as an option must be whose metavar is its name: typer 0.27 takes the metavar for the name otherwise.
    typer.Option("--engine", help="Search engine, see `mammoseek index rebuild`; auto unless given.", metavar="ENGINE"),
]
TargetRecall = Annotated[
    float | None, typer.Option(min=0.5, max=1.0, help="Share of the 10 nearest that must be found; 0.98 unless given.")
]
IndexMemory = Annotated[
    float | None, typer.Option("--memory", min=0.001, help="GiB that the index may take beside the vectors.")
]


@index_app.command("build")
def index_build(
    manifest: ManifestPath,
    model: Annotated[Path, typer.Option(help="Folder of the model.")],
    output: Annotated[
        str, typer.Option("-o", "--output", help="Folder of the gallery, or milvus://host:port/collection.")
    ],
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Keep a small picture of each ROI in the gallery: it is patient data.")
    ] = False,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Keep the names of the image files without their folders.")
    ] = False,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = None,
    engine: Engine = None,
    target_recall: TargetRecall = None,
    memory: IndexMemory = None,
    as_json: JsonFlag = False,
) -> None:
    """Embed a manifest's rows into a gallery; rows that are there already are skipped, so a stopped build goes on.

    \b
    Examples:
      mammoseek index build mini-mias.csv --model model -o gallery
      mammoseek index build archive.parquet --model model --thumbnails -o gallery
      mammoseek index build archive.parquet --model model -o gallery --ray auto --engine ivf-pq
    """
    config = _engine_config(engine, target_recall, memory)
    further = {"engine": config, "names_only": names_only}
    _fill(manifest, model, output, thumbnails, device, workers, ray, further, as_json)


@index_app.command("add")
def index_add(
    gallery: GalleryPlace,
    manifest: ManifestPath,
    model: Model = None,
    thumbnails: Annotated[bool, typer.Option("--thumbnails", help="Keep a small picture of each ROI.")] = False,
    device: Device = "auto",
    workers: Workers = None,
    ray: Ray = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a manifest's rows to a gallery; rows that are there already are skipped.

    \b
    Example:
      mammoseek index add gallery tonight.csv
    """
    _fill(manifest, model, gallery, thumbnails, device, workers, ray, None, as_json)


def _fill(
    manifest: Path,
    model: Path | None,
    gallery: str,
    thumbnails: bool,
    device: str,
    workers: int | None,
    ray: str | None,
    further: dict[str, Any] | None,
    as_json: bool,
) -> None:
    """Fill a gallery: a new one with these further options, or one that is there (None)."""
    from classifiers.filling import add_to_gallery, new_gallery
    from embedder.manifest import read_manifest

    frame = read_manifest(manifest)
    with (
        interruptible("What was written is kept: run the same command again to go on."),
        progress_bar("Embedding") as progress,
    ):
        options: dict[str, Any] = {"thumbnails": thumbnails, "device": device, "workers": workers, "progress": progress}
        options["ray"] = ray
        if further is not None:
            assert model is not None
            report = new_gallery(frame, model, gallery, **further, **options)
        else:
            report = add_to_gallery(frame, gallery, model=model, **options)
    for line in report.cleaned:
        say(f"Cleaned up after a stopped writer: {line}")
    there = f", {report.already_there} were there already" if report.already_there else ""
    found = {
        "gallery": str(gallery),
        "added": report.added,
        "already_there": report.already_there,
        "failures": report.failures,
        "notes": report.notes,
    }
    tell(as_json, found, f"Added {report.added} rows to {gallery}{there}")
    for note in report.notes:
        say(f"Note: {note}")
    report_failures(report.failures, "rows")


@index_app.command("remove")
def index_remove(
    gallery: GalleryPlace,
    patient: Annotated[str | None, typer.Option(help="Remove this woman.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Remove this data set, or the --patient of this data set.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Remove this examination.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Remove this row. Repeatable.")] = None,
    where: Annotated[str | None, typer.Option(help="Remove rows for which this holds.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove rows so that their vectors, records and pictures are in no file of the gallery afterwards.

    Every file is read back and searched to prove it, and `removals.log` in the gallery says that it was done, without
    saying who was removed.

    \b
    Examples:
      mammoseek index remove gallery --patient mias-007 --dataset mini-mias
      mammoseek index remove gallery --where "dataset == 'trial' and age < 40"
    """
    from classifiers.filling import take_out

    with interruptible("Nothing was removed unless it was said: run the same command again."):
        report = take_out(gallery, patient=patient, dataset=dataset, study=study, row_ids=row or (), where=where)
    checked = "no question finds them" if "milvus" in gallery[:6] else "nothing of them is in any file"
    told = f"Removed {report.removed} rows, {report.remaining} are left. Checked: {checked}."
    tell(as_json, report.to_dict(), told)


@index_app.command("info")
def index_info(gallery: GalleryPlace, as_json: JsonFlag = False) -> None:
    """Show what a gallery holds and what it is bound to.

    \b
    Example:
      mammoseek index info gallery
    """
    from classifiers.filling import describe_gallery

    found = describe_gallery(gallery)
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", _line(item)) for key, item in value.items()]
        else:
            rows.append((name, _line(value)))
    print_table(("what", "value"), rows)


def _line(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or None
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or None
    return value


@index_app.command("verify")
def index_verify(
    gallery: GalleryPath,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make a damaged index again, and delete what a killed writer left.")
    ] = False,
    drop_damaged: Annotated[
        bool, typer.Option("--drop-damaged", help="Give up damaged segments, after listing their rows.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check every digest of a gallery and name what is damaged, with the rows that it held.

    \b
    Examples:
      mammoseek index verify gallery
      mammoseek index verify gallery --repair
    """
    from classifiers.filling import verify_with_model
    from index.repair import repair_gallery

    report = verify_with_model(gallery)
    mended: tuple[str, ...] = ()
    if repair or drop_damaged:
        mended = repair_gallery(gallery, drop_damaged=drop_damaged)
        after = verify_with_model(gallery)
    else:
        after = report
    if as_json:
        print_json({**after.to_dict(), "before": report.to_dict(), "mended": mended} if mended else after.to_dict())
    else:
        print_table(
            ("file", "state", "rows", "what is wrong"), [(f.file, f.state, f.rows, f.problem) for f in report.files]
        )
        for file in report.damaged:
            if file.row_ids:
                more = f" and {len(file.row_ids) - 20} more" if len(file.row_ids) > 20 else ""
                typer.echo(f"{file.file} held {', '.join(file.row_ids[:20])}{more}")
        for line in mended:
            say(line)
        say("All is well." if after.ok else "The gallery is damaged.")
    if not after.ok:
        raise typer.Exit(EXIT_FAILED)


@index_app.command("rebuild")
def index_rebuild(
    gallery: GalleryPath,
    engine: Engine = None,
    target_recall: TargetRecall = None,
    memory: IndexMemory = None,
    training_rows: Annotated[int | None, typer.Option(min=1, help="Rows that the index is trained on.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--search", help="A search parameter, found by measuring unless given.", metavar="NAME=VALUE"),
    ] = None,
    device: Device = "cpu",
    as_json: JsonFlag = False,
) -> None:
    """Make a gallery's index anew from its vectors, perhaps with another engine.

    Engines: auto (chosen by rows, memory and recall), exact, float16, int8, hnsw, ivf, ivf-sq, ivf-pq, or a FAISS
    factory string. All but exact propose candidates, which are then compared exactly with the query.

    \b
    Examples:
      mammoseek index rebuild gallery
      mammoseek index rebuild gallery --engine ivf-pq --target-recall 0.99
      mammoseek index rebuild gallery --engine "IVF4096,SQ8" --search nprobe=32 --device cuda
    """
    from classifiers.filling import index_device
    from index.indexing import rebuild_index

    config = _engine_config(engine, target_recall, memory, training_rows, parameter)
    with interruptible("The gallery is as it was: run the same command again."):
        description = rebuild_index(gallery, config, device=index_device(device), progress=say)
    if as_json:
        print_json(description)
        return
    print_table(("what", "value"), [(name, _line(value)) for name, value in description.items()])


@index_app.command("compact")
def index_compact(gallery: GalleryPath, as_json: JsonFlag = False) -> None:
    """Join the small segments that nightly additions leave; `index add` does it where many have gathered.

    \b
    Example:
      mammoseek index compact gallery
    """
    from index.writer import GalleryWriter

    with interruptible("The gallery is as it was: run the same command again."), GalleryWriter(gallery) as writer:
        fewer = writer.compact()
        segments, cleaned = len(writer.manifest.segments), writer.cleaned
    for line in cleaned:
        say(f"Cleaned up after a stopped writer: {line}")
    found = {"gallery": str(gallery), "segments": segments, "fewer": fewer}
    tell(as_json, found, f"{segments} segments, {fewer} fewer than before")


@index_app.command("typicality")
def index_typicality(
    gallery: GalleryPlace,
    label: Annotated[str, typer.Option(help="The label column to judge by, such as pathology.", metavar="COLUMN")],
    below: Annotated[
        float | None, typer.Option(help="Only rows with a smaller score; 0.5 is chance.", metavar="SCORE")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List a gallery's rows by how well their neighbours agree with their label, most doubtful first.

    Ten neighbours are asked, one of each other woman, and compared with how frequent the label is: 0.5 is what women
    drawn at random would say, 0 a label that all neighbours contradict. A doubtful row is a rare case, a bad crop or a
    wrong label: look at it before you believe either.

    \b
    Examples:
      mammoseek index typicality gallery --label pathology
      mammoseek index typicality gallery --label density --below 0.3 --json
    """
    from index.doubtful import judge_rows

    with progress_bar("Asking neighbours") as progress:
        found = judge_rows(gallery, label, below=below, progress=progress).to_dict()
    if as_json:
        print_json(found)
        return
    rows = [
        (*(row[name] for name in ("row_id", "dataset", "patient_id", "label", "typicality")), _line(row["neighbours"]))
        for row in found["rows"]
    ]
    print_table(("row", "data set", "woman", label, "typicality", "neighbours"), rows)
    context = found["context"]
    named = "" if below is None else f", {len(rows)} are below {below:g}"
    typer.echo(
        f"{found['judged']} of {context['rows']} {context['granularity']}s could be judged{named}; 0.5 is chance."
        f" {label} is known of {context['labelled_rows']}, of {context['labelled_women']} women."
        f" Model {context['model_digest'][:12]}, gallery generation {context['gallery_generation']}."
    )


@index_app.command("copy")
def index_copy(
    source: Annotated[str, typer.Argument(help="Folder of the gallery, or its address on Milvus.")],
    target: Annotated[str, typer.Argument(help="Where to: an address on Milvus, or a folder.")],
    thumbnails: Annotated[bool, typer.Option(help="Copy the small pictures too.")] = True,
    milvus_index: Annotated[str, typer.Option(help="Milvus's index: FLAT is exact, HNSW is not.")] = "FLAT",
    as_json: JsonFlag = False,
) -> None:
    """Copy a gallery from a folder to Milvus, or back, without loss; a copy that was stopped goes on.

    \b
    Examples:
      mammoseek index copy gallery milvus://localhost:19530/findings
      mammoseek index copy gallery milvus:///data/findings.db/findings
      mammoseek index copy milvus://localhost:19530/findings gallery-back
    """
    from classifiers.filling import copy_gallery

    with interruptible("Run the same command again: the copy goes on."), progress_bar("Copying") as progress:
        report = copy_gallery(source, target, thumbnails=thumbnails, index=milvus_index, progress=progress)
    found = {"added": report.added, "already_there": report.already_there, "failures": report.failures}
    tell(as_json, found, f"Copied {report.added} rows to {target}, {report.already_there} were there already")
    report_failures(report.failures, "rows")


def _engine_config(
    engine: str | None,
    target_recall: float | None,
    memory: float | None,
    training_rows: int | None = None,
    parameters: list[str] | None = None,
) -> dict[str, Any]:
    """Return what is asked of an engine; of what is not, the gallery goes on as it was asked before."""
    asked: dict[str, Any] = {
        "engine": engine,
        "target_recall": target_recall,
        "memory_bytes": None if memory is None else int(memory * (1 << 30)),
        "training_rows": training_rows,
    }
    if parameters:
        asked["search"] = {}
        for pair in parameters:
            name, _, value = pair.partition("=")
            try:
                asked["search"][name] = float(value)
            except ValueError:
                raise typer.BadParameter(f"{pair!r} is not NAME=NUMBER", param_hint="--search") from None
    return {name: value for name, value in asked.items() if value is not None}
