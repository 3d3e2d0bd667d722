"""Posting a webhook to a relay as its vendor would: signed, over HTTP."""

from collections.abc import Mapping

import requests

from relay.errors import StoreUnavailable
from relay.signature import Scheme, sign


def post_webhook(
    url: str, *, scheme: Scheme, secret: str | None, body: bytes, headers: Mapping[str, str], timeout: float = 30
) -> requests.Response:
    """The relay's answer to this body, signed with the secret if there is one.

    Raises StoreUnavailable when nobody answers at the URL.
    """
    signed = {} if secret is None else {scheme.header: sign(scheme, body=body, secret=secret)}
    try:
        return requests.post(
            url, data=body, headers={"Content-Type": "application/json", **headers, **signed}, timeout=timeout
        )
    except requests.RequestException as error:
        raise StoreUnavailable(f"{url} does not answer: {error}") from error
