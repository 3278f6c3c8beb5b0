"use strict";
// npm's memcached: callbacks, a pool of connections, consistent hashing.

const Memcached = require("memcached");
const { server, methods, count, call, equal, check, rejects, sleep, soon, everything, versionOf, main } = require("../harness.js");

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = [
  "connect", "buffer", "multi", "command", "connectionIssue", "delegateCallback", "makeCallback", "rawDataReceived",
];

const connect = (run, servers = server.address, options = {}) => {
  const client = new Memcached(servers, { timeout: 10000, retries: 1, ...options });
  return count(run, client, "Client");
};
const several = (run) => connect(run, [server.address, server.second]);
const numbers = (length) => Array.from({ length }, (_, number) => number);

const scenarios = {
  async storage(run) {
    for (const [number, client] of [connect(run), several(run)].entries()) {
      const key = run.key(number);
      equal(await call(client, "get", key), undefined);
      await rejects(call(client, "replace", key, "no", 100), "not stored");
      await rejects(call(client, "append", key, "no"), "not stored");
      await rejects(call(client, "prepend", key, "no"), "not stored");
      equal(await call(client, "add", key, "one", 100), true);
      await rejects(call(client, "add", key, "two", 100), "not stored");
      equal(await call(client, "append", key, ">"), true);
      equal(await call(client, "prepend", key, "<"), true);
      equal(await call(client, "get", key), "<one>");
      equal(await call(client, "replace", key, "three", 100), true);
      equal(await call(client, "set", key, "four", 100), true);
      equal(await call(client, "get", key), "four");
      equal(await call(client, "del", key), true);
      equal(await call(client, "delete", key), false);
      client.end();
    }
  },

  async "compare and swap"(run) {
    const client = connect(run);
    const key = run.key();
    await call(client, "set", key, "one", 100);
    const { [key]: value, cas } = await call(client, "gets", key);
    equal(value, "one");
    equal(await call(client, "cas", key, "two", cas, 100), true);
    equal(await call(client, "cas", key, "three", cas, 100), false);
    equal(await call(client, "get", key), "two");
    client.end();
  },

  async arithmetic(run) {
    const client = connect(run);
    const key = run.key();
    equal(await call(client, "incr", key, 1), false);
    equal(await call(client, "decr", key, 1), false);
    await call(client, "set", key, 10, 100);
    equal(await call(client, "incr", key, 5), 15);
    equal(await call(client, "increment", key, 5), 20);
    equal(await call(client, "decr", key, 15), 5);
    equal(await call(client, "decrement", key, 6), 0);
    await call(client, "set", key, "letters", 100);
    await rejects(call(client, "incr", key, 1), "cannot increment or decrement non-numeric value");
    equal(await call(client, "get", key), "letters");
    client.end();
  },

  async "many keys"(run) {
    for (const client of [connect(run), several(run)]) {
      const keys = numbers(500).map((number) => run.key(number));
      await Promise.all(keys.map((key) => call(client, "set", key, key.repeat(4), 100)));
      const wanted = Object.fromEntries(keys.map((key) => [key, key.repeat(4)]));
      equal({ ...await call(client, "getMulti", [...keys, run.key("none")]) }, wanted);
      equal({ ...await call(client, "get", keys.slice(0, 1)) }, { [keys[0]]: keys[0].repeat(4) });
      client.end();
    }
  },

  async values(run) {
    const client = connect(run);
    for (const value of ["", "naïve ☃", 12, 1.5, true, null, [1, { a: "b" }], everything(), "line\r\nEND\r\n"]) {
      await call(client, "set", run.key(), value, 100);
      const got = await call(client, "get", run.key());
      equal(Buffer.isBuffer(value) ? Buffer.from(got) : got, value);
    }
    for (const size of [1, 2048, 16384, 65536, 524288, LIMIT - 512]) {
      await call(client, "set", run.key(), "x".repeat(size), 100);
      equal(await call(client, "get", run.key()), "x".repeat(size));
    }
    client.end();
  },

  async "too large a value is refused"(run) {
    const client = connect(run);
    await rejects(call(client, "set", run.key(), "x".repeat(LIMIT + 1), 100), "greater than");
    const large = connect(run, server.address, { maxValue: 10 * LIMIT, failures: 5 });
    await call(client, "set", run.key(), "old", 100);
    const answer = new Promise((resolve) => large.on("issue", ({ messages }) => resolve(`${messages}`)));
    large.set(run.key(), "x".repeat(2 * LIMIT), 100, () => {});
    check((await answer).includes("object too large for cache"), "the server's error");
    equal(await call(client, "get", run.key()), undefined);
    client.end();
    large.end();
  },

  async "keys at their limits"(run) {
    const client = connect(run);
    const longest = run.key("k").padEnd(250, "k");
    equal(await call(client, "set", longest, "250", 100), true);
    equal(await call(client, "get", longest), "250");
    equal(await call(client, "set", longest + "k", "hashed", 100), true);
    equal(await call(client, "get", longest + "k"), "hashed");
    const prefixed = connect(run, server.address, { namespace: "prefix:" });
    await call(prefixed, "set", run.key(), "v", 100);
    equal(await call(client, "get", "prefix:" + run.key()), "v");
    client.end();
    prefixed.end();
  },

  async expiry(run) {
    const client = connect(run);
    for (const name of ["second", "touched"]) await call(client, "set", run.key(name), "v", 3);
    equal(await call(client, "touch", run.key("touched"), 100), true);
    equal(await call(client, "touch", run.key("none"), 100), false);
    await sleep(4.2);
    equal(await call(client, "get", run.key("second")), undefined);
    equal(await call(client, "get", run.key("touched")), "v");
    client.end();
  },

  async administration(run) {
    const client = connect(run);
    await call(client, "set", run.key(), "v", 100);
    const [{ version, server: address }] = await call(client, "version");
    check(/^\d+\.\d+\.\d+$/.test(version), `version ${version}`);
    equal(address, server.address);
    const [stats] = await call(client, "stats");
    equal(stats.version, version);
    check(stats.curr_items >= 1, "curr_items");
    equal((await call(client, "settings"))[0].item_size_max, LIMIT);
    equal((await call(client, "statsSettings"))[0].item_size_max, LIMIT);
    for (const name of ["slabs", "statsSlabs"]) check((await call(client, name))[0].active_slabs, name);
    for (const name of ["items", "statsItems"]) {
      const [items] = await call(client, name);
      const ids = Object.keys(items).filter((id) => /^\d+$/.test(id));
      check(ids.every((id) => items[id].number >= 1), name);
      const dumps = [];
      for (const id of ids) dumps.push(await call(client, "cachedump", server.address, +id, 0));
      const found = dumps.flat().filter(Boolean); // of a class whose items have expired there is none
      check(found.length && found.every(({ key, b, s }) => key && b >= 0 && s >= 0), "cachedump");
    }
    equal(await call(client, "flush"), [true]);
    equal(await call(client, "get", run.key()), undefined);
    equal(await call(client, "flushAll"), [true]);
    client.end();
  },

  async "many commands at once"(run) {
    const client = connect(run);
    await call(client, "set", run.key("shared"), 0, 100);
    await Promise.all(numbers(300).map(async (number) => {
      const key = run.key(number);
      await call(client, "set", key, key.repeat(9), 100);
      equal(await call(client, "get", key), key.repeat(9));
      await call(client, "incr", run.key("shared"), 1);
    }));
    equal(await call(client, "get", run.key("shared")), 300);
    client.end();
  },

  async "a time out in the middle"(run) {
    // The client has no time-out for an answer, so the application has one.
    const silent = connect(run, server.mute);
    const answer = await Promise.race([call(silent, "set", run.key(), "sent", 100), sleep(0.3)]);
    equal(answer, undefined);
    silent.end();
    const client = connect(run);
    await soon(() => call(client, "get", run.key()), "sent");
    client.end();
  },
};

const surface = methods(Memcached.prototype).filter((name) => !NOT_OPERATIONS.includes(name)).map((name) => `Client.${name}`);
main("npm memcached", versionOf("memcached"), surface, scenarios);
