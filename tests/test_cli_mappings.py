"""The commands about mapping files: check, translate and send."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from relay.cli import main
from relay.cli import relay as command
from relay.signature import Scheme, verify
from tests.mapping_files import HEAD, acme, flag

MAPPING = acme(
    f"""
- name: flag
  when:
    $headers["x-kind"]: flag
  component: ${{ component(.team) }}
  event: {flag("${ .id }")}
- name: quiet
  when: {{.quiet: true}}
  ignore: quiet — as ${{ $settings.word }}
- name: broken
  when: {{.broken: true}}
  ignore: ${{ error("it broke") }}
""",
    "settings: {word: {env: ACME_WORD, default: on}}\n",
)
EXAMPLE = "body: {quiet: true}\nexpect: {status: ignored}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one source, `acme`, and one example."""
    return lay(tmp_path, {"acme.yaml": MAPPING, "examples/acme/quiet.yaml": EXAMPLE})


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def run(*arguments: str, folder: Path, stdin: str | bytes = "", **environ: str) -> Result:
    """A command in this process, with what it prints and its exit code."""
    return CliRunner().invoke(command, arguments, input=stdin, env={"RELAY_MAPPINGS": str(folder), **environ})


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: object
    stdout: str
    stderr: str


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a command with everything that stands around it: the one function that the shell calls."""

    def run_main(*arguments: str, folder: Path, stdin: bytes = b"") -> Done:
        monkeypatch.setenv("RELAY_MAPPINGS", str(folder))
        monkeypatch.setattr(sys, "argv", ["relay", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, *capsys.readouterr())

    return run_main


# -- check -----------------------------------------------------------------------------------------


def test_check_of_a_right_folder_says_what_it_has_looked_at(folder):
    result = run("check", folder=folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.split() == ["source", "examples", "failed", "acme", "1", "0"]


def test_check_looks_at_the_folder_that_it_is_given(folder, tmp_path):
    result = run("check", str(folder), folder=tmp_path / "elsewhere")
    assert result.exit_code == 0


def test_check_tells_every_fault_on_a_line_of_its_own_and_fails(tmp_path):
    folder = lay(tmp_path, {"a.yaml": f"{HEAD}rules: []", "b.yaml": "source: ["})
    result = run("check", folder=folder)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{folder}/a.yaml:3: rules: [] should be non-empty",
        f"{folder}/b.yaml:1: not YAML: expected the node content, but found '<stream end>'",
    ]


def test_check_tells_the_faults_of_examples_and_counts_them(folder):
    lay(folder, {"examples/acme/loud.yaml": "body: {quiet: true}\nexpect:\n  status: translated\n"})
    result = run("check", folder=folder)
    assert result.exit_code == 1
    assert result.stdout == (
        f'{folder}/examples/acme/loud.yaml:3: expect.status: expected "translated", got "ignored"\n'
    )
    assert result.stderr.split() == ["source", "examples", "failed", "acme", "2", "1"]


def test_check_as_json_is_for_scripts(folder):
    result = run("check", "--json", folder=folder)
    assert json.loads(result.stdout) == {"folder": str(folder), "sources": ["acme"], "examples": 1, "faults": []}
    lay(folder, {"acme.yaml": f"{HEAD}rules: [{{name: r, when: .a., ignore: x}}]"})
    result = run("check", "--json", folder=folder)
    (fault,) = json.loads(result.stdout)["faults"]
    assert result.exit_code == 1
    assert (fault["file"], fault["line"], fault["path"]) == (str(folder / "acme.yaml"), 3, "rules[0].when")
    assert fault["reason"].startswith("jq: ")


def test_check_takes_settings_from_the_environment(folder):
    lay(folder, {"acme.yaml": MAPPING.replace("default: on", "default: on, one_of: [on, off]")})
    assert run("check", folder=folder, ACME_WORD="off").exit_code == 0
    result = run("check", folder=folder, ACME_WORD="maybe")
    assert (result.exit_code, result.stdout) == (1, "ACME_WORD: must be one of on, off; 'maybe' is not\n")


def test_check_of_a_folder_that_is_not_there_fails(tmp_path):
    result = run("check", folder=tmp_path / "none")
    assert result.exit_code == 1
    assert "is not a folder; RELAY_MAPPINGS names the folder of mapping files" in result.stdout


# -- translate -------------------------------------------------------------------------------------

FLAG = json.loads(flag("7"))
FLAG["flag"]["flagProperties"] = {"id": "7"}

TRANSLATED: list[tuple[Any, list[str], dict[str, Any]]] = [
    (
        {"id": 7},
        ["-H", "X-Kind: flag"],
        {"status": "translated", "rule": "flag", "events": [{"type": "flag", "event": FLAG, "component": None}]},
    ),
    ({"quiet": True}, [], {"status": "ignored", "rule": "quiet", "reason": "quiet — as on", "events": []}),
    ({"id": 7}, [], {"status": "unmatched", "rule": None, "events": []}),
    (
        {"broken": True},
        ["--header", "x-other:y"],
        {"status": "failed", "rule": "broken", "field": "ignore", "reason": "it broke", "events": []},
    ),
]


@pytest.mark.parametrize(("body", "headers", "expected"), TRANSLATED)
def test_translate_prints_what_a_body_becomes(folder, tmp_path, body, headers, expected):
    (tmp_path / "body.json").write_text(json.dumps(body))
    from_file = run("translate", "acme", str(tmp_path / "body.json"), *headers, folder=folder)
    from_stdin = run("translate", "acme", "-", *headers, folder=folder, stdin=json.dumps(body))
    assert (from_file.exit_code, from_stdin.exit_code) == (0, 0)
    assert json.loads(from_file.stdout) == json.loads(from_stdin.stdout) == expected
    assert from_file.stderr == ""


def test_translate_says_which_component(folder):
    lay(folder, {"components.yaml": "acme: {shop: [c1, c2]}"})
    for team, expected in {"shop": ["c1", "c2"], "bar": [None]}.items():
        body = json.dumps({"id": 7, "team": team})
        events = json.loads(run("translate", "acme", "-", "-H", "x-kind: flag", folder=folder, stdin=body).stdout)[
            "events"
        ]
        assert [event["component"] for event in events] == expected
        assert [event.get("unrouted") for event in events] == ([None, None] if team == "shop" else ["bar"])


EXITS: list[tuple[list[str], bytes, int, str]] = [
    (["translate", "acme", "-"], b'{"quiet": true}', 0, ""),
    (["translate", "acme", "-"], b"{", 65, "relay: the body is not one JSON value: "),
    (["translate", "acme", "-"], b'"\xff"', 65, "relay: the body is not UTF-8: byte 1 is wrong"),
    (["translate", "nobody", "-"], b"{}", 66, "relay: no mapping file is for the source 'nobody'; there are acme"),
    (["translate", "acme", "nosuch.json"], b"", 64, "Error: Invalid value for 'FILE': 'nosuch.json': No such file"),
    (
        ["translate", "acme", "-", "-H", "no colon"],
        b"{}",
        64,
        "Error: a header is written 'Name: value'; 'no colon' is not",
    ),
    (["check"], b"", 0, ""),
]


@pytest.mark.parametrize(("arguments", "stdin", "code", "words"), EXITS)
def test_the_exit_code_says_what_kind_of_mistake_it_was(folder, shell, arguments, stdin, code, words):
    done = shell(*arguments, folder=folder, stdin=stdin)
    assert done.code == code, done
    assert words in done.stderr
    assert code == 0 or done.stdout == ""


def test_a_folder_that_is_not_right_stops_every_other_command(tmp_path, shell):
    done = shell("translate", "acme", "-", folder=lay(tmp_path, {"a.yaml": f"{HEAD}rules: []"}), stdin=b"{}")
    assert done == Done(78, "", f"relay: {tmp_path}/a.yaml:3: rules: [] should be non-empty\n")


def test_the_command_is_there_for_the_shell(folder):
    environ = {**os.environ, "RELAY_MAPPINGS": str(folder)}
    arguments = [sys.executable, "-m", "relay", "translate", "acme", "-"]
    done = subprocess.run(arguments, input=b"{", capture_output=True, env=environ, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (65, b"")


# -- send ------------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    """Takes requests down and answers 202, or 401 at another path."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.taken.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))  # type: ignore[attr-defined]
        answer = b'{"webhook": 1}\n'
        self.send_response(202 if self.path == "/webhooks/acme" else 401)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as running:
        running.taken = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_send_signs_the_bytes_of_the_file_as_the_vendor_would(folder, tmp_path, server):
    raw = b'{"id":  7}\n'
    (tmp_path / "body.json").write_bytes(raw)
    url = f"http://127.0.0.1:{server.server_port}/"
    arguments = ("send", "acme", str(tmp_path / "body.json"), "--to", url, "-H", "X-Kind: flag")
    result = run(*arguments, folder=folder, ACME_WEBHOOK_SECRET="new,old")
    assert (result.exit_code, result.stdout, result.stderr) == (0, '{"webhook": 1}\n', "")
    ((path, headers, body),) = server.taken
    assert (path, body) == ("/webhooks/acme", raw)
    assert (headers["content-type"], headers["x-kind"]) == ("application/json", "flag")
    assert verify(Scheme("X-Acme-Signature", "{hex}"), headers=headers, body=body, secrets=["new"]).body == raw


def test_send_without_a_secret_says_that_it_does_not_sign(folder, server):
    url = f"http://127.0.0.1:{server.server_port}"
    result = run("send", "acme", "-", "--to", url, folder=folder, stdin="{}", ACME_WEBHOOK_SECRET="")
    assert result.exit_code == 0
    assert result.stderr == "relay: ACME_WEBHOOK_SECRET is not set, so this is sent without a signature\n"
    assert "x-acme-signature" not in server.taken[0][1]


def test_send_goes_to_the_relay_on_this_machine_and_fails_when_it_is_refused(folder, server):
    lay(folder, {"b.yaml": MAPPING.replace("source: acme", "source: b").replace("ACME_", "B_")})
    port = str(server.server_port)
    assert run("send", "acme", "-", folder=folder, stdin="{}", PORT=port).exit_code == 0
    refused = run("send", "b", "-", folder=folder, stdin="{}", PORT=port)
    assert (refused.exit_code, refused.stdout) == (1, '{"webhook": 1}\n')


def test_send_to_nobody_says_so(folder, server, shell):
    server.shutdown()
    server.server_close()
    url = f"http://127.0.0.1:{server.server_port}"
    done = shell("send", "acme", "-", "--to", url, folder=folder, stdin=b"{}")
    assert done.code == 69
    assert f"relay: {url}/webhooks/acme does not answer: " in done.stderr
