"use strict";
// npm's memjs: the binary protocol only. @keyv/memcache wraps it.

const { Client } = require("memjs");
const { server, methods, count, equal, check, rejects, sleep, soon, everything, versionOf, main } = require("../harness.js");

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = ["getServer", "server", "perform", "incrSeq"];
const quiet = { log: () => {} };

const connect = (run, options = {}, address = server.address) =>
  count(run, Client.create(address, { timeout: 10, retries: 0, logger: quiet, ...options }), "Client");
const numbers = (length) => Array.from({ length }, (_, number) => number);
const text = async (answer) => {
  const { value } = await answer;
  return value === null ? null : value.toString();
};
const asked = (client, method, ...args) => new Promise((resolve, reject) => {
  client[method](...args, (error, server, result) => (error ? reject(error) : resolve(result)));
});

const scenarios = {
  async storage(run) {
    const client = connect(run);
    const key = run.key();
    equal(await text(client.get(key)), null);
    equal(await client.replace(key, "no", {}), false);
    await rejects(client.append(key, "no"), "Item not stored");
    await rejects(client.prepend(key, "no"), "Item not stored");
    equal(await client.add(key, "one", {}), true);
    equal(await client.add(key, "two", {}), false);
    equal(await client.append(key, ">"), true);
    equal(await client.prepend(key, "<"), true);
    equal(await text(client.get(key)), "one><"); // memjs 1.3.2 sends its prepend as an append
    equal(await client.replace(key, "three", {}), true);
    equal(await client.set(key, "four", {}), true);
    equal(await text(client.get(key)), "four");
    equal(await client.delete(key), true);
    equal(await client.delete(key), false);
    client.close();
  },

  async arithmetic(run) {
    const client = connect(run);
    const number = async (answer) => (await answer).value;
    equal(await number(client.increment(run.key(), 5, { initial: 10 })), 10);
    equal(await number(client.increment(run.key(), 5, {})), 15);
    equal(await number(client.decrement(run.key(), 6, {})), 9);
    equal(await number(client.decrement(run.key(), 60, {})), 0);
    await client.set(run.key(), "letters", {});
    await rejects(client.increment(run.key(), 1, {}), "non-numeric");
    equal(await text(client.get(run.key())), "letters");
    client.close();
  },

  async "values of all sizes"(run) {
    const client = connect(run);
    for (const size of [0, 1, 100, 2048, 16384, 65536, 524288, LIMIT - 512]) {
      const value = Buffer.concat(Array(Math.ceil((size + 1) / everything().length)).fill(everything())).subarray(0, size);
      equal(await client.set(run.key(), value, {}), true);
      check((await client.get(run.key())).value.equals(value), `${size} bytes`);
    }
    for (const size of [LIMIT, 3 * LIMIT]) {
      await rejects(client.set(run.key(), Buffer.alloc(size), {}), "Value too large");
      equal(await client.set(run.key("after"), "after", {}), true);
      equal(await text(client.get(run.key("after"))), "after");
    }
    client.close();
  },

  async "many keys"(run) {
    const client = connect(run, {}, `${server.address},${server.second}`);
    const keys = numbers(500).map((number) => run.key(number));
    await Promise.all(keys.map((key) => client.set(key, key.repeat(4), {})));
    equal(await Promise.all(keys.map((key) => text(client.get(key)))), keys.map((key) => key.repeat(4)));
    await Promise.all(keys.map((key) => client.delete(key)));
    equal(await Promise.all(keys.map((key) => text(client.get(key)))), keys.map(() => null));
    client.close();
  },

  async expiry(run) {
    const client = connect(run);
    await client.set(run.key("second"), "v", { expires: 3 });
    await client.set(run.key("touched"), "v", { expires: 3 });
    equal(await client.touch(run.key("touched"), 100), true);
    equal(await client.touch(run.key("none"), 100), false);
    await sleep(4.2);
    equal(await text(client.get(run.key("second"))), null);
    equal(await text(client.get(run.key("touched"))), "v");
    client.close();
  },

  async administration(run) {
    const client = connect(run);
    const figures = await asked(client, "stats");
    check(/^\d+\.\d+\.\d+$/.test(figures.version), `version ${figures.version}`);
    check(Number(figures.pid) > 0, "pid");
    check((await asked(client, "statsWithKey", "settings")).item_size_max, "stats settings");
    await client.set(run.key(), "v", {});
    check(Object.keys(await asked(client, "statsWithKey", "items")).some((name) => name.endsWith(":number")), "stats items");
    await asked(client, "resetStats");
    await client.flush();
    equal(await text(client.get(run.key())), null);
    client.quit();
  },

  async "a time out in the middle"(run) {
    const silent = connect(run, { timeout: 0.3 }, server.mute);
    await rejects(silent.set(run.key(), "sent", {}), "");
    silent.close();
    const client = connect(run);
    await soon(() => text(client.get(run.key())), "sent");
    client.close();
  },
};

const surface = methods(Client.prototype).filter((name) => !NOT_OPERATIONS.includes(name)).map((name) => `Client.${name}`);
main("npm memjs (binary)", versionOf("memjs"), surface, scenarios);
