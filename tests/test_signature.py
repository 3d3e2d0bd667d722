"""Signatures: the vendors' published vectors, and the promise that `verify` is total."""

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.errors import SignatureError
from relay.signature import (
    MAX_ENTRIES,
    Scheme,
    Verified,
    accept_unsigned,
    check_format,
    sign,
    split_secrets,
    verify,
)

PAGERDUTY = Scheme(header="X-PagerDuty-Signature", format="v1={hex}")
LAUNCHDARKLY = Scheme(header="X-LD-Signature", format="{hex}")
BITBUCKET = Scheme(header="X-Hub-Signature", format="sha256={hex}")
SCHEMES = {scheme.header: scheme for scheme in (PAGERDUTY, LAUNCHDARKLY, BITBUCKET)}
schemes = st.sampled_from([*SCHEMES.values(), Scheme(header="x", format="<{hex}>", algorithm="sha512")])
secrets = st.text(min_size=1)

PING = (
    b'{"event":{"id":"01FKZOXA868SHYEE4DVNWB5P9W","event_type":"pagey.ping","resource_type":"pagey",'
    b'"occurred_at":"2025-04-07T03:00:55.532Z","agent":{"id":"PVE0ZR9","type":"user_reference"},'
    b'"client":null,"data":{"message":"Hello from your friend Pagey!","type":"ping"}}}'
)
PING_SECRET = "HvPtlQNKMPpHSSqJpCdndXfo7HnGXa1pnH6w5axpxLFn9aRBNBGh4e8/HlonK5mz"
PING_HEX = "0e83584cbab86f98c51517cf96a70c90e910532d3d2f067d58c753cc8980a05b"


def check(scheme: Scheme, value: str, *, body: bytes = PING, keys: tuple[str, ...] = (PING_SECRET,)) -> Verified:
    return verify(scheme, headers={scheme.header.lower(): value}, body=body, secrets=keys)


# --- published vectors


def test_pagerduty_delivery_of_a_test_ping() -> None:
    """A real delivery, published with its secret: https://github.com/Aldaviva/PagerDuty."""
    assert check(PAGERDUTY, f"v1={PING_HEX}") == Verified(PING, 0)


def test_bitbucket_documented_vector() -> None:
    """From https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/."""
    value = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9"
    verified = check(BITBUCKET, value, body=b"Hello World!", keys=("It's a Secret to Everybody",))
    assert verified.body == b"Hello World!"


def corpus() -> list[Any]:
    default = Path(__file__).parents[1] / ".." / "shared" / "payloads"
    folder = Path(os.environ.get("RELAY_PAYLOADS", default))
    manifest = folder / "manifest.json"
    if not manifest.exists():
        return []
    entries = json.loads(manifest.read_text("utf-8"))
    return [
        pytest.param(folder / entry["file"], entry["signature"], id=entry["file"])
        for entry in entries
        if "signature" in entry
    ]


@pytest.mark.parametrize(("path", "vector"), corpus())
def test_published_signatures_of_captured_deliveries(path: Path, vector: dict[str, str]) -> None:
    scheme, body = SCHEMES[vector["header"]], path.read_bytes()
    value = scheme.format.replace("{hex}", vector["hex"])
    assert check(scheme, value, body=body, keys=(vector["secret"],)).body == body
    assert sign(scheme, body=body, secret=vector["secret"]) == value
    # The same JSON in another layout is another body: only the raw bytes count.
    with pytest.raises(SignatureError):
        check(scheme, value, body=json.dumps(json.loads(body), indent=1).encode(), keys=(vector["secret"],))


# --- what the header may look like


@pytest.mark.parametrize(
    "value",
    [
        f"v1={PING_HEX.upper()}",
        f"v1={'0' * 64},v1={PING_HEX}",
        f"v1={PING_HEX}, v1={'0' * 64}",
        f" v1={PING_HEX}\t, ",
        f"v2=abc,v0=,,v1={PING_HEX},nonsense",
    ],
)
def test_any_entry_of_the_list_may_fit(value: str) -> None:
    assert check(PAGERDUTY, value).body == PING


@pytest.mark.parametrize(
    "value",
    [
        "",
        ",",
        "v1=",
        PING_HEX,
        f"v2={PING_HEX}",
        f"V1={PING_HEX}",
        f"v1={PING_HEX}0",
        f"v1={PING_HEX[:-1]}",
        f"v1={PING_HEX[:-2]}\n\n",
        f"v1={PING_HEX}\n",
        f"v1= {PING_HEX}",
        f"v1={PING_HEX[:-1]}\u0661",  # a digit for str.isdigit, not for us
        f"v1={PING_HEX};v1={PING_HEX}",
    ],
)
def test_another_form_does_not_fit(value: str) -> None:
    with pytest.raises(SignatureError):
        check(PAGERDUTY, value)


def test_only_sha256_is_accepted_where_the_method_is_named() -> None:
    digest = hmac.digest(b"secret", b"body", hashlib.sha1).hex()
    with pytest.raises(SignatureError):
        check(BITBUCKET, f"sha1={digest}", body=b"body", keys=("secret",))


def test_the_number_of_entries_looked_at_is_bounded() -> None:
    wrong = f"v1={'0' * 64},"
    assert check(PAGERDUTY, wrong * (MAX_ENTRIES - 1) + f"v1={PING_HEX}").body == PING
    with pytest.raises(SignatureError):
        check(PAGERDUTY, wrong * MAX_ENTRIES + f"v1={PING_HEX}")


def test_a_missing_header_is_named_in_the_reason_only() -> None:
    with pytest.raises(SignatureError) as error:
        verify(PAGERDUTY, headers={}, body=PING, secrets=(PING_SECRET,))
    assert "X-PagerDuty-Signature" in error.value.reason
    assert "X-PagerDuty-Signature" not in str(error.value)


# --- secrets


def test_every_secret_is_tried_and_the_one_that_fits_is_told() -> None:
    assert check(PAGERDUTY, f"v1={PING_HEX}", keys=("other", PING_SECRET)).secret == 1


@pytest.mark.parametrize("keys", [(), ("",), ("", "other")])
def test_without_a_fitting_secret_nothing_is_verified(keys: tuple[str, ...]) -> None:
    with pytest.raises(SignatureError):
        check(PAGERDUTY, f"v1={PING_HEX}", keys=keys)


def test_an_empty_secret_is_nobodys_signature() -> None:
    value = f"v1={hmac.digest(b'', PING, 'sha256').hex()}"
    with pytest.raises(SignatureError):
        check(PAGERDUTY, value, keys=("",))


def test_a_secret_that_is_not_utf8_is_used_as_its_bytes() -> None:
    secret = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert sign(LAUNCHDARKLY, body=b"x", secret=secret) == hmac.digest(b"\xff\xfe", b"x", "sha256").hex()


def test_secrets_are_split_trimmed_and_never_empty() -> None:
    assert split_secrets(" new , old,, ,") == ("new", "old")
    assert split_secrets("") == ()


def test_an_unsigned_body_says_that_no_secret_fitted() -> None:
    assert accept_unsigned(b"{}") == Verified(b"{}", None)


# --- properties


@given(scheme=schemes, body=st.binary(), secret=secrets, others=st.lists(secrets, max_size=3))
def test_what_is_signed_is_verified(scheme: Scheme, body: bytes, secret: str, others: list[str]) -> None:
    value = sign(scheme, body=body, secret=secret)
    assert check(scheme, value, body=body, keys=(*others, secret)).body == body


@given(body=st.binary(min_size=1), secret=secrets, data=st.data())
def test_a_changed_byte_is_noticed(body: bytes, secret: str, data: st.DataObject) -> None:
    value = sign(PAGERDUTY, body=body, secret=secret)
    place = data.draw(st.integers(0, len(body) - 1))
    other = bytearray(body)
    other[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureError):
        check(PAGERDUTY, value, body=bytes(other), keys=(secret,))


@given(body=st.binary(), secret=secrets, data=st.data())
def test_a_changed_digit_of_the_signature_is_noticed(body: bytes, secret: str, data: st.DataObject) -> None:
    value = sign(LAUNCHDARKLY, body=body, secret=secret)
    place = data.draw(st.integers(0, len(value) - 1))
    digit = data.draw(st.characters(codec="latin-1"))
    assume(digit.lower() != value[place])
    with pytest.raises(SignatureError):
        check(LAUNCHDARKLY, value[:place] + digit + value[place + 1 :], body=body, keys=(secret,))


header_values = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(), max_size=200),
    st.lists(st.one_of(st.text(), st.from_regex(r"\s?(v1=|sha256=)?[0-9a-fA-F]{60,68}\s?", fullmatch=True))).map(
        ",".join
    ),
)


@given(scheme=schemes, value=header_values, body=st.binary(), keys=st.lists(st.text(), max_size=3))
def test_any_header_and_body_is_verified_or_a_signature_error(
    scheme: Scheme, value: str, body: bytes, keys: list[str]
) -> None:
    with pytest.raises(SignatureError):
        check(scheme, value, body=body, keys=tuple(keys))


# --- schemes


@pytest.mark.parametrize("form", ["v1={hex}", "sha256={hex}", "{hex}", "hex {hex} end", "a.*({hex})"])
def test_a_format_with_one_place_for_the_digest_is_good(form: str) -> None:
    check_format(form)
    scheme = Scheme(header="x", format=form)
    assert check(scheme, sign(scheme, body=PING, secret="s"), keys=("s",)).body == PING


@pytest.mark.parametrize(
    "form", ["", "v1=", "{hex}{hex}", "{base64}", "t=1,v1={hex}", " {hex}", "v1={hex}\n", "é{hex}"]
)
def test_a_format_that_could_never_match_is_refused_with_a_remedy(form: str) -> None:
    with pytest.raises(ValueError, match=r"the format .* (must|leave)"):
        Scheme(header="x", format=form)


def test_an_unknown_hash_function_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="use one of sha1, sha256"):
        Scheme(header="x", format="{hex}", algorithm="md5")
