"use strict";
// npm's memcache-client: promises, noreply, raw commands, compression by a library of the user's.

const zlib = require("zlib");
const { MemcacheClient } = require("memcache-client");
const { server, methods, count, equal, check, rejects, sleep, soon, everything, versionOf, main } = require("../harness.js");

const LIMIT = 1024 * 1024;
const NOT_OPERATIONS = ["shutdown"];
const compressor = {
  compressSync: ({ input }) => zlib.deflateSync(input),
  decompressSync: ({ input }) => zlib.inflateSync(input),
};

const connect = (run, options = {}) => {
  const client = new MemcacheClient({ server: server.address, cmdTimeout: 10000, compressor, ...options });
  return count(run, client, "Client");
};
const numbers = (length) => Array.from({ length }, (_, number) => number);
const valueOf = async (answer) => (await answer || {}).value;

const scenarios = {
  async storage(run) {
    const client = connect(run);
    const key = run.key();
    equal(await client.get(key), undefined);
    for (const command of ["replace", "append", "prepend"]) await rejects(client[command](key, "no"), "NOT_STORED");
    equal(await client.add(key, "one"), ["STORED"]);
    await rejects(client.add(key, "two"), "NOT_STORED");
    await client.append(key, ">");
    await client.prepend(key, "<");
    equal(await valueOf(client.get(key)), "<one>");
    equal(await client.replace(key, "three"), ["STORED"]);
    equal(await client.set(key, "four"), ["STORED"]);
    equal(await client.store("set", key, "five"), ["STORED"]);
    equal(await valueOf(client.retrieve("get", key)), "five");
    equal(await valueOf(client.xretrieve("get", key)), "five");
    equal(await client.delete(key), ["DELETED"]);
    await rejects(client.delete(key), "NOT_FOUND");
    client.shutdown();
  },

  async "compare and swap"(run) {
    const client = connect(run);
    await client.set(run.key(), "one");
    const { value, casUniq } = await client.gets(run.key());
    equal(value, "one");
    equal(await client.cas(run.key(), "two", { casUniq }), ["STORED"]);
    await rejects(client.cas(run.key(), "three", { casUniq }), "EXISTS");
    await rejects(client.cas(run.key("none"), "x", { casUniq }), "NOT_FOUND");
    equal(await valueOf(client.get(run.key())), "two");
    client.shutdown();
  },

  async arithmetic(run) {
    const client = connect(run);
    await rejects(client.incr(run.key(), 1), "NOT_FOUND");
    await rejects(client.decr(run.key(), 1), "NOT_FOUND");
    await client.set(run.key(), 10);
    equal(await client.incr(run.key(), 5), "15");
    equal(await client.decr(run.key(), 6), "9");
    equal(await client.decr(run.key(), 60), "0");
    await client.set(run.key(), "letters");
    await rejects(client.incr(run.key(), 1), "cannot increment or decrement non-numeric value");
    equal(await valueOf(client.get(run.key())), "letters");
    client.shutdown();
  },

  async "many keys"(run) {
    const client = connect(run);
    const keys = numbers(500).map((number) => run.key(number));
    await Promise.all(keys.map((key) => client.set(key, key.repeat(4))));
    const found = await client.get([...keys, run.key("none")]);
    equal(Object.fromEntries(Object.entries(found).map(([key, { value }]) => [key, value])),
      Object.fromEntries(keys.map((key) => [key, key.repeat(4)])));
    check(Object.values(await client.gets(keys)).every(({ casUniq }) => casUniq), "a cas unique for each");
    client.shutdown();
  },

  async values(run) {
    const client = connect(run);
    for (const value of ["naïve ☃", 12, 1.5, [1, { a: "b" }], everything(), "line\r\nEND\r\n"]) {
      await client.set(run.key(), value);
      equal(await valueOf(client.get(run.key())), value);
    }
    for (const size of [1, 2048, 16384, 65536, 524288, LIMIT - 512]) {
      await client.set(run.key(), Buffer.alloc(size, everything()));
      equal(Buffer.compare(await valueOf(client.get(run.key())), Buffer.alloc(size, everything())), 0, `${size} bytes`);
    }
    await client.set(run.key(), "compressible".repeat(200000), { compress: true });
    equal(await valueOf(client.get(run.key())), "compressible".repeat(200000));
    client.shutdown();
  },

  async "too large a value leaves the connection in step"(run) {
    const client = connect(run);
    await client.set(run.key(), "old");
    for (const size of [LIMIT, LIMIT + 1, 3 * LIMIT]) {
      await rejects(client.set(run.key(), Buffer.alloc(size)), "object too large for cache");
      await client.set(run.key("after"), size);
      equal(await valueOf(client.get(run.key("after"))), size);
    }
    equal(await client.get(run.key()), undefined);
    client.shutdown();
  },

  async "keys at their limits"(run) {
    const client = connect(run);
    const longest = run.key("k").padEnd(250, "k");
    await client.set(longest, "250");
    equal(await valueOf(client.get(longest)), "250");
    await rejects(client.get(longest + "k"), "CLIENT_ERROR");
    client.shutdown();
  },

  async expiry(run) {
    const client = connect(run);
    for (const name of ["second", "touched"]) await client.set(run.key(name), "v", { lifetime: 3 });
    equal(await client.touch(run.key("touched"), 100), ["TOUCHED"]);
    await rejects(client.touch(run.key("none"), 100), "NOT_FOUND");
    await sleep(4.2);
    equal(await client.get(run.key("second")), undefined);
    equal(await valueOf(client.get(run.key("touched"))), "v");
    client.shutdown();
  },

  async "silent commands in a pipeline"(run) {
    const client = connect(run);
    const key = run.key();
    const options = { noreply: true };
    for (const number of numbers(300)) await client.set(key, number, options);
    await client.append(key, "0", options);
    await client.prepend(key, "1", options);
    await client.incr(key, 5, options);
    await client.decr(key, 1, options);
    await client.add(key, "no", options);
    await client.touch(key, 100, options);
    equal(await valueOf(client.get(key)), 12994);
    await client.replace(key, "r", options);
    await client.delete(key, options);
    await client.incr(key, 1, options);
    equal(await client.get(key), undefined);
    client.shutdown();
  },

  async "raw commands"(run) {
    const client = connect(run);
    await client.set(run.key(), "v");
    const [, version] = await client.version();
    check(/^\d+\.\d+\.\d+$/.test(version), `version ${version}`);
    const { STAT } = await client.cmd("stats");
    equal(Object.fromEntries(STAT).version, version);
    check(Object.fromEntries((await client.send("stats settings\r\n")).STAT).item_size_max, "stats settings");
    check((await client.xsend("stats items\r\n")).STAT.length, "stats items");
    await rejects(client.cmd("no_such_command"), "ERROR");
    await rejects(client.cmd("slabs reassign 1 1"), "SAME");
    equal(await client.cmd("verbosity 0"), ["OK"]);
    equal(await client.cmd("flush_all"), ["OK"]);
    equal(await client.get(run.key()), undefined);
    client.shutdown();
  },

  async "many commands at once"(run) {
    const client = connect(run, { server: { server: server.address, maxConnections: 4 } });
    await client.set(run.key("shared"), 0);
    await Promise.all(numbers(300).map(async (number) => {
      const key = run.key(number);
      await client.set(key, key.repeat(9));
      equal(await valueOf(client.get(key)), key.repeat(9));
      await client.incr(run.key("shared"), 1);
    }));
    equal(await valueOf(client.get(run.key("shared"))), 300);
    client.shutdown();
  },

  async "a time out in the middle"(run) {
    const silent = connect(run, { server: server.mute, cmdTimeout: 300 });
    await rejects(silent.set(run.key(), "sent"), "timeout");
    silent.shutdown();
    const client = connect(run);
    await soon(() => valueOf(client.get(run.key())), "sent");
    client.shutdown();
  },
};

const surface = methods(MemcacheClient.prototype).filter((name) => !NOT_OPERATIONS.includes(name)).map((name) => `Client.${name}`);
main("npm memcache-client", versionOf("memcache-client"), surface, scenarios);
