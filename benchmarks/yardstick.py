"""The yardstick: the least that a Flask view can do with a webhook."""

from flask import Flask, request

app = Flask(__name__)


@app.post("/webhooks/<source>")
def take(source: str) -> tuple[str, int]:  # noqa: ARG001 - routed alike, used by nobody
    """Read the body, answer 202."""
    request.get_data(cache=False)
    return "", 202


@app.get("/healthz")
def healthz() -> str:
    """It is up."""
    return ""
