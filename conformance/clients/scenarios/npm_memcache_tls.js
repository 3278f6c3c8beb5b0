"use strict";
// npm's memcache (of Jared Wray) over TLS: the text protocol.

const { readFileSync } = require("fs");
const { Memcache } = require("memcache");
const { server, methods, count, equal, check, rejects, sleep, everything, versionOf, main } = require("../harness.js");

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = [ // they talk to no server, or others call them
  "getNodes", "getNode", "removeNode", "parseUri", "isConnected", "getNodesByKey", "resolveKey", "validateKey",
  "validateValue", "validateExpiration", "sleep", "executeWithRetry", "updateNodes", "forwardNodeEvents",
  "startAutoDiscovery", "applyClusterConfig",
  ...["on", "once", "emit", "hook"],
];
const ca = readFileSync(process.env.TLS_AUTHORITY);
const numbers = (length) => Array.from({ length }, (_, number) => number);

const connect = (run, { nodes = [server.address], ...options } = {}) =>
  count(run, new Memcache({ nodes, timeout: 10000, tls: { ca }, ...options }), "Memcache");

const scenarios = {
  async storage(run) {
    for (const nodes of [[server.address], [server.address, server.second]]) {
      const client = connect(run, { nodes });
      const key = run.key(nodes.length);
      equal(await client.get(key), undefined);
      equal(await client.replace(key, "no"), false);
      equal(await client.append(key, "no"), false);
      equal(await client.prepend(key, "no"), false);
      equal(await client.add(key, "one"), true);
      equal(await client.add(key, "two"), false);
      equal(await client.append(key, ">"), true);
      equal(await client.prepend(key, "<"), true);
      equal(await client.get(key), "<one>");
      equal(await client.replace(key, "three"), true);
      equal(await client.set(key, "naïve ☃"), true);
      equal(await client.get(key), "naïve ☃");
      equal(await client.delete(key), true);
      equal(await client.delete(key), false);
      await client.disconnect();
    }
  },

  async arithmetic(run) {
    const client = connect(run);
    equal(await client.incr(run.key()), undefined);
    await client.set(run.key(), "10");
    equal(await client.incr(run.key(), 5), 15);
    equal(await client.decr(run.key(), 6), 9);
    equal(await client.decr(run.key(), 60), 0);
    await client.disconnect();
  },

  async "compare and swap"(run) {
    const client = connect(run);
    await client.set(run.key(), "one");
    equal(await client.cas(run.key(), "two", "1"), false);
    const [node] = await client.getNodesByKey(run.key());
    equal(await client.execute(`touch ${run.key()} 100`, [node]), ["TOUCHED"]);
    equal(await client.get(run.key()), "one");
    await client.disconnect();
  },

  async "many keys"(run) {
    const client = connect(run, { nodes: [server.address, server.second] });
    await client.connect(); // else each request that finds no connection makes one
    const keys = numbers(500).map((number) => run.key(number));
    await Promise.all(keys.map((key) => client.set(key, key.repeat(4))));
    equal(await client.gets([...keys, run.key("none")]), new Map(keys.map((key) => [key, key.repeat(4)])));
    await Promise.all(keys.map((key) => client.delete(key)));
    equal(await client.gets(keys), new Map());
    await client.disconnect();
  },

  async "values of all sizes"(run) {
    const client = connect(run);
    const text = everything().toString("latin1").replace(/[\u0080-\u00ff]/g, "");
    for (const size of [0, 1, 100, 2048, 16384, 65536, 524288, LIMIT - 512]) {
      const value = text.repeat(Math.ceil((size + 1) / text.length)).slice(0, size);
      equal(await client.set(run.key(), value), true);
      check((await client.get(run.key())) === value, `${size} bytes`);
    }
    const longest = run.key().padEnd(250, "k");
    equal(await client.set(longest, "250"), true);
    equal(await client.get(longest), "250");
    await rejects(client.set(`${longest}k`, "251"), "length");
    await client.disconnect();
  },

  async expiry(run) {
    const client = connect(run);
    await client.set(run.key("second"), "v", 3);
    await client.set(run.key("touched"), "v", 3);
    equal(await client.touch(run.key("touched"), 100), true);
    equal(await client.touch(run.key("none"), 100), false);
    await sleep(4.2);
    equal(await client.gets([run.key("second"), run.key("touched")]), new Map([[run.key("touched"), "v"]]));
    await client.disconnect();
  },

  async administration(run) {
    const client = connect(run, { nodes: [] });
    await client.addNode(server.address);
    await client.connect();
    const [version] = (await client.version()).values();
    check(/^(VERSION )?\d+\.\d+\.\d+$/.test(version), `version ${version}`);
    const [figures] = (await client.stats()).values();
    check(Number(figures.pid) > 0, "pid");
    await client.set(run.key(), "v");
    equal(await client.flush(100), true);
    equal(await client.get(run.key()), "v", "a delayed flush keeps the item for now");
    equal(await client.flush(), true);
    equal(await client.get(run.key()), undefined);
    await client.set(run.key(), "v");
    await client.reconnect();
    equal(await client.get(run.key()), "v");
    await client.quit();
  },

  async "who isn't trusted"(run) {
    const client = connect(run, { tls: true, retries: 0 });
    client.on("error", () => {});
    await rejects(client.connect(), "self-signed certificate");
    const plain = connect(run, { tls: false, timeout: 1000, retries: 0 });
    plain.on("error", () => {});
    await plain.connect().catch(() => {});
    equal(await plain.get(run.key()).catch(() => undefined), undefined, "plain text on the port of TLS");
    await plain.disconnect();
  },

  async "a time out in the middle"(run) {
    const silent = connect(run, { nodes: [server.mute], timeout: 300, retries: 0 });
    silent.on("error", () => {});
    await rejects(silent.connect(), "");
    const client = connect(run);
    equal(await client.set(run.key(), "after"), true);
    equal(await client.get(run.key()), "after");
    await client.disconnect();
  },
};

const surface = methods(Memcache.prototype).filter((name) => !NOT_OPERATIONS.includes(name)).map((name) => `Memcache.${name}`);
main("npm memcache (TLS)", versionOf("memcache"), surface, scenarios);
