// Node-RED with the editor and its logs off. The journal is shared by whatever is waiting: one write, one flush.
const crypto = require("crypto");
const fs = require("fs");

const fd = fs.openSync(process.env.JOURNAL, "a");
let waiting = [];
let busy = false;

function flush() {
  if (busy || waiting.length === 0) return;
  busy = true;
  const batch = waiting;
  waiting = [];
  const end = (error) => {
    busy = false;
    batch.forEach((one) => one.done(error));
    flush();
  };
  fs.write(fd, batch.map((one) => one.line).join(""), (error) => (error ? end(error) : fs.fdatasync(fd, end)));
}

function append(line) {
  return new Promise((resolve, reject) => {
    waiting.push({ line, done: (error) => (error ? reject(error) : resolve()) });
    flush();
  });
}

module.exports = {
  uiHost: "127.0.0.1",
  uiPort: Number(process.env.PORT),
  httpAdminRoot: false,
  flowFile: process.env.FLOWS,
  credentialSecret: false,
  functionGlobalContext: { crypto, append, secret: process.env.SECRET },
  logging: { console: { level: "error", metrics: false, audit: false } },
};
