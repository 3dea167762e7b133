"""The commands that stand before the rest: which images are fit to be used, and copies without identity."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli_options import JsonFlag
from console import (
    EXIT_PARTLY,
    check_output,
    interruptible,
    print_json,
    print_table,
    progress_bar,
    report_failures,
    say,
)

app = typer.Typer(rich_markup_mode=None)
"""Commands at the top of `mammoseek`."""


@app.command("gate")
def gate_command(
    paths: Annotated[
        list[Path], typer.Argument(help="Image files, folders of them, or a manifest.", metavar="PATH...")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="With a manifest: write it with the verdicts, without the refused."),
    ] = None,
    for_processing: Annotated[
        bool, typer.Option("--for-processing", help="Let For Processing images in, noted.")
    ] = False,
    magnified: Annotated[str, typer.Option(help="Magnification and spot compression views: note or refuse.")] = "note",
    multi_frame: Annotated[str, typer.Option(help="Tomosynthesis and multi-frame images: note or refuse.")] = "refuse",
    burned_in: Annotated[bool, typer.Option("--burned-in", help="Let images with burnt-in text in, noted.")] = False,
    headers_only: Annotated[
        bool, typer.Option("--headers-only", help="Do not decode pixels: fast, no check for text.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Threads.")] = 4,
    as_json: JsonFlag = False,
) -> None:
    """Judge images before they are embedded: accept, accept with a note, or refuse, with the reasons.

    \b
    Examples:
      mammoseek gate exam/*.dcm
      mammoseek gate archive/ --json > verdicts.json
      mammoseek gate manifest.csv -o gated.csv --magnified refuse
    """
    from embedder.manifest import read_manifest, write_manifest
    from exchange.gatekeeper import GatekeeperConfig, judge_images
    from exchange.verdicts import ACCEPT, REFUSE, gate_manifest

    config = GatekeeperConfig(for_processing, magnified, multi_frame, burned_in, not headers_only)  # type: ignore[arg-type]
    tables = [path for path in paths if path.suffix.lower() in (".csv", ".parquet")]
    if tables and len(paths) > 1:
        raise typer.BadParameter("give one manifest, or images", param_hint="PATH")
    if output is not None:
        if not tables:
            raise typer.BadParameter("only a manifest can be written with verdicts", param_hint="--output")
        check_output(output)
    frame = read_manifest(tables[0], check_images=False) if tables else None
    if frame is not None:
        files = [Path(name) for name in frame["path"].unique()]
    else:
        files = [
            file
            for path in paths
            for file in (sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path])
        ]
    with progress_bar("Judging") as progress:
        verdicts = judge_images(files, config, workers=workers, progress=progress)
    if frame is not None and output is not None:
        gated, _ = gate_manifest(frame, verdicts)
        write_manifest(gated, output)
        say(f"Wrote {len(gated)} of {len(frame)} rows to {output}")
    if as_json:
        print_json([asdict(one) for one in verdicts])
    else:
        shown = [one for one in verdicts if one.verdict != ACCEPT]
        print_table(("file", "verdict", "reasons"), [(one.path, one.verdict, "; ".join(one.reasons)) for one in shown])
        say(", ".join(f"{count} {name}" for name, count in Counter(one.verdict for one in verdicts).items()))
    if any(one.verdict == REFUSE for one in verdicts):
        raise typer.Exit(EXIT_PARTLY)


@app.command("deidentify")
def deidentify_command(
    source: Annotated[Path, typer.Argument(help="Folder of DICOM files, one file, or a manifest.", metavar="IN")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the copies.")],
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="File with the secret key, readable by its owner only.", metavar="KEY"),
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option("--key-variable", help="Environment variable with the key instead.", metavar="NAME")
    ] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key file: keep it, and keep it secret.")] = False,
    issuer: Annotated[
        str,
        typer.Option(
            help="Who gave the patient ids, where files do not say. For a manifest: instead of its data sets."
        ),
    ] = "",
    burned_in: Annotated[bool, typer.Option("--burned-in", help="Copy images with burnt-in text too.")] = False,
    keep_column: Annotated[
        list[str] | None,
        typer.Option("--keep-column", help="Column of a manifest to keep. Repeatable.", metavar="NAME"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads; each holds one image.")] = 2,
    as_json: JsonFlag = False,
) -> None:
    """Copy mammograms without identity: PS3.15 basic profile, keyed pseudonyms and UIDs, dates moved, pixels untouched.

    The key is never given on the command line, where others could read it. Whoever has it can tell that a pseudonym is
    a given woman's. Text burnt into the background of an image keeps it back; text across the breast is not found: look
    at the images before you hand them on.

    \b
    Examples:
      mammoseek deidentify archive -o study --key-file study.key --new-key
      mammoseek deidentify archive -o study --key-file study.key          # goes on where it was stopped
      MAMMOSEEK_KEY=... mammoseek deidentify manifest.csv -o study --key-variable MAMMOSEEK_KEY
    """
    from exchange.deidentify import DUPLICATE, FAILED, REFUSED, DeidentifyConfig, deidentify_folder
    from exchange.deidentifymanifest import deidentify_manifest
    from exchange.pseudonyms import key_from_environment, read_key, write_new_key

    if (key_file is None) == (key_variable is None):
        raise typer.BadParameter("give either --key-file or --key-variable", param_hint="--key-file")
    if key_file is not None:
        key = write_new_key(key_file) if new_key else read_key(key_file)
    else:
        key = key_from_environment(str(key_variable))
    config = DeidentifyConfig(issuer=issuer, allow_burned_in=burned_in)
    with interruptible("Run it again: it goes on."), progress_bar("Copying") as progress:
        if source.is_file() and source.suffix.lower() in (".csv", ".parquet"):
            _, outcomes = deidentify_manifest(
                source, output, key, config, keep_columns=keep_column or (), workers=workers, progress=progress
            )
        else:
            outcomes = deidentify_folder(source, output, key, config, workers=workers, progress=progress)
    counts = {name: sum(one.status == name for one in outcomes) for name in sorted({one.status for one in outcomes})}
    if as_json:
        print_json({"output": str(output), "counts": counts, "files": [asdict(one) for one in outcomes]})
    else:
        print_table(("status", "files"), list(counts.items()))
    report_failures(
        [(str(one.source), one.reason) for one in outcomes if one.status in (REFUSED, FAILED, DUPLICATE)], "files"
    )
