"use strict";
// npm's memcache-plus: promises, compression, every get of many in one pipeline. It reads by lines, so values are text.

const MemcachePlus = require("memcache-plus");
const { server, methods, count, equal, check, rejects, sleep, soon, versionOf, main } = require("../harness.js");

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = ["connect", "connectToHosts", "flushBuffer", "getHostList", "ready", "run", "splitHost"];

const connect = (run, hosts = [server.address], options = {}) => {
  const client = new MemcachePlus({ hosts, reconnect: false, netTimeout: 10000, ...options });
  return count(run, client, "Client");
};
const numbers = (length) => Array.from({ length }, (_, number) => number);

const scenarios = {
  async storage(run) {
    for (const [number, client] of [connect(run), connect(run, [server.address, server.second])].entries()) {
      const key = run.key(number);
      equal(await client.get(key), null);
      await rejects(client.replace(key, "no"), "does not exist");
      await client.add(key, "one");
      await rejects(client.add(key, "two"), "it already exists");
      await client.append(key, ">");
      await client.prepend(key, "<");
      equal(await client.get(key), "<one>");
      await client.replace(key, "three");
      await client.set(key, "four");
      equal(await client.get(key), "four");
      equal(await client.delete(key), true);
      equal(await client.delete(key), false);
      await client.disconnect();
    }
  },

  async "compare and swap"(run) {
    const client = connect(run);
    await client.set(run.key(), "one");
    const [value, unique] = await client.gets(run.key());
    equal(value, "one");
    equal(await client.cas(run.key(), "two", unique), true);
    equal(await client.cas(run.key(), "three", unique), false);
    equal(await client.get(run.key()), "two");
    await client.disconnect();
  },

  async arithmetic(run) {
    const client = connect(run);
    check(Number.isNaN(await client.incr(run.key())), "incr of a missing key");
    await client.set(run.key(), "10");
    equal(await client.incr(run.key(), 5), 15);
    equal(await client.decr(run.key(), 6), 9);
    equal(await client.decr(run.key(), 60), 0);
    await client.set(run.key(), "letters");
    await rejects(client.incr(run.key()), "cannot increment or decrement non-numeric value");
    equal(await client.get(run.key()), "letters");
    await client.disconnect();
  },

  async "many keys"(run) {
    const client = connect(run, [server.address, server.second]);
    const keys = numbers(300).map((number) => run.key(number));
    await Promise.all(keys.map((key) => client.set(key, key.repeat(4))));
    const wanted = Object.fromEntries(keys.map((key) => [key, key.repeat(4)]));
    equal({ ...await client.getMulti([...keys, run.key("none")]) }, { ...wanted, [run.key("none")]: null });
    equal({ ...await client.get(keys.slice(0, 1)) }, { [keys[0]]: keys[0].repeat(4) });
    const deleted = await client.deleteMulti(keys);
    check(keys.every((key) => deleted[key] === true), "deleteMulti");
    await client.disconnect();
  },

  async values(run) {
    const client = connect(run);
    for (const value of ["naïve ☃", 12, [1, { a: "b" }], "x".repeat(2048), "x".repeat(500000)]) {
      await client.set(run.key(), value);
      equal(await client.get(run.key()), value);
    }
    await client.set(run.key(), "compressible".repeat(9999), { compressed: true });
    equal(await client.get(run.key(), { compressed: true }), "compressible".repeat(9999));
    await client.disconnect();
  },

  async "too large a value is refused"(run) {
    const client = connect(run, [server.address], { maxValueSize: 10 * LIMIT });
    await client.set(run.key(), "old");
    await rejects(client.set(run.key(), "x".repeat(LIMIT)), "object too large for cache");
    equal(await client.get(run.key()), null);
    await client.set(run.key(), "new");
    equal(await client.get(run.key()), "new");
    await client.disconnect();
  },

  async "keys at their limits"(run) {
    const client = connect(run);
    const longest = run.key("k").padEnd(249, "k"); // the client takes no more
    await client.set(longest, "long");
    equal(await client.get(longest), "long");
    await client.disconnect();
  },

  async expiry(run) {
    const client = connect(run);
    await client.set(run.key("second"), "v", 3);
    await client.set(run.key("long"), "v", 100);
    await sleep(4.2);
    equal(await client.get(run.key("second")), null);
    equal(await client.get(run.key("long")), "v");
    await client.disconnect();
  },

  async administration(run) {
    const client = connect(run);
    await client.set(run.key(), "v");
    check(/^\d+\.\d+\.\d+$/.test(await client.version()), "version");
    const items = await client.items();
    check(items.length > 0, "items");
    check(Array.isArray(await client.cachedump(items[0].slab_id || items[0].slab || 1)), "cachedump");
    await client.flush(100);
    equal(await client.get(run.key()), "v", "a delayed flush keeps the item for now");
    await client.flush();
    equal(await client.get(run.key()), null);
    await client.disconnect();
  },

  async "a time out in the middle"(run) {
    const silent = connect(run, [server.mute]);
    equal(await Promise.race([silent.set(run.key(), "sent"), sleep(0.5)]), undefined);
    await silent.disconnect();
    const client = connect(run);
    await soon(() => client.get(run.key()), "sent");
    await client.disconnect();
  },
};

const surface = methods(MemcachePlus.prototype).concat(Object.keys(MemcachePlus.prototype));
const operations = [...new Set(surface)].filter((name) => !NOT_OPERATIONS.includes(name)).map((name) => `Client.${name}`);
main("npm memcache-plus", versionOf("memcache-plus"), operations, scenarios);
