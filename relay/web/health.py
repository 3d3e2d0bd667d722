"""What platforms and monitoring ask: does the process live, can it take webhooks, how is it doing."""

from flask import Blueprint, Response, jsonify

from relay import telemetry
from relay.errors import StoreUnavailable
from relay.outbox.migrations import is_current
from relay.runtime import Relay, gauges


def blueprint(relay: Relay) -> Blueprint:
    """The endpoints, for this relay."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    @health.get("/readyz")
    def readyz() -> Response:
        # The mapping files were checked at start: a process with wrong ones does not come up.
        if not is_current(relay.outbox):
            raise StoreUnavailable("the database's tables are not those of this release; run `relay migrate`")
        return jsonify(status="ok", sources=sorted(relay.mappings))

    @health.get("/metrics")
    def metrics() -> Response:
        counters = telemetry.counter_metrics(relay.counting.totals())
        outbox = telemetry.outbox_metrics(gauges(relay))
        return Response(telemetry.render([*counters, *outbox]), content_type=telemetry.CONTENT_TYPE)

    return health
