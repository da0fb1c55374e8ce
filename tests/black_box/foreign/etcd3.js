// What users of the Node client `etcd3` do, against the servers named on the command line. Says "done" at its end.
"use strict";
const assert = require("node:assert/strict");
const { Etcd3 } = require("etcd3");
const errors = require("etcd3");

const hosts = process.argv[2].split(",").map((address) => `http://${address}`);
const etcd = new Etcd3({ hosts });

async function refused(kind, words, call) {
  const error = await call().then(
    () => assert.fail(`it should have been refused with ${words}`),
    (error) => error,
  );
  assert.ok(error instanceof kind, `${error.name}: ${error.message}`);
  assert.ok(error.message.includes(words), error.message);
}

async function main() {
  // Keys.
  assert.equal(await etcd.get("js/absent").string(), null);
  await etcd.put("js/a").value("1");
  assert.equal((await etcd.put("js/a").value("2").getPrevious()).value.toString(), "1");
  await etcd.put("js/a").touch();
  const [kv] = (await etcd.get("js/a").exec()).kvs;
  assert.deepEqual([kv.key.toString(), kv.value.toString(), kv.version, kv.lease], ["js/a", "2", "3", "0"]);
  assert.ok(BigInt(kv.mod_revision) > BigInt(kv.create_revision));
  assert.equal(await etcd.get("js/a").revision(kv.create_revision).string(), "1");
  assert.equal(await etcd.get("js/a").serializable(true).number(), 2);
  assert.equal(await etcd.get("js/a").exists(), true);

  // Ranges.
  await etcd.put("js/b").value("0");
  await etcd.put("js/c").value("1");
  assert.deepEqual(await etcd.getAll().prefix("js/").strings(), { "js/a": "2", "js/b": "0", "js/c": "1" });
  assert.deepEqual(await etcd.getAll().prefix("js/").limit(2).keys(), ["js/a", "js/b"]);
  assert.deepEqual(await etcd.getAll().prefix("js/").sort("Value", "Descend").keys(), ["js/a", "js/c", "js/b"]);
  assert.deepEqual(await etcd.getAll().inRange({ start: "js/b", end: "js/c" }).keys(), ["js/b"]);
  assert.equal(await etcd.getAll().prefix("js/").count(), 3);
  assert.deepEqual(await etcd.getAll().prefix("js/").minCreateRevision(BigInt(kv.mod_revision) + 1n + "").keys(), ["js/b", "js/c"]);

  // Deletions.
  assert.equal((await etcd.delete().key("js/c").getPrevious())[0].value.toString(), "1");
  assert.equal((await etcd.delete().key("js/c").exec()).deleted, "0");
  assert.equal((await etcd.delete().prefix("js/").exec()).deleted, "2");

  // Transactions, by hand and by the client's software transactional memory.
  const txn = (version) => etcd.if("js/t", "Version", "==", version).and("js/absent", "Create", "==", 0)
    .then(etcd.put("js/t").value("1"), etcd.get("js/t")).else(etcd.get("js/t")).commit();
  const first = await txn(0);
  assert.equal(first.succeeded, true);
  assert.equal(first.responses[1].response_range.kvs[0].value.toString(), "1");
  assert.equal((await txn(0)).succeeded, false);
  const adders = Array.from({ length: 4 }, () => etcd.stm().transact(async (stm) => {
    await stm.put("js/t").value((await stm.get("js/t").number()) + 1);
  }));
  await Promise.all(adders);
  assert.equal(await etcd.get("js/t").number(), 5);

  // Leases.
  const lease = etcd.lease(60, { autoKeepAlive: false });
  await lease.put("js/leased").value("1");
  assert.equal((await etcd.get("js/leased").exec()).kvs[0].lease, await lease.grant());
  await lease.keepaliveOnce();
  const told = await etcd.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true });
  assert.deepEqual([told.grantedTTL, told.keys[0].toString()], ["60", "js/leased"]);
  await lease.revoke();
  assert.equal(await etcd.get("js/leased").string(), null);

  // Locks and elections.
  const lock = etcd.lock("js/lock").ttl(30);
  await lock.acquire();
  await refused(errors.EtcdLockFailedError, "", () => etcd.lock("js/lock").ttl(30).acquire());
  await lock.release();
  await etcd.lock("js/lock").ttl(30).do(async () => assert.equal(await etcd.get("js/lock").exists(), true));
  const campaign = etcd.election("js/election", 30).campaign("me");
  await new Promise((elected, failed) => campaign.on("elected", elected).on("error", failed));
  assert.equal(await etcd.election("js/election").leader(), "me");
  await campaign.resign();
  assert.equal(await etcd.election("js/election").leader(), undefined);

  // The server about itself.
  assert.ok(BigInt((await etcd.maintenance.status()).dbSize) > 0n);
  assert.equal((await etcd.cluster.memberList({})).members.length, 3);

  // One error of each kind.
  const invalid = errors.GRPCInvalidArgumentError;
  await refused(invalid, "etcdserver: key is not provided", () => etcd.put("").value("v").exec());
  await refused(invalid, "etcdserver: request is too large", () => etcd.put("js/large").value("x".repeat(1_600_000)).exec());
  await refused(invalid, "etcdserver: duplicate key given in txn request", () =>
    etcd.if("js/t", "Version", ">", 0).then(etcd.put("js/t").value("1"), etcd.put("js/t").value("2")).commit());
  await refused(errors.EtcdLeaseInvalidError, "etcdserver: requested lease not found", () =>
    etcd.leaseClient.leaseRevoke({ ID: "7" }));
  await refused(errors.GRPCOutOfRangeError, "etcdserver: mvcc: required revision is a future revision", () =>
    etcd.get("js/t").revision("1099511627776").exec());
  await etcd.leaseClient.leaseGrant({ ID: "158", TTL: "60" });
  await refused(errors.GRPCFailedPreconditionError, "etcdserver: lease already exists", () =>
    etcd.leaseClient.leaseGrant({ ID: "158", TTL: "60" }));
  await etcd.leaseClient.leaseRevoke({ ID: "158" });
  assert.equal(await etcd.get("js/t").number(), 5, "no refused call has changed anything");
}

main().then(
  () => { etcd.close(); console.log("done"); },
  (error) => { console.error(error); process.exit(1); },
);
