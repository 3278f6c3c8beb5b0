"use strict";
// What a JavaScript client's file is written with: the counterpart of harness.py, with the same report.
// Arguments: HOST PORT SECOND MUTE [SCENARIO...], as of child.py.

const { readFileSync } = require("fs");
const path = require("path");
const { isDeepStrictEqual, inspect } = require("util");

const SECONDS_A_SCENARIO = 120;
const [host, port, second, mute, ...only] = process.argv.slice(2);

exports.server = { address: `${host}:${port}`, second: `127.0.0.1:${second}`, mute: `127.0.0.1:${mute}` };

// Own names of a prototype that are functions and operations.
exports.methods = (prototype) => Object.getOwnPropertyNames(prototype).filter(
  (name) => name !== "constructor" && !name.startsWith("_")
    && typeof Object.getOwnPropertyDescriptor(prototype, name).value === "function");

// A client whose calls are counted under `label.method`.
exports.count = (run, target, label) => new Proxy(target, {
  get(client, name) {
    const value = client[name];
    if (typeof value !== "function" || typeof name !== "string") return value;
    return (...args) => {
      run.calls.set(`${label}.${name}`, (run.calls.get(`${label}.${name}`) || 0) + 1);
      return value.apply(client, args);
    };
  },
});

// A callback method as a promise.
exports.call = (client, method, ...args) => new Promise((resolve, reject) => {
  client[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
});

exports.equal = (actual, expected, what = "") => {
  if (!isDeepStrictEqual(actual, expected)) {
    const shown = [actual, expected].map((value) => inspect(value).slice(0, 200));
    throw new Error(`${what && what + ": "}got ${shown[0]}, expected ${shown[1]}`);
  }
};

// Fail unless `read` gives what is expected within 10 s: for what another connection has yet to do.
exports.soon = async (read, expected) => {
  const ends = Date.now() + 10000;
  let actual = await read();
  while (!isDeepStrictEqual(actual, expected) && Date.now() < ends) {
    await exports.sleep(0.05);
    actual = await read();
  }
  exports.equal(actual, expected);
};

exports.check = (condition, what) => {
  if (!condition) throw new Error(what);
};

exports.rejects = async (promise, text) => {
  try {
    await promise;
  } catch (error) {
    exports.check(`${error}`.includes(text), `the error says ${error}, expected ${text} in it`);
    return;
  }
  throw new Error(`expected an error with ${text}`);
};

exports.sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

// All 256 byte values, line ends and the protocol's own words.
exports.everything = () => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, number) => number));
  return Buffer.concat([bytes, Buffer.from("\r\nEND\r\nSTORED\r\nVALUE x 0 1\r\n\r\n"), Buffer.from(bytes).reverse()]);
};

exports.versionOf = (name) => {
  const folder = path.dirname(require.resolve(name));
  for (let up = folder; up !== path.dirname(up); up = path.dirname(up)) {
    try {
      const manifest = JSON.parse(readFileSync(path.join(up, "package.json"), "utf8"));
      if (manifest.name === name) return manifest.version;
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  return "";
};

function expires(seconds) {
  let timer;
  const promise = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no end after ${seconds} s`)), seconds * 1000);
  });
  return { promise, stop: () => clearTimeout(timer) };
}

// Run named scenarios, `async (run) => ...`; the surface lists what the client can do, as `label.method`.
exports.main = async (title, version, surface, scenarios) => {
  const stamp = process.hrtime.bigint().toString(16);
  const covered = new Set();
  for (const [name, scenario] of Object.entries(scenarios)) {
    if (only.length && !only.includes(name)) continue;
    const prefix = `${stamp}:${name.replace(/ /g, "_")}`;
    const run = { calls: new Map(), key: (part = "k") => `${prefix}:${part}` };
    const started = Date.now();
    const deadline = expires(SECONDS_A_SCENARIO);
    let error = null;
    try {
      await Promise.race([scenario(run), deadline.promise]);
    } catch (problem) {
      error = `${problem}`;
    }
    deadline.stop();
    run.calls.forEach((_, operation) => covered.add(operation));
    const operations = [...run.calls.values()].reduce((sum, calls) => sum + calls, 0);
    const seconds = (Date.now() - started) / 1000;
    process.stdout.write(JSON.stringify({ scenario: name, operations, seconds, error }) + "\n");
  }
  const missing = only.length ? [] : surface.filter((operation) => !covered.has(operation));
  const summary = { title, version, covered: [...covered].sort(), missing };
  process.stdout.write(JSON.stringify(summary) + "\n", () => process.exit(0));
};
