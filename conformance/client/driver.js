"use strict";
// What runs inside a node client's process: node driver.js CLIENT PORT OPERATIONS. Prints what drivers.py prints.

const { writeSync } = require("fs");

const [client, port, what] = process.argv.slice(2);
const TIMEOUT = 1000;

const makers = {
  memcached() {
    const Memcached = require("memcached");
    const made = new Memcached(`127.0.0.1:${port}`, { timeout: TIMEOUT, retries: 0, reconnect: 500, failures: 5, retry: 100 });
    const call = (method, ...words) => new Promise((good, bad) => {
      made[method](...words, (error, value) => (error ? bad(error) : good(value)));
    });
    return {
      get: async (key) => (await call("get", key)) || null, // false: no error is given, and no value
      many: (keys) => call("getMulti", keys),
      set: (key, value) => call("set", key, value, 100),
    };
  },
  memjs() {
    const made = require("memjs").Client.create(`127.0.0.1:${port}`, { timeout: TIMEOUT / 1000, conntimeout: TIMEOUT / 1000, retries: 1 });
    const get = async (key) => {
      const { value } = await made.get(key);
      return value === null ? null : value.toString("latin1");
    };
    return {
      get,
      many: async (keys) => Object.fromEntries(await Promise.all(keys.map(async (key) => [key, await get(key)]))),
      set: (key, value) => made.set(key, value, {}),
    };
  },
};

(async () => {
  const made = makers[client]();
  for (const [word, ...words] of JSON.parse(what)) {
    const begun = Date.now();
    let told;
    try {
      const value = word === "sleep" ? await new Promise((done) => setTimeout(done, 1000 * words[0])) : await made[word](...words);
      told = { value: value === undefined ? null : value };
    } catch (error) {
      told = { error: String(error).slice(0, 100) };
    }
    let line = Buffer.from(`${JSON.stringify({ ...told, seconds: (Date.now() - begun) / 1000 })}\n`);
    while (line.length) line = line.subarray(writeSync(1, line)); // process.stdout would lose what a pipe has no room for at the end
  }
  process.exit(0);
})();
