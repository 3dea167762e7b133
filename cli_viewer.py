"""The commands of the radiologist's page: serve it, make its tokens, and look after what is on record."""

import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli_options import Device, GalleryPath, JsonFlag, Model, option_groups
from console import EXIT_FAILED, check_output, print_json, print_table, report_failures, say
from errors import MammoseekError

if TYPE_CHECKING:
    from viewer.chain import Record
    from viewer.settings import ServeConfig

app = typer.Typer(rich_markup_mode=None)
verdicts_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="What readers decided on the page.")
audit_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Who asked what on the page.")

StateFolder = Annotated[
    Path, typer.Argument(help="The server's state folder, which `mammoseek serve` says.", metavar="STATE")
]
TokensFile = Annotated[Path, typer.Option("--tokens", help="File of hashed tokens; made where it is not there.")]


@dataclass(frozen=True)
class AccessOptions:
    """Who is let in, and how the server is reached."""

    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen at; 0 for any that is free.")] = 8700
    tokens: Annotated[
        Path | None, typer.Option("--tokens", help="Ask for a token of this file, see `mammoseek serve-token`.")
    ] = None
    identity_header: Annotated[
        str | None, typer.Option(help="Header in which a reverse proxy names the user.", metavar="NAME")
    ] = None
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option("--trusted-proxy", help="Address or network of that proxy. Repeatable.", metavar="ADDRESS"),
    ] = None
    curator: Annotated[
        list[str] | None, typer.Option("--curator", help="A user of the proxy who is a curator. Repeatable.")
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A name by which browsers reach the server. Repeatable.", metavar="NAME"),
    ] = None
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the server's certificate.")] = None
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None
    behind_proxy: Annotated[bool, typer.Option("--behind-proxy", help="A reverse proxy speaks TLS for the server.")] = (
        False
    )
    requests_per_s: Annotated[
        float, typer.Option(min=1, max=1_000_000, help="Requests a second of one user, for long.")
    ] = 500.0
    changes_per_s: Annotated[
        float, typer.Option(min=1, max=1_000_000, help="Questions and verdicts of one user likewise.")
    ] = 50.0

    def settings(self) -> dict[str, Any]:
        """Return what they are called in the server's configuration."""
        return {
            "host": self.host,
            "port": self.port,
            "tokens": self.tokens,
            "identity_header": self.identity_header,
            "trusted_proxies": tuple(self.trusted_proxy or ()),
            "curators": tuple(self.curator or ()),
            "allowed_hosts": tuple(self.allowed_host or ()),
            "tls_cert": self.tls_cert,
            "tls_key": self.tls_key,
            "behind_proxy": self.behind_proxy,
        }


@app.command("serve")
@option_groups
def serve(
    gallery: GalleryPath,
    images: Annotated[
        list[Path] | None, typer.Option("--images", help="Folder of images to look at. Repeatable.", metavar="FOLDER")
    ] = None,
    detections: Annotated[
        list[Path] | None, typer.Option("--detections", help="Table of detections on them. Repeatable.")
    ] = None,
    access: AccessOptions = AccessOptions(),
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder of verdicts and audit log; the user's own unless set.")
    ] = None,
    show_names: Annotated[bool, typer.Option("--show-names", help="Show names of patients.")] = False,
    show_opinion: Annotated[
        bool, typer.Option("--show-opinion", help="Show votes and probabilities with the neighbours, unasked.")
    ] = False,
    reader: Annotated[
        str | None, typer.Option(help="Who asks, where neither token nor proxy says so; the system's user unless set.")
    ] = None,
    embed_queue: Annotated[int, typer.Option(min=1, max=10_000, help="Questions that may wait for the embedder.")] = 32,
    model: Model = None,
    device: Device = "auto",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve the radiologist's page: look at images, ask for similar cases, compare, decide.

    Listens on this machine alone unless --host says otherwise, and then asks who is there: by a token (--tokens) or by
    a reverse proxy's word (--identity-header, --trusted-proxy), over TLS (--tls-cert, --tls-key, or --behind-proxy).
    Runs until Ctrl-C or SIGTERM. See docs/viewer.md.

    \b
    Examples:
      mammoseek serve gallery --images images --open
      mammoseek serve gallery --images images --detections findings.csv --reader anna
      mammoseek serve gallery --host 0.0.0.0 --tokens tokens.toml --tls-cert cert.pem --tls-key key.pem
    """
    from viewer.settings import Limits, ServeConfig

    config = ServeConfig(
        gallery=gallery,
        model=model,
        images=tuple(images or ()),
        detections=tuple(detections or ()),
        device=device,
        limits=Limits(requests_per_s=access.requests_per_s, changes_per_s=access.changes_per_s),
        state=state,
        opinion_hidden=not show_opinion,
        names_shown=show_names,
        embed_queue=embed_queue,
        **access.settings(),
    )
    _run(config if reader is None else replace(config, reader=reader), open_page)


def _run(config: "ServeConfig", open_page: bool) -> None:
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        name = (error.name or "a package").partition(".")[0]
        raise MammoseekError(
            "mammoseek serve", f"{name} is not installed", 'pip install "mammoseek[viewer]"'
        ) from error
    from viewer.serving import serve as serve_page

    # A service manager's signal means the same as Ctrl-C, while the model is being loaded too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve_page(config, say, open_page=open_page)


@app.command("serve-token")
def serve_token(
    name: Annotated[str, typer.Argument(help="The user, or the program, whose token it is.", metavar="NAME")],
    tokens: TokensFile,
    role: Annotated[
        str, typer.Option(help="reader, or curator (sees the audit log and the collection too).")
    ] = "reader",
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Take away all tokens of this user; a running server ends her logins.")
    ] = False,
) -> None:
    """Make a token for the page. It is printed once and kept as a salted hash alone.

    \b
    Examples:
      mammoseek serve-token anna --tokens tokens.toml
      mammoseek serve-token worklist-robot --role curator --tokens tokens.toml
      mammoseek serve-token anna --tokens tokens.toml --revoke
    """
    from viewer.access import make_token, revoke_tokens

    if revoke:
        gone = revoke_tokens(tokens, name)
        if not gone:
            raise MammoseekError(tokens, f"holds no token of {name}", "look into it for the names")
        say(f"{gone} tokens of {name} are taken away.")
        return
    check_output(tokens)
    token = make_token(tokens, name, role)
    say(f"The token of {name} ({role}). Hand it over by a way that you trust: it can't be shown again.")
    typer.echo(token)


@verdicts_app.command("show")
def verdicts_show(
    state: StateFolder,
    study: Annotated[str | None, typer.Option(help="Only this study, by its id on the page.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the verdicts, oldest first, with those that were taken back; a running server is not disturbed.

    \b
    Examples:
      mammoseek verdicts show ~/.local/state/mammoseek/gallery-0123abcd
      mammoseek verdicts show STATE --study 0123456789abcdef --json
    """
    from viewer.verdicts import read_verdicts

    found = [one for one in read_verdicts(_records(state, "verdicts")) if study in (None, one.study)]
    if as_json:
        print_json([one.to_dict() for one in found])
        return
    columns = ("id", "time", "user", "study", "image", "BI-RADS", "decision", "undone by", "text")
    cells = [
        (one.id, one.time, one.user, one.study, one.image, one.birads, one.decision, one.undone_by, one.text or None)
        for one in found
    ]
    print_table(columns, cells, f"{len(found)} verdicts")


@verdicts_app.command("export")
def verdicts_export(
    state: StateFolder,
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file to write.")],
    study: Annotated[str | None, typer.Option(help="Only this study, by its id on the page.")] = None,
) -> None:
    """Write the verdicts as CSV; a running server is not disturbed.

    \b
    Examples:
      mammoseek verdicts export STATE -o verdicts.csv
    """
    from index.durable import write_whole
    from viewer.verdicts import read_verdicts, to_csv

    check_output(output)
    found = [one for one in read_verdicts(_records(state, "verdicts")) if study in (None, one.study)]
    write_whole(output, to_csv(found).encode())
    say(f"{len(found)} verdicts in {output}")


@audit_app.command("verify")
def audit_verify(
    state: StateFolder,
    head: Annotated[
        list[str] | None,
        typer.Option("--head", help="A digest that was kept elsewhere: it must be in a chain. Repeatable."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify audit log and verdicts: that no line was changed, moved, put in or taken out.

    Prints the digest of the newest record of each. Keep them elsewhere: given as --head later on, they show that the
    chains were not made anew and that nothing was taken off their ends. The first line that is not what was written is
    said, and the exit status is 1.

    \b
    Examples:
      mammoseek audit verify ~/.local/state/mammoseek/gallery-0123abcd
      mammoseek audit verify STATE --head 3f5a…
    """
    from viewer.chain import verify

    wanted = set(head or ())
    found, problems = {}, []
    for name in ("audit", "verdicts"):
        digests: set[str] = set()
        path = _records(state, name)
        told = verify(path, name, lambda record, seen=digests: seen.add(record.digest))  # type: ignore[misc]
        wanted -= digests
        found[name] = {
            "records": told.records,
            "head": told.head,
            "broken_line": told.broken,
            "unfinished_bytes": 0 if told.torn is None else len(told.torn.data),
        }
        if told.broken is not None:
            problems.append((path.name, f"line {told.broken}: {told.cause}"))
    problems += [
        (digest, "is in neither chain: records were taken out, or the chain was made anew") for digest in wanted
    ]
    if as_json:
        print_json({"chains": found, "problems": [list(one) for one in problems]})
    else:
        cells = [(name, *told.values()) for name, told in found.items()]
        print_table(("chain", "records", "head", "broken line", "unfinished bytes"), cells)
    for name, cause in problems:
        say(f"{name}: {cause}")
    if problems:
        raise typer.Exit(EXIT_FAILED)


@audit_app.command("show")
def audit_show(
    state: StateFolder,
    last: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many of the newest entries.")] = 50,
    action: Annotated[str | None, typer.Option(help="Only this action, such as `opinion`.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the newest entries of the audit log, oldest of them first; a running server is not disturbed.

    \b
    Examples:
      mammoseek audit show STATE --action opinion
      mammoseek audit show STATE --user anna --last 1000 --json
    """
    from collections import deque

    from viewer.chain import verify

    kept: deque[Record] = deque(maxlen=last)

    def take(record: "Record") -> None:
        if action in (None, record.entry.get("action")) and user in (None, record.entry.get("user")):
            kept.append(record)

    told = verify(_records(state, "audit"), "audit", take)
    if as_json:
        print_json([{"number": one.number, "time": one.time, **one.entry} for one in kept])
    else:
        cells = []
        for one in kept:
            rest = {name: value for name, value in one.entry.items() if name not in ("action", "user", "role")}
            cells.append((one.number, one.time, one.entry.get("user"), one.entry.get("action"), _short(rest)))
        print_table(("number", "time", "user", "action", "of"), cells, f"{told.records} entries in all")
    if told.broken is not None:
        report_failures([("audit log", f"line {told.broken}: {told.cause}")], "chains")


def _short(facts: dict[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True)
    return text if len(text) <= 160 else text[:159] + "…"


def _records(state: Path, name: str) -> Path:
    from viewer.records import records_of

    if not state.is_dir():
        raise MammoseekError(state, "is no folder", "name the state folder that `mammoseek serve` says")
    files = records_of(state)
    if not any(path.exists() for path in files.values()):
        raise MammoseekError(state, "holds no records of a server", "name the state folder that `mammoseek serve` says")
    return files[name]
