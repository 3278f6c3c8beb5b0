"use strict";
// npm's memcache-plus with autodiscover: it asks for the members once, when it connects.

const MemcachePlus = require("memcache-plus");
const net = require("net");
const { server, count, equal, check, versionOf, main } = require("../harness.js");

const connect = (run) => {
  const client = new MemcachePlus({ hosts: [server.address], autodiscover: true, reconnect: false });
  return count(run, client, "Client");
};

// The members that the server tells on a plain socket, as host:port.
const membersOf = () => new Promise((resolve, reject) => {
  const [host, port] = server.address.split(":");
  let answer = "";
  const socket = net.connect(+port, host, () => socket.write("config get cluster\r\n"));
  socket.on("error", reject);
  socket.on("data", (data) => {
    answer += data;
    if (!answer.endsWith("\n\r\nEND\r\n")) return;
    socket.end();
    const nodes = answer.split("\n")[2].trim().split(" ").map((node) => node.split("|"));
    resolve(nodes.map(([name, , number]) => `${name}:${number}`));
  });
});

const scenarios = {
  async "all members are found"(run) {
    const client = connect(run);
    await client.set(run.key(), "v");
    const members = await membersOf();
    check(members.length > 0, "the cluster has members");
    equal(Object.keys(client.connections).sort(), members.sort());
    await client.disconnect();
  },

  async "keys are spread over all members"(run) {
    const client = connect(run);
    for (let number = 0; number < 100; number += 1) await client.set(run.key(number), `value ${number}`);
    for (let number = 0; number < 100; number += 1) equal(await client.get(run.key(number)), `value ${number}`);
    equal(await client.delete(run.key(7)), true);
    equal(await client.get(run.key(7)), null);
    await client.disconnect();
  },
};

main("npm memcache-plus, autodiscover", versionOf("memcache-plus"), ["Client.set", "Client.get", "Client.delete", "Client.disconnect"], scenarios);
