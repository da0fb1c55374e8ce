"""What users of the Python client `etcd3` do, against the server named on the command line. Says "done" at its end."""

import sys

import etcd3
import grpc

host, port = sys.argv[1].rsplit(":", 1)


def connect():
    return etcd3.client(host=host, port=int(port), timeout=30)


etcd = connect()


def refused(code, words, call):
    try:
        call()
    except grpc.RpcError as error:
        assert (error.code().name, error.details()) == (code, words), error
        return
    raise AssertionError(f"it should have been refused with {words}")


# Keys.
assert etcd.get("py/absent") == (None, None)
etcd.put("py/a", "1")
previous = etcd.put("py/a", "2", prev_kv=True).prev_kv
assert (previous.value, previous.version) == (b"1", 1)
value, meta = etcd.get("py/a")
assert (value, meta.key, meta.version) == (b"2", b"py/a", 2)
assert meta.mod_revision > meta.create_revision and meta.lease_id == 0
assert etcd.get("py/a", serializable=True)[0] == b"2"
assert etcd.put_if_not_exists("py/b", "x") and not etcd.put_if_not_exists("py/b", "y")
assert etcd.replace("py/b", "x", "0") and not etcd.replace("py/b", "x", "z")

# Ranges.
etcd.put("py/c", "1")
assert [meta.key for _, meta in etcd.get_prefix("py/")] == [b"py/a", b"py/b", b"py/c"]
by_value = etcd.get_prefix("py/", sort_order="ascend", sort_target="value")
assert [value for value, _ in by_value] == [b"0", b"1", b"2"]
downwards = etcd.get_range("py/a", "py/c", sort_order="descend")
assert [meta.key for _, meta in downwards] == [b"py/b", b"py/a"]
assert [value for value, _ in etcd.get_prefix("py/", keys_only=True)] == [b"", b"", b""]
assert etcd.get_prefix_response("py/").count == 3

# Deletions.
assert etcd.delete("py/c", prev_kv=True, return_response=True).prev_kvs[0].value == b"1"
assert not etcd.delete("py/c")
assert etcd.delete_prefix("py/").deleted == 2

# Transactions.
tx = etcd.transactions
etcd.put("py/t", "1")
succeeded, responses = etcd.transaction(
    compare=[tx.value("py/t") == "1", tx.version("py/t") > 0, tx.create("py/absent") == 0],
    success=[tx.put("py/t", "2"), tx.get("py/t"), tx.delete("py/absent")],
    failure=[tx.put("py/t", "wrong")],
)
assert succeeded and responses[1][0][0] == b"2", responses
succeeded, responses = etcd.transaction(
    compare=[tx.mod("py/t") == 1], success=[tx.delete("py/t")], failure=[tx.get("py/t")]
)
assert not succeeded and responses[0][0][0] == b"2"

# Leases.
lease = etcd.lease(60)
etcd.put("py/leased", "1", lease=lease)
assert etcd.get("py/leased")[1].lease_id == lease.id
assert [answer.TTL for answer in lease.refresh()] == [60]
assert 0 < lease.remaining_ttl <= 60 and lease.granted_ttl == 60 and list(lease.keys) == [b"py/leased"]
lease.revoke()
assert etcd.get("py/leased") == (None, None)

# Locks.
with etcd.lock("py", ttl=30) as lock:
    assert lock.is_acquired()
    assert [answer.TTL for answer in lock.refresh()] == [30]
assert not lock.is_acquired()

# The server about itself.
assert etcd.status().db_size > 0
assert [member.name for member in etcd.members] == ["node1", "node2", "node3"]
assert list(etcd.list_alarms()) == []

# One error of each kind.
refused("INVALID_ARGUMENT", "etcdserver: key is not provided", lambda: etcd.put("", "v"))
refused("INVALID_ARGUMENT", "etcdserver: request is too large", lambda: etcd.put("py/large", b"x" * 1_600_000))
refused("NOT_FOUND", "etcdserver: requested lease not found", lambda: etcd.put("py/t", "v", lease=7))
refused("NOT_FOUND", "etcdserver: requested lease not found", lambda: etcd.revoke_lease(7))
refused("OUT_OF_RANGE", "etcdserver: mvcc: required revision is a future revision", lambda: etcd.compact(1 << 40))
twice = [tx.put("py/t", "1"), tx.put("py/t", "2")]
refused("INVALID_ARGUMENT", "etcdserver: duplicate key given in txn request", lambda: etcd.transaction([], twice, []))
many = [tx.get("py/t")] * 129
refused("INVALID_ARGUMENT", "etcdserver: too many operations in txn request", lambda: etcd.transaction([], many, []))
etcd.lease(60, lease_id=0x9E)
try:
    etcd.lease(60, lease_id=0x9E)
    raise AssertionError("there are two leases of one number")
except etcd3.exceptions.PreconditionFailedError:
    etcd.revoke_lease(0x9E)
assert etcd.get("py/t")[0] == b"2", "no refused call has changed anything"

etcd.close()
print("done")
