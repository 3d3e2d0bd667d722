"""Commands about mapping files: check them, try one on a body, send a signed webhook."""

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from relay.destinations.webhook import post_webhook
from relay.errors import MappingError, NotFound
from relay.intake import read_json, secrets_of
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.mapping.examples import Example, describe, run_examples
from relay.model import Webhook
from relay.settings import Settings, load_settings
from relay.translate import translate as translate_webhook

HEADER = click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header of the webhook; may be repeated.",
)


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(folder: Path | None, as_json: bool) -> None:
    """Check a folder of mapping files.

    Schema, jq, contract and examples; every fault is named. Exits 1 on any.
    """
    settings = load_settings()
    folder = folder or settings.mappings_folder
    faults, sources, examples = [], list[str](), list[Example]()
    try:
        sources = sorted(load_mappings(folder, environ=settings.environ))
        examples = list(run_examples(folder))
        faults = [fault for example in examples for fault in example.faults]
    except MappingError as error:
        faults = list(error.faults)
    if as_json:
        listed = [{"file": f.where, "line": f.line, "path": f.path, "reason": f.reason} for f in faults]
        click.echo(json.dumps({"folder": str(folder), "sources": sources, "examples": len(examples), "faults": listed}))
    else:
        for fault in faults:
            click.echo(str(fault))
        if sources:
            _summary(sources, examples)
    sys.exit(1 if faults else 0)


def _summary(sources: list[str], examples: list[Example]) -> None:
    table = Table("source", "examples", "failed", box=None)
    for source in sources:
        mine = [example for example in examples if example.source == source]
        table.add_row(source, str(len(mine)), str(sum(1 for example in mine if example.faults)))
    Console(stderr=True).print(table)


@click.command()
@click.argument("source")
@click.argument("file", type=click.File("rb"))
@HEADER
def translate(source: str, file: click.File, headers: tuple[str, ...]) -> None:
    """Show what a webhook would become.

    Nothing is stored or sent. FILE may be `-`.
    """
    settings = load_settings()
    mapping = _mapping(settings, source)
    raw = file.read()  # type: ignore[attr-defined]
    text, body = read_json(raw)
    webhook = Webhook(source, mapping.kept(_headers(headers)), raw, text, body)
    click.echo(json.dumps(describe(translate_webhook(webhook, mapping)[0]), indent=2, ensure_ascii=False))


@click.command()
@click.argument("source")
@click.argument("file", type=click.File("rb"))
@click.option("--to", "url", default=None, help="The relay's base URL. [default: http://127.0.0.1:PORT]")
@HEADER
def send(source: str, file: click.File, url: str | None, headers: tuple[str, ...]) -> None:
    """Sign a body as its vendor would, and post it.

    With the first secret of the source. FILE may be `-`.
    """
    settings = load_settings()
    mapping = _mapping(settings, source)
    raw = file.read()  # type: ignore[attr-defined]
    secrets = secrets_of({source: mapping}, settings.environ)[source]
    if not secrets:
        click.echo(f"relay: {mapping.secret} is not set, so this is sent without a signature", err=True)
    base = (url or f"http://127.0.0.1:{settings.port}").rstrip("/")
    answer = post_webhook(
        f"{base}/webhooks/{source}",
        scheme=mapping.scheme,
        secret=secrets[0] if secrets else None,
        body=raw,
        headers=_headers(headers),
    )
    click.echo(answer.text.rstrip())
    sys.exit(0 if answer.ok else 1)


def _mapping(settings: Settings, source: str) -> Mapping:
    mappings = load_mappings(settings.mappings_folder, environ=settings.environ)
    if source not in mappings:
        raise NotFound(f"no mapping file is for the source {source!r}; there are {', '.join(sorted(mappings))}")
    return mappings[source]


def _headers(given: tuple[str, ...]) -> dict[str, str]:
    headers = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon:
            raise click.UsageError(f"a header is written 'Name: value'; {line!r} is not")
        headers[name.strip().lower()] = value.strip()
    return headers
