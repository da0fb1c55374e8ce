// Watches by the Node client `etcd3`, against the servers named on the command line. Says "done" at its end.
"use strict";
const assert = require("node:assert/strict");
const { Etcd3 } = require("etcd3");

const hosts = process.argv[2].split(",").map((address) => `http://${address}`);

// The next so many events of a watcher, which collects them from its beginning.
function collect(watcher) {
  const seen = [];
  let wake = () => {};
  const note = (kind) => (kv, previous) => {
    seen.push({ kind, key: kv.key.toString(), value: kv.value.toString(), revision: BigInt(kv.mod_revision), previous });
    wake();
  };
  watcher.on("put", note("put")).on("delete", note("delete"));
  return async (number) => {
    while (seen.length < number) await new Promise((resolve) => { wake = resolve; });
    return seen.splice(0, number);
  };
}

const told = (events) => events.map(({ kind, key, value }) => `${kind} ${key} ${value}`.trim());

async function main() {
  let etcd = new Etcd3({ hosts });
  const first = (await etcd.put("jsw/a").value("1").exec()).header.revision;
  await etcd.put("jsw/b").value("2");
  await etcd.put("jsx").value("not watched");
  await etcd.delete().key("jsw/a");

  // What was, and then what comes.
  let watcher = etcd.watch().prefix("jsw/").startRevision(first).withPreviousKV().watcher();
  let next = collect(watcher);
  const seen = await next(3);
  assert.deepEqual(told(seen), ["put jsw/a 1", "put jsw/b 2", "delete jsw/a"]);
  assert.equal(seen[2].previous.value.toString(), "1");
  await etcd.put("jsw/c").value("3");
  const [now] = await next(1);
  assert.deepEqual(told([now]), ["put jsw/c 3"]);
  await watcher.cancel();

  // Cut off, and resumed behind the last revision seen.
  await etcd.put("jsw/d").value("while away");
  etcd.close();
  etcd = new Etcd3({ hosts });
  await etcd.put("jsw/e").value("5");
  watcher = await etcd.watch().prefix("jsw/").startRevision((now.revision + 1n).toString()).create();
  next = collect(watcher);
  assert.deepEqual(told(await next(2)), ["put jsw/d while away", "put jsw/e 5"]);
  await watcher.cancel();

  // Filters, and several watches at once.
  const deletions = await etcd.watch().key("jsw/f").only("delete").create();
  const onlyDeletions = collect(deletions);
  const many = await Promise.all(Array.from({ length: 20 }, (_, n) => etcd.watch().key(`jsw/${n}`).create()));
  const collected = many.map(collect);
  await etcd.put("jsw/f").value("6");
  await etcd.delete().key("jsw/f");
  for (let n = 0; n < 20; n++) await etcd.put(`jsw/${n}`).value(`${n}`);
  assert.deepEqual(told(await onlyDeletions(1)), ["delete jsw/f"]);
  for (let n = 0; n < 20; n++) assert.deepEqual(told(await collected[n](1)), [`put jsw/${n} ${n}`]);
  await Promise.all([deletions, ...many].map((watch) => watch.cancel()));

  // An election is observed, and won when the leader resigns.
  const boss = etcd.election("jsw/election", 30).campaign("first");
  await new Promise((elected, failed) => boss.on("elected", elected).on("error", failed));
  const observer = await etcd.election("jsw/election").observe();
  assert.equal(observer.leader(), "first");
  const heir = etcd.election("jsw/election", 30).campaign("second");
  const elected = new Promise((elected, failed) => heir.on("elected", elected).on("error", failed));
  const changed = new Promise((resolve) => observer.on("change", (leader) => { if (leader === "second") resolve(); }));
  await boss.resign();
  await elected;
  await changed;
  await observer.cancel();
  await heir.resign();
  etcd.close();
}

main().then(
  () => { console.log("done"); process.exit(0); },
  (error) => { console.error(error); process.exit(1); },
);
