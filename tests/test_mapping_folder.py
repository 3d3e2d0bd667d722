"""A folder of mapping files is read as a whole, and every fault of every file is told at once."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from relay.errors import MappingError
from relay.intake import Intake, receive
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.model import Arrival, Receipt, Translated
from relay.signature import sign
from tests.mapping_files import FLAG, HEAD, acme, shown

ROOT = Path(__file__).parents[1]
IGNORING = acme("- {name: r, ignore: x}")


def lay(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def faults_of(folder: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The faults, with the folder's own path left out."""
    with pytest.raises(MappingError) as raised:
        load_mappings(folder, environ=environ or {})
    assert str(raised.value) == "\n".join(map(str, raised.value.faults))
    return [str(fault).replace(f"{folder}/", "").replace(str(folder), "FOLDER") for fault in raised.value.faults]


def test_a_file_that_is_dropped_in_is_a_source(tmp_path):
    text = acme(f'- name: switched\n  when:\n    $headers["x-kind"]: flag\n  event: {FLAG}')
    mappings = load_mappings(lay(tmp_path, {"dropped.yaml": text}), environ={})
    stored: list[Arrival] = []

    def store(arrival: Arrival) -> Receipt:
        stored.append(arrival)
        return Receipt(1, arrival.translation.status, None, ())

    body = b'{"id": "dark-mode"}'
    signature = sign(mappings["acme"].scheme, body=body, secret="s")
    headers = {"content-type": "application/json", "x-acme-signature": signature, "x-kind": "flag", "x-other": "y"}
    intake = Intake(mappings, {"acme": ("s",)}, frozenset(), store)
    receive(intake, source="acme", headers=headers, raw=body, now=7)
    (arrival,) = stored
    assert isinstance(arrival.translation, Translated)
    assert arrival.translation.events[0].body["flag"]["flagProperties"] == {"id": "dark-mode"}
    assert arrival.headers == {"x-kind": "flag"}
    assert arrival.mapping == mappings["acme"].digest


def test_every_fault_of_every_file_is_told_at_once_file_by_file(tmp_path):
    files = {
        "a.yaml": acme("- {name: r, ignore: '${ nosuch }'}"),
        "b.yaml": "source: [",
        "c.yaml": acme("- {name: r, ignore: x}\n- {name: s, ignore: y}").replace("acme", "other"),
        "d.yaml": acme("- {name: r, ignore: x}", "settings: {a: {env: SHOP_A, default: x, one_of: [x]}}\n").replace(
            "acme", "shop"
        ),
        "e.yml": acme("- {name: r, ignore: x, when: '$ENV['}\n- {name: s, ignore: x, when: '${'}"),
        "f.yaml": "",
        "components.yaml": "other: {key: ''}\nacme: 7\n",
    }
    assert faults_of(lay(tmp_path, files), {"SHOP_A": "z"}) == [
        "a.yaml:4: rules[0].ignore: jq: nosuch/0 is not defined",
        "b.yaml:1: not YAML: expected the node content, but found '<stream end>'",
        "c.yaml:5: rules[1]: is never reached: the rule 'r' above matches all of it",
        "components.yaml:1: other.key: '' should be non-empty",
        "components.yaml:2: acme: 7 is not of type 'object', 'null'",
        "e.yml:1: source: a.yaml is for the source 'acme' already",
        "e.yml:4: rules[0].when: jq: syntax error, unexpected end of file",
        "e.yml:5: rules[1].when: '${' has no closing '}'",
        "f.yaml: None is not of type 'object'",
        "SHOP_A: must be one of x; 'z' is not",
    ]


def test_one_source_has_one_file(tmp_path):
    files = {"a.yaml": IGNORING, "b.yaml": IGNORING, "c.yaml": IGNORING.replace("rules:", "nothing:")}
    assert faults_of(lay(tmp_path, files)) == [
        "b.yaml:1: source: a.yaml is for the source 'acme' already",
        "c.yaml:1: 'rules' is a required property",
        "c.yaml:1: Additional properties are not allowed ('nothing' was unexpected)",
        "c.yaml:1: source: a.yaml is for the source 'acme' already",
    ]


@pytest.mark.parametrize("source", ["7", "[a]", "{a: b}", "null", "''"])
def test_a_source_of_no_sensible_name_is_a_fault_and_no_more(tmp_path, source):
    text = IGNORING.replace("source: acme", f"source: {source}")
    faults = faults_of(lay(tmp_path, {"a.yaml": text, "b.yaml": text, "components.yaml": "acme: {}"}))
    assert [fault.partition(":")[0] for fault in faults] == ["a.yaml", "b.yaml", "components.yaml"]


def test_a_folder_that_is_none_or_holds_nothing_says_so(tmp_path):
    assert faults_of(tmp_path) == ["FOLDER: holds no mapping file (*.yaml)"]
    assert faults_of(tmp_path / "none") == ["FOLDER: is not a folder; RELAY_MAPPINGS names the folder of mapping files"]
    (tmp_path / "file.yaml").write_text(IGNORING)
    assert faults_of(tmp_path / "file.yaml") == [
        "FOLDER: is not a folder; RELAY_MAPPINGS names the folder of mapping files"
    ]


def test_a_folder_with_components_alone_holds_no_mapping_file(tmp_path):
    assert faults_of(lay(tmp_path, {"components.yaml": "acme: {}"})) == [
        "FOLDER: holds no mapping file (*.yaml)",
    ]


def test_what_is_no_yaml_file_of_the_folder_itself_is_not_looked_at(tmp_path):
    files = {"a.yml": IGNORING, "README.md": "[", "b.json": "[", "examples/acme/x.yaml": "[", "c.yaml.bak": "["}
    assert set(load_mappings(lay(tmp_path, files), environ={})) == {"acme"}


def test_a_folder_or_a_broken_link_with_a_files_name_is_a_fault(tmp_path):
    (lay(tmp_path, {"a.yaml": IGNORING}) / "b.yaml").mkdir()
    (tmp_path / "c.yaml").symlink_to(tmp_path / "nowhere")
    assert [fault.partition("[")[0] for fault in faults_of(tmp_path)] == [
        "b.yaml: cannot be read: ",
        "c.yaml: cannot be read: ",
    ]


ROUTED = acme(f"- name: r\n  component: ${{ component(.service) }}\n  event: {FLAG}")


@pytest.mark.parametrize(
    ("components", "event"),
    [
        (None, {"component": None}),
        ("", {"component": None, "unrouted": "shop"}),
        ("acme:", {"component": None, "unrouted": "shop"}),
        ("acme: {other: c}", {"component": None, "unrouted": "shop"}),
        ("acme: {shop: c}", {"component": "c"}),
        ("acme: {shop: [c]}", {"component": "c"}),
        ("acme: {'shop': c, 7: d}", {"component": "c"}),
    ],
)
def test_events_are_routed_once_there_is_a_file_of_components(tmp_path, components, event):
    files = {"a.yaml": ROUTED} if components is None else {"a.yaml": ROUTED, "components.yaml": components}
    mapping = load_mappings(lay(tmp_path, files), environ={})["acme"]
    (made,) = shown(mapping, {"id": "1", "service": "shop"})["events"]
    assert {name: made[name] for name in made if name in ("component", "unrouted")} == event


def test_components_of_a_source_that_is_not_there_are_a_fault_unless_its_file_cannot_be_read(tmp_path):
    files = {"a.yaml": IGNORING, "components.yaml": "acme: {}\nshop: {}"}
    assert faults_of(lay(tmp_path, files)) == ["components.yaml:2: shop: no mapping file is for the source 'shop'"]
    assert [fault.partition(":")[0] for fault in faults_of(lay(tmp_path, {"b.yaml": "["}))] == ["b.yaml"]


def test_components_are_ids_or_lists_of_ids(tmp_path):
    components = "acme:\n  a: ''\n  b: []\n  c: [x, x]\n  d: {}\n  e: 7\n  f: ['']\n  g: null\n"
    assert faults_of(lay(tmp_path, {"a.yaml": IGNORING, "components.yaml": components})) == [
        "components.yaml:2: acme.a: '' should be non-empty",
        "components.yaml:3: acme.b: [] should be non-empty",
        "components.yaml:4: acme.c: ['x', 'x'] has non-unique elements",
        "components.yaml:5: acme.d: {} is not of type 'string', 'array'",
        "components.yaml:6: acme.e: 7 is not of type 'string', 'array'",
        "components.yaml:7: acme.f[0]: '' should be non-empty",
        "components.yaml:8: acme.g: None is not of type 'string', 'array'",
    ]


def test_thousands_of_components_are_normal(tmp_path):
    components = "acme:\n" + "".join(f"  service-{n}: [ari:c/{n}, ari:d/{n}]\n" for n in range(3000))
    mapping = load_mappings(lay(tmp_path, {"a.yaml": ROUTED, "components.yaml": components}), environ={})["acme"]
    events = shown(mapping, {"id": "1", "service": "service-2999"})["events"]
    assert [event["component"] for event in events] == ["ari:c/2999", "ari:d/2999"]


def test_the_settings_of_a_file_come_from_the_environment(tmp_path):
    top = "settings: {site: {env: ACME_SITE, default: a}, kinds: {env: ACME_KINDS, default: [x]}}\n"
    folder = lay(tmp_path, {"a.yaml": acme("- {name: r, ignore: '${ $settings | tojson }'}", top)})

    def reason(**environ: str) -> object:
        return json.loads(shown(load_mappings(folder, environ=environ)["acme"], {})["reason"])

    assert reason() == {"site": "a", "kinds": ["x"]}
    assert reason(ACME_SITE=" b ", ACME_KINDS="y, z,,") == {"site": "b", "kinds": ["y", "z"]}
    assert reason(ACME_SITE="  ", ACME_KINDS="") == {"site": "a", "kinds": ["x"]}


def test_the_file_in_the_manual_loads_and_does_what_the_manual_says(tmp_path):
    manual = (ROOT / "docs" / "mappings.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL) if "\nrules:" in block]
    mapping = load_mappings(lay(tmp_path, {"acme.yaml": text}), environ={})["acme"]
    body = {"kind": "incident", "state": "closed", "number": 7, "service": "shop", "severity": "major",
            "link": "incidents/7", "changed_at": 1767225600, "opened_at": "2025-12-31T23:00:00+01:00"}  # fmt: skip
    (event,) = shown(mapping, body)["events"]
    assert event["event"]["incident"]["displayName"] == "Incident 7"
    assert event["event"]["incident"]["url"] == "https://acme.example/incidents/7"
    assert event["event"]["incident"]["incidentProperties"] == {
        "id": "7",
        "state": "RESOLVED",
        "startTime": "2025-12-31T22:00:00Z",
        "severity": {"label": "major", "level": "TWO"},
    }
    assert shown(mapping, {"kind": "test"})["reason"] == "a test, sent by somebody"
    assert mapping.lets_pass_unsigned({"x-acme-event": "ping"}, "{}")
    assert not mapping.lets_pass_unsigned({"x-acme-event": "pong"}, "{}")


def test_every_header_field_and_rule_of_the_bundled_files_loads():
    mappings = load_mappings(ROOT / "mappings", environ={})
    assert all(isinstance(mapping, Mapping) and mapping.source == source for source, mapping in mappings.items())


@pytest.mark.parametrize("name", ["schema.json", "components.schema.json", "example.schema.json"])
def test_the_schemas_that_editors_use_are_valid_schemas(name):
    schema = json.loads((ROOT / "relay" / "mapping" / name).read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=30), st.booleans())
def test_any_bytes_in_a_folder_are_mappings_or_one_typed_error(tmp_path, file, components, headed):
    (tmp_path / "a.yaml").write_bytes(HEAD.encode() + b"rules: [{name: r, ignore: x}]\n" + file if headed else file)
    (tmp_path / "components.yaml").write_bytes(components)
    try:
        assert set(load_mappings(tmp_path, environ={})) == {"acme"}
    except MappingError:
        return
