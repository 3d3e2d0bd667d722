"""Documentation that cannot rot: what there is, is documented."""

import re
from pathlib import Path

import click
import pytest

from relay.cli import relay
from relay.mapping import load_mappings
from relay.mapping.expressions import PRELUDE
from relay.settings import variables
from relay.telemetry import DestinationGauges, counter_metrics, outbox_metrics, render
from tests.running import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAPPINGS = (ROOT / "docs" / "mappings.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def _commands(group: click.Group, prefix: str = "") -> list[str]:
    names = []
    for name, command in group.commands.items():
        inner = _commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else []
        names += (
            [f"{prefix}{name}", *inner] if not inner or getattr(command, "invoke_without_command", False) else inner
        )
    return names


@pytest.mark.parametrize(("name", "sentence"), variables().items())
def test_every_setting_stands_in_the_readme_with_its_sentence(name, sentence):
    row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
    assert sentence in row


def test_the_readme_names_no_setting_that_is_not_there():
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    sources = load_mappings(ROOT / "mappings", environ={}).values()
    known = {setting.env for mapping in sources for setting in mapping.settings}
    assert named == set(variables()) | known


@pytest.mark.parametrize("command", _commands(relay))
def test_every_command_stands_in_the_readme(command):
    assert f"`relay {command}" in README


def test_the_readme_names_no_command_that_is_not_there():
    for named in re.findall(r"`relay ([a-z]+)", README):
        assert named in relay.commands


def test_every_command_explains_itself():
    def check(command: click.Command) -> None:
        assert command.help, command.name
        for one in getattr(command, "commands", {}).values():
            check(one)

    check(relay)


def test_every_setting_and_secret_of_the_mapping_files_stands_in_the_readme():
    for mapping in load_mappings(ROOT / "mappings", environ={}).values():
        assert f"`{mapping.secret}`" in README
        assert f"/webhooks/{mapping.source}`" in README
        for setting in mapping.settings:
            row = next(line for line in README.splitlines() if line.startswith(f"| `{setting.env}`"))
            assert setting.about.rstrip(".") in row


def test_every_function_for_mapping_files_is_documented():
    offered = PRELUDE[PRELUDE.index("-- offered") : PRELUDE.index("-- used by the compiler")]
    for name in re.findall(r"^def (\w+)", offered, re.MULTILINE):
        assert f"`{name}" in MAPPINGS, name


def test_every_metric_is_documented():
    gauges = DestinationGauges("open", ["open"], {("pending", "low"): 1}, 0, 0, 1, 0, 0)
    text = render([*counter_metrics({}), *outbox_metrics({"compass": gauges})]).decode()
    names = {name for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if not name.endswith("_created")}
    assert len(names) > 8
    for name in names:
        assert f"`{name}`" in OPERATIONS, name


def test_every_log_word_is_documented():
    words = set()
    for path in Path(ROOT / "relay").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        words |= set(re.findall(r'\b(?:log|tell|level)(?:\.(?:info|warning|error|exception))?\(\s*"([a-z_.]+)"', text))
    assert {"attempt", "webhook.received"} <= words
    for word in words:
        assert f"`{word}`" in OPERATIONS, word


def test_the_mapping_of_the_readme_is_valid(tmp_path):
    """What people copy must work."""
    block = re.search(r"```yaml\n(source: acme\n.*?)```", README, re.DOTALL)
    assert block is not None
    (tmp_path / "acme.yaml").write_text(block[1], encoding="utf-8")
    assert set(load_mappings(tmp_path, environ={})) == {"acme"}


def test_the_mapping_of_the_manual_is_valid(tmp_path):
    block = re.search(r"```yaml\n(source: acme .*?)```", MAPPINGS, re.DOTALL)
    assert block is not None
    (tmp_path / "acme.yaml").write_text(block[1], encoding="utf-8")
    assert set(load_mappings(tmp_path, environ={})) == {"acme"}
