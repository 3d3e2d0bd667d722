"""The command line: `relay <command>`. Data goes to stdout, words for people to stderr, exit codes are sysexits'."""

import sys

import click

from relay.cli.mappings import check, send, translate
from relay.cli.serve import config, demo, migrate_command, sandbox, serve, worker
from relay.cli.show import events, status, webhooks
from relay.cli.upkeep import pause, prune_command, replay, resume
from relay.errors import ConfigError, NotFound, RelayError, RequestError, StoreUnavailable

EX_USAGE, EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE, EX_SOFTWARE, EX_CONFIG = 64, 65, 66, 69, 70, 78


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="compass-relay", prog_name="relay")
def relay() -> None:
    """Webhooks of PagerDuty, LaunchDarkly and Bitbucket in, Compass events out."""


COMMANDS = (
    *(demo, serve, worker, migrate_command, sandbox),
    *(check, translate, send, config),
    *(status, webhooks, events),
    *(replay, prune_command, pause, resume),
)
for command in COMMANDS:
    relay.add_command(command)


def main() -> None:
    """Run the command line, with the relay's own errors told in words and exit codes."""
    try:
        code = relay.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("interrupted", err=True)
        code = 130
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        error.show()
        code = EX_USAGE if isinstance(error, click.UsageError) else error.exit_code
    except RelayError as error:
        click.echo(f"relay: {error}" if "\n" not in str(error) else str(error), err=True)
        code = exit_code(error)
    sys.exit(code)


def exit_code(error: RelayError) -> int:
    """The sysexits code that tells a script what kind of error this was."""
    match error:
        case ConfigError():
            return EX_CONFIG
        case StoreUnavailable():
            return EX_UNAVAILABLE
        case NotFound():
            return EX_NOINPUT
        case RequestError():  # the file that was given is no webhook
            return EX_DATAERR
        case _:
            return EX_SOFTWARE
