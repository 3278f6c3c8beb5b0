"use strict";
// npm's memjs, which logs in by SASL.

const { Client } = require("memjs");
const { server, count, equal, rejects, versionOf, main } = require("../harness.js");

const quiet = { log: () => {} };
const connect = (run, password) =>
  count(run, Client.create(server.address, { timeout: 10, retries: 0, logger: quiet, username: "alice", password }), "Client");

const scenarios = {
  async "a login"(run) {
    const client = connect(run, "secret");
    equal(await client.set(run.key(), "value", {}), true);
    equal((await client.get(run.key())).value.toString(), "value");
    client.close();
  },

  async "a wrong password"(run) {
    const client = connect(run, "wrong");
    await rejects(client.get(run.key()), "");
    client.close();
  },
};

main("npm memjs (SASL)", versionOf("memjs"), [], scenarios);
