"""What a Heroku-style platform reads, sets and expects; and what those who watch the relay read."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest
import requests
import yaml
from packaging.requirements import Requirement

from relay.dispatch.policy import Delivered
from relay.mapping import load_mappings
from relay.model import Translated
from relay.outbox import CONNECTIONS, claims
from relay.outbox.migrations import migrate
from relay.runtime import assemble, gauges, load, warnings
from relay.settings import NEEDED_TO_DELIVER, load_settings, variables
from relay.telemetry import DestinationGauges, counter_metrics, outbox_metrics, render
from tests.outboxes import REFUSED, event, send, store
from tests.pins import direct, needed, normal
from tests.running import ROOT, SECRET, environment, eventually, free_port, process, serving

MAPPINGS = load_mappings(ROOT / "mappings", environ={})
PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())
APP = json.loads((ROOT / "app.json").read_text())
LINES = (ROOT / "requirements.txt").read_text().splitlines()
PINS = dict(line.split("==") for line in LINES if re.match(r"\w", line))
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
GIVEN_BY_THE_PLATFORM = {"PORT", "DATABASE_URL"}


# --- the files


def test_the_procfile_names_release_web_and_worker():
    assert PROCFILE == {
        "release": "relay check && relay migrate",
        "web": "relay serve",
        "worker": "relay worker",
    }


def test_the_python_version_is_one_that_the_relay_runs_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = Requirement(f"python {project['requires-python']}")
    assert asked.specifier.contains((ROOT / ".python-version").read_text().strip())


def test_app_json_describes_every_setting_in_the_relays_own_words():
    described = {name: entry["description"] for name, entry in APP["env"].items()}
    ours = {name: words for name, words in variables().items() if name not in GIVEN_BY_THE_PLATFORM}
    assert {name: described.get(name) for name in ours} == ours


def test_app_json_asks_for_what_is_needed_and_for_nothing_that_is_not_there():
    theirs = {setting.env for mapping in MAPPINGS.values() for setting in mapping.settings}
    secrets = {mapping.secret for mapping in MAPPINGS.values()}
    assert set(APP["env"]) <= set(variables()) - GIVEN_BY_THE_PLATFORM | theirs | secrets
    assert theirs <= set(APP["env"])
    required = {name for name, entry in APP["env"].items() if entry.get("required", True) and "generator" not in entry}
    assert required == set(NEEDED_TO_DELIVER)
    assert set(APP["formation"]) == set(PROCFILE) - {"release"}


def test_requirements_pin_everything_that_pyproject_asks_for():
    for requirement in direct():
        assert requirement.specifier.contains(PINS[normal(requirement.name)]), requirement


def test_requirements_pin_what_the_pinned_packages_need():
    """Of those that are installed as pinned; others may need something else by now."""
    for name, pinned in PINS.items():
        extras = next((one.extras for one in direct() if normal(one.name) == name), set())
        with_extras = Requirement(name + (f"[{','.join(extras)}]" if extras else ""))
        try:
            if version(name) != pinned:
                continue
        except PackageNotFoundError:
            continue
        for line in needed(with_extras):
            requirement = Requirement(line)
            assert requirement.specifier.contains(PINS[normal(requirement.name)]), f"{name} needs {line}"


WITH_NOTHING_ELSE = """
import sys
from importlib.metadata import packages_distributions
from tests.pins import normal

PINS = set(sys.argv[1].split(","))
OTHERS = {
    package
    for package, distributions in packages_distributions().items()
    if not {normal(name) for name in distributions} & PINS and package not in {"relay", "tests"}
}


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(name)


for name in [name for name in sys.modules if name.partition(".")[0] in OTHERS]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
import relay.cli
"""


def test_the_relay_starts_with_nothing_installed_but_what_is_pinned():
    """The packages that only the tests need are hidden from it."""
    pinned = ",".join(normal(name) for name in PINS)
    done = subprocess.run(
        [sys.executable, "-c", WITH_NOTHING_ELSE, pinned], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_requirements_name_no_index_and_install_the_relay_itself():
    unknown = [line for line in LINES if not re.fullmatch(r"#.*|[a-z0-9-]+==[\w.]+", line)]
    assert unknown == ["."]


# --- what is watched


def _metrics() -> set[str]:
    gauges = DestinationGauges("open", ["open"], {("pending", "low"): 1}, 0, 0, 1, 0, 0)
    text = render([*counter_metrics({}), *outbox_metrics({"compass": gauges})]).decode()
    return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))


def _named(expressions: list[str]) -> set[str]:
    found = {name for expression in expressions for name in re.findall(r"\brelay_\w+", expression)}
    return {re.sub(r"^(relay_intake_seconds)_bucket$", r"\1", name) for name in found}


def _alerts() -> list[dict[str, object]]:
    block = re.search(r"```yaml\n(groups:\n.*?)```", OPERATIONS, re.DOTALL)
    assert block is not None
    rules: list[dict[str, object]] = yaml.safe_load(block[1])["groups"][0]["rules"]
    return rules


def test_every_metric_is_on_the_dashboard_and_nothing_that_is_no_metric():
    shown = _named([target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]])
    assert shown == _metrics()


def test_the_panels_of_the_dashboard_lie_beside_each_other():
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in DASHBOARD["panels"]]
    cells = [(x + dx, y + dy) for x, y, w, h in places for dx in range(w) for dy in range(h)]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_the_alerts_speak_of_metrics_that_there_are_and_of_all_but_the_number_that_waits():
    alerts = _alerts()
    assert _named([str(alert["expr"]) for alert in alerts]) == _metrics() - {"relay_forecast_requests"}
    assert all(alert["annotations"] for alert in alerts)


def test_the_words_in_the_alerts_are_words_that_the_relay_counts():
    """A label's value that is never told would make an alert that never fires."""
    text = " ".join(path.read_text() for path in (ROOT / "relay").rglob("*.py"))
    for alert in _alerts():
        for value in re.findall(r'(?:status|outcome|state)="(\w+)"', str(alert["expr"])):
            assert f'"{value}"' in text, value


def test_the_connections_in_the_manual_are_those_that_are_opened_and_fit_a_small_plan():
    """A process that delivers listens on one more."""
    web, beside, worker = (int(most) for most in re.findall(r"\| at most (\d+) \|", OPERATIONS))
    assert (web, beside, worker) == (CONNECTIONS, CONNECTIONS + 1, CONNECTIONS + 1)
    assert 3 * 2 * web + 2 * worker < 20


# --- how it runs there


def test_sqlite_on_a_disk_that_does_not_last_is_warned_about():
    def said(**environ: str) -> str:
        return "\n".join(warnings(load_settings(environ), {}))

    assert "DATABASE_URL" in said(DYNO="web.1")
    assert said() == ""
    assert said(DYNO="web.1", DATABASE_URL="postgres://u:p@h/d") == ""


@pytest.fixture
def env(tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    return environment(f"sqlite:///{tmp_path}/relay.db", compass_url=nobody, port=free_port(), DYNO="web.1")


def test_what_is_told_of_a_destination_is_what_the_outbox_holds(env):
    relay = assemble(*load(env, delivers=True))
    migrate(relay.outbox)
    store(relay.outbox, Translated("incident", (event("a"), event("b", order=1), event("b", order=2), event("c"))))
    assert gauges(relay)["compass"].slots_free == 100
    send(relay.outbox, [Delivered(), REFUSED])
    told = gauges(relay)["compass"]
    assert (told.state, told.slots_held, told.slots_free) == ("open", 2, 98)
    assert told.events == {("pending", "normal"): 1, ("dead", "normal"): 1}
    assert told.forecast_requests == 1
    assert told.forecast_seconds < 1
    with relay.outbox.write() as connection:
        connection.exec_driver_sql("UPDATE events SET created_at = created_at - 90000 WHERE status = 'pending'")
    claims.pause(relay.outbox, "compass")
    told = gauges(relay)["compass"]
    assert told.state == "paused"
    assert 90 <= told.oldest_pending_seconds < 120
    relay.outbox.close()


def test_a_request_keeps_the_routers_id_in_its_answer_and_in_every_line(tmp_path, env):
    url = f"http://127.0.0.1:{env['PORT']}"
    with serving(env, tmp_path / "log") as relay:
        kept = requests.post(f"{url}/webhooks/pagerduty", data="{}", headers={"X-Request-ID": "r-1"}, timeout=10)
        made = [requests.get(f"{url}/nothing", timeout=10).headers["X-Request-ID"] for _ in range(2)]
        bad = requests.get(f"{url}/healthz", headers={"X-Request-ID": 'a"b c' + "x" * 300}, timeout=10)
        relay.terminate()
        lines = [json.loads(line) for line in relay.printed().splitlines()]
    assert (kept.status_code, kept.headers["X-Request-ID"]) == (401, "r-1")
    assert all(re.fullmatch(r"[0-9a-f]{32}", name) for name in (*made, bad.headers["X-Request-ID"]))
    assert made[0] != made[1]
    assert [line["event"] for line in lines if line.get("request_id") == "r-1"] == ["webhook.refused"]
    assert "request_id" not in next(line for line in lines if line["event"] == "dispatcher.stopped")
    assert any(line["event"] == "start.warning" and "SQLite" in line["message"] for line in lines)


def test_a_worker_needs_no_port_and_delivers_whatever_the_web_processes_are_told(tmp_path, env):
    del env["PORT"]
    with process("worker", env={**env, "RELAY_DISPATCHER": "off"}, log=tmp_path / "log") as worker:
        eventually(lambda: "dispatcher.started" in worker.printed())
        assert worker.terminate() == 0


def test_a_worker_names_only_what_is_missing(tmp_path, env):
    del env["COMPASS_EMAIL"]
    with process("worker", env={**env, "RELAY_DISPATCHER": "off"}, log=tmp_path / "log") as worker:
        assert worker.popen.wait(30) == 78
        assert worker.printed().strip() == "relay: COMPASS_EMAIL: is not set"


def test_the_databases_password_is_masked_in_the_log(tmp_path, env):
    env["DATABASE_URL"] = f"postgres://relay:{SECRET}@127.0.0.1:{free_port()}/relay"
    with process("serve", env=env, log=tmp_path / "log") as relay:
        assert relay.popen.wait(30) == 69
        assert "does not answer" in relay.printed()
        assert SECRET not in relay.printed()
