"""Watches by the Python client `etcd3`, against the server named on the command line. Says "done" at its end."""

import sys

import etcd3

host, port = sys.argv[1].rsplit(":", 1)
etcd = etcd3.client(host=host, port=int(port), timeout=30)


def take(events, number):
    return [next(events) for _ in range(number)]


def told(events):
    kinds = {etcd3.events.PutEvent: "put", etcd3.events.DeleteEvent: "delete"}
    return [(kinds[type(event)], event.key, event.value) for event in events]


first = etcd.put("pyw/a", "1").header.revision
etcd.put("pyw/b", "2")
etcd.put("pyx", "not watched")
etcd.delete("pyw/a")

# What was, and then what comes.
events, cancel = etcd.watch_prefix("pyw/", start_revision=first, prev_kv=True)
seen = take(events, 3)
assert told(seen) == [("put", b"pyw/a", b"1"), ("put", b"pyw/b", b"2"), ("delete", b"pyw/a", b"")], told(seen)
assert seen[2].prev_value == b"1"
etcd.put("pyw/c", "3")
(now,) = take(events, 1)
assert told([now]) == [("put", b"pyw/c", b"3")]
cancel()
assert list(events) == [], "a watch that was cancelled has ended"

# Cut off, and resumed behind the last revision seen: nothing twice, nothing missing.
etcd.put("pyw/d", "while away")
etcd.close()
etcd = etcd3.client(host=host, port=int(port), timeout=30)
etcd.put("pyw/e", "5")
events, cancel = etcd.watch_prefix("pyw/", start_revision=now.mod_revision + 1)
assert told(take(events, 2)) == [("put", b"pyw/d", b"while away"), ("put", b"pyw/e", b"5")]
cancel()

# Several at once on one stream.
watches = [etcd.watch(f"pyw/{n}") for n in range(20)]
for n in range(20):
    etcd.put(f"pyw/{n}", str(n))
for n, (events, cancel) in enumerate(watches):
    assert told(take(events, 1)) == [("put", b"pyw/%d" % n, b"%d" % n)]
    cancel()

etcd.close()
print("done")
