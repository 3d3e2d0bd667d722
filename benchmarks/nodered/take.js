// The function node: verify, map as mappings/pagerduty.yaml does, append durably, answer.
const raw = msg.payload;
const digest = global.get("crypto").createHmac("sha256", global.get("secret")).update(raw).digest();
const given = /^v1=([0-9a-f]{64})$/.exec(msg.req.headers["x-pagerduty-signature"] || "");
if (!given || !global.get("crypto").timingSafeEqual(digest, Buffer.from(given[1], "hex"))) {
  msg.statusCode = 401;
  msg.payload = "";
  return msg;
}
const event = JSON.parse(raw.toString()).event;
const data = event.data;
const happened = { "incident.triggered": "triggered", "incident.acknowledged": "acknowledged" };
const levels = { P1: "ONE", P2: "TWO", P3: "THREE", P4: "FOUR", P5: "FIVE" };
const mapped = {
  incident: {
    displayName: data.title,
    description: [
      data.service.summary,
      `#${data.number}`,
      `${data.urgency} urgency`,
      `${happened[event.event_type] || "updated"} by ${event.agent.summary}`,
    ].join(" · "),
    url: data.html_url,
    externalEventSourceId: data.service.id,
    lastUpdated: new Date(event.occurred_at).toISOString(),
    updateSequenceNumber: Date.parse(event.occurred_at),
    incidentProperties: {
      id: data.id,
      state: data.status === "resolved" ? "RESOLVED" : "OPEN",
      startTime: data.created_at,
      severity: { label: data.priority.summary, level: levels[data.priority.summary] },
    },
  },
};
const line = JSON.stringify({ id: event.id, received: Date.now(), body: raw.toString(), event: mapped });
await global.get("append")(line + "\n");
msg.statusCode = 202;
msg.payload = { webhook: event.id, status: "translated", rule: "incident", events: [{ type: "incident" }] };
return msg;
