"""The cluster client of redis-py: it learns the nodes and goes to each directly.

    redis_py_cluster.py HOST:PORT [NODES]

NODES is how many nodes the server must show (default 1).
"""
import sys

import redis
from redis.cluster import ClusterNode, RedisCluster


def check(got, expected, what=""):
    assert got == expected, "%s: got %r, expected %r" % (what, got, expected)


def slots(r):
    info = r.cluster_info(target_nodes=r.get_random_node())
    check(info["cluster_state"], "ok")
    check(int(info["cluster_slots_assigned"]), 16384)
    check(r.cluster_keyslot("foo"), 12182)
    check(r.cluster_keyslot("{user1000}.a"), 3443)
    covered = set()
    for first, last in r.cluster_slots(target_nodes=r.get_random_node()):
        covered.update(range(first, last + 1))
    check(covered, set(range(16384)))
    check(len(r.cluster_shards(target_nodes=r.get_random_node())) >= 1, True)
    check(len(r.cluster_nodes()) >= 1, True)
    check(len(r.cluster_myid(r.get_random_node())), 40)


def commands(r):
    for i in range(1000):
        check(r.set("key:%d" % i, i), True)
    for i in range(1000):
        check(r.get("key:%d" % i), b"%d" % i)
    check(r.dbsize(target_nodes=RedisCluster.PRIMARIES), 1000)
    check(len(set(r.scan_iter(match="key:*", count=100))), 1000)
    check(len(r.keys("key:1*", target_nodes=RedisCluster.PRIMARIES)), 111)
    check(r.delete("key:1", "key:2", "key:3"), 3)
    check(r.exists("key:1", "key:4", "key:5"), 2)
    check(r.mset({"{t}a": 1, "{t}b": 2}), True)
    check(r.mget("{t}a", "{t}b"), [b"1", b"2"])
    check(r.mset_nonatomic({"x": 1, "y": 2, "z": 3}) is not None, True)
    check(r.mget_nonatomic("x", "y", "z", "w"), [b"1", b"2", b"3", None])
    check(r.incr("n"), 1)
    check(r.append("s", "abc"), 3)
    check(r.expire("s", 100), True)
    check(r.ttl("s") in (99, 100), True)
    check(r.rename("{t}a", "{t}c"), True)
    check(r.copy("{t}c", "{t}d"), True)
    check(r.getdel("{t}d"), b"1")
    check(r.cluster_countkeysinslot(12182), 0)
    r.set("foo", 1)
    check(r.cluster_countkeysinslot(12182), 1)
    check(r.unlink("foo", "x", "y"), 3)
    check(r.ping(target_nodes=RedisCluster.ALL_NODES), True)


def pipelines(r):
    with r.pipeline() as p:
        for i in range(300):
            p.set("p%d" % i, i)
            p.get("p%d" % i)
        check(p.execute(), [x for i in range(300) for x in (True, b"%d" % i)])


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    expected = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for protocol in (2, 3):
        with RedisCluster(startup_nodes=[ClusterNode(host, int(port))], protocol=protocol) as r:
            nodes = r.get_primaries()
            check(len(nodes), expected, "nodes")
            check(len({n.port for n in nodes}), expected, "ports")
            r.flushall(target_nodes=RedisCluster.PRIMARIES)
            slots(r)
            commands(r)
            pipelines(r)
            check(len({r.get_node_from_key("key:%d" % i).port for i in range(100)}), expected, "owners")
            r.flushall(target_nodes=RedisCluster.PRIMARIES)
        with RedisCluster(startup_nodes=[ClusterNode(host, int(port))], protocol=protocol, read_from_replicas=True) as r:
            r.set("read", "only")
            check(r.get("read"), b"only")
    print("redis-py %s cluster: ok" % redis.__version__)


main()
