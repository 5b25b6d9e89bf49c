"""Takes a place in the queue of a lock, says when it holds it, and releases it when told to.

    contend.py HOST PORT KEY

Prints `granted <token>` once it holds the lock; releases it when a line comes on standard input.
"""

import sys

from dflockd_client import SyncDistributedLock


def main():
    host, port, key = sys.argv[1:]
    lock = SyncDistributedLock(key, servers=[(host, int(port))], acquire_timeout_s=60)
    if not lock.acquire():
        sys.exit("it was not granted within a minute")
    print(f"granted {lock.token}", flush=True)
    sys.stdin.readline()
    lock.release()


main()
