"""The commands of a PACS: fetch from it, store in it, listen to it."""

import contextlib
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli_options import Device, GalleryPath, JsonFlag, NameCases, RescorerFile
from console import check_output, interruptible, print_json, print_table, progress_bar, report_failures, say

if TYPE_CHECKING:
    from exchange.pacs.config import PacsConfig

pacs_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Fetch from, store in and listen to a PACS.")

PacsFile = Annotated[
    Path,
    typer.Option("--config", help="TOML file that names the PACS, see docs/pacs-example.toml.", metavar="PACS.TOML"),
]


def _pacs(path: Path) -> "PacsConfig":
    """Read a configuration, and say what is unwise in it."""
    from exchange.pacs.config import PacsConfig

    config = PacsConfig.read(path)
    for warning in config.warnings():
        say(f"Warning: {warning}")
    return config


@pacs_app.command("echo")
def pacs_echo(config: PacsFile, as_json: JsonFlag = False) -> None:
    """Ask whether the PACS is there and lets us in: a search for one study, or a C-ECHO.

    \b
    Examples:
      mammoseek pacs echo --config pacs.toml
    """
    from exchange.pacs.archive import open_archive
    from exchange.pacs.failures import with_retries

    settings = _pacs(config)
    with open_archive(settings) as archive:
        told = with_retries(settings.retries, archive.echo)
    if as_json:
        print_json({"target": settings.target, "answer": told})
    else:
        typer.echo(told)


@pacs_app.command("fetch")
def pacs_fetch(
    config: PacsFile,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to fetch to.")],
    study: Annotated[str | None, typer.Option(help="Study Instance UID.")] = None,
    patient: Annotated[str | None, typer.Option(help="Patient ID, without wildcards.")] = None,
    dates: Annotated[str | None, typer.Option(help="Study date or dates.", metavar="YYYYMMDD[-YYYYMMDD]")] = None,
    modality: Annotated[str, typer.Option(help="Modality of the series; `any` for all.")] = "MG",
    as_json: JsonFlag = False,
) -> None:
    """Fetch mammograms into <study>/<series>/<instance>.dcm; run again, it fetches what is missing.

    \b
    Examples:
      mammoseek pacs fetch --config pacs.toml --patient 4711 -o images
      mammoseek pacs fetch --config pacs.toml --dates 20240101-20240131 -o images --json
      mammoseek pacs fetch --config pacs.toml --study 1.2.840.1 --modality any -o images
    """
    from exchange.pacs.fetching import fetch
    from exchange.pacs.query import Query

    query = Query(study, patient, dates, None if modality == "any" else modality)
    settings = _pacs(config)
    goes_on = "What was fetched is there: run the same command to go on."
    with interruptible(goes_on), progress_bar("Fetching") as progress:
        result = fetch(settings, query, output, progress)
    if as_json:
        failed = [{"instance": name, "error": told} for name, told in result.failures]
        files = [str(path) for path in result.files]
        print_json({"found": result.found, "already_there": result.kept, "files": files, "failures": failed})
    else:
        new = len(result.files) - result.kept
        typer.echo(f"{result.found} instances found: {new} fetched, {result.kept} were there, in {output}")
    report_failures(result.failures, "instances")


@pacs_app.command("store")
def pacs_store(
    files: Annotated[list[Path], typer.Argument(help="DICOM files.", metavar="FILE...")],
    config: PacsFile,
    journal: Annotated[
        Path | None, typer.Option(help="File that keeps what was stored, so that nothing is sent twice.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Store DICOM files in the PACS; with a journal, run again, it stores what is missing.

    \b
    Examples:
      mammoseek pacs store --config pacs.toml report.dcm
      mammoseek pacs store --config pacs.toml reports/*.dcm --journal sent.jsonl
    """
    from exchange.pacs.storing import store

    settings = _pacs(config)
    check_output(journal)
    goes_on = "With a journal the same command goes on." if journal is None else "Run the same command to go on."
    with interruptible(goes_on), progress_bar("Storing") as progress:
        result = store(settings, files, journal, progress)
    if as_json:
        failed = [{"file": name, "error": told} for name, told in result.failures]
        sent, kept = [str(path) for path in result.sent], [str(path) for path in result.kept]
        print_json({"target": settings.target, "stored": sent, "stored_before": kept, "failures": failed})
    else:
        typer.echo(f"{len(result.sent)} stored in {settings.target}, {len(result.kept)} were before")
    report_failures(result.failures, "files")


@pacs_app.command("listen")
def pacs_listen(
    gallery: GalleryPath,
    config: PacsFile,
    rescorer: RescorerFile = None,
    presentation: Annotated[
        str, typer.Option(help="Findings of CAD reports to take: required, optional (too), or all.")
    ] = "required",
    name_cases: NameCases = False,
    captures: Annotated[
        bool, typer.Option("--captures", help="Send montages as secondary captures, without names, too.")
    ] = False,
    uid_root: Annotated[str, typer.Option(help="Root of the UIDs of reports.")] = "2.25",
    device: Device = "auto",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed.")] = False,
) -> None:
    """Receive studies (C-STORE), give second opinions on the findings of their CAD reports, and store the reports.

    Runs until it is stopped (Ctrl-C, SIGTERM). What was received is on disk before its sender is told so; a study is
    processed at least once, and its report is in the PACS once. Studies are processed in a process of its own, which
    is ended when one takes too long. What becomes of studies without a CAD report, how long one may take and how long
    images are kept stand in the configuration's table [listen].

    \b
    Examples:
      mammoseek pacs listen gallery --config pacs.toml
      mammoseek pacs listen gallery --config pacs.toml --rescorer rescorer.json --retry-failed
    """
    from exchange.pacs.listener import Listener
    from exchange.pacs.worker import Worker

    settings = _pacs(config)
    stop = threading.Event()
    options = {
        "gallery": str(gallery),
        "candidates": settings.listen.candidates == "without-cad",
        "rescorer": None if rescorer is None else str(rescorer),
        "presentation": presentation,
        "name_cases": name_cases,
        "captures": captures,
        "uid_root": uid_root,
        "device": device,
    }
    worker = Worker("exchange.studytriage:open_triage", options, settings.listen.processing_s, stop, say)
    listener = Listener(settings, worker, say)
    try:
        worker.start()
        if retry_failed:
            say(f"{len(listener.retry_failed())} failed studies are tried again")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        listener.run(stop)
    finally:
        worker.close()


@pacs_app.command("spool")
def pacs_spool(
    config: PacsFile,
    studies: Annotated[
        list[str] | None, typer.Option("--study", help="Only this study. Repeatable.", metavar="UID")
    ] = None,
    empty: Annotated[
        bool, typer.Option("--empty", help="Delete what was sent, however old; a failed study where --study names it.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show the studies in the listener's spool; with --empty, delete images and reports of those that were sent.

    Looking disturbs no listener. Deleting needs it to be stopped. Of a study that was sent digests are kept, so that
    the same images give no second report; of a failed one nothing is kept, so that it is processed when it comes again.

    \b
    Examples:
      mammoseek pacs spool --config pacs.toml
      mammoseek pacs spool --config pacs.toml --empty
      mammoseek pacs spool --config pacs.toml --empty --study 1.2.840.1 --yes
    """
    from exchange.pacs.retention import delete_studies
    from exchange.pacs.spool import Spool
    from exchange.pacs.spoolview import look

    spool = Path(_pacs(config).listen.spool)
    rows = look(spool, studies)
    if empty:
        chosen = [row for row in rows if row.phase == "sent" or (row.phase == "failed" and studies)]
        if chosen and not yes:
            size = sum(row.bytes for row in chosen) / (1 << 20)
            typer.confirm(f"Delete images and reports of {len(chosen)} studies, {size:.1f} MiB?", abort=True, err=True)
        with contextlib.closing(Spool(spool)) as held:
            failures = delete_studies(held, [row.study for row in chosen])
        if as_json:
            print_json({"deleted": len(chosen) - len(failures), "failures": dict(failures)})
        else:
            typer.echo(f"{len(chosen) - len(failures)} studies deleted")
        report_failures(failures, "studies")
    elif as_json:
        print_json({"spool": str(spool), "studies": [row.to_dict() for row in rows]})
    else:
        columns = ("study", "phase", "round", "images", "MiB", "failures", "age", "reason")
        cells = [
            (
                row.study,
                row.phase,
                row.round,
                row.images,
                f"{row.bytes / (1 << 20):.1f}",
                row.failures,
                row.age,
                row.reason or None,
            )
            for row in rows
        ]
        print_table(columns, cells, f"{len(rows)} studies in {spool}")
