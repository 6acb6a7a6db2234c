"""A group of three whose members are processes, one of which is killed: what the Python clients' scripts share.

A script that is called as `SCRIPT HOST:PORT member TOPIC GROUP` is a member: it calls `saw` for each record.
"""

import subprocess
import sys
import threading
import time


def saw(partition, offset):
    print(partition, offset, flush=True)


def wait(condition, what, seconds=30):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, what
        time.sleep(0.05)


def group_of_three(servers, topic, group, produce):
    """Has three members read `topic`, kills one, and has the others read all the same. `produce` says how many it sent."""
    command = [sys.executable, "-W", "ignore", sys.argv[0], servers, "member", topic, group]
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    seen = [set() for _ in members]

    def collect(member, records):
        for line in member.stdout:
            records.add(tuple(map(int, line.split())))

    for pair in zip(members, seen):
        threading.Thread(target=collect, args=pair, daemon=True).start()
    try:
        sent, deadline = 0, time.time() + 30
        while not all(seen):
            assert time.time() < deadline, f"each member has partitions: {list(map(len, seen))}"
            sent += produce()
            time.sleep(0.3)
        wait(lambda: len(set.union(*seen)) == sent, "all records by three members")
        members[2].kill()
        sent += produce()
        wait(lambda: len(set.union(*seen)) == sent, "all records by the two that are left")
    finally:
        for member in members:
            member.kill()
            member.wait()
