"""Queues for a lock or a slot of a semaphore, reports when it is granted, and releases it on request.

    contend.py HOST PORT KEY [LIMIT]

Prints `granted <token>` once it holds the lock, or a slot of a semaphore of that limit. Releases it when a line comes on standard input.
"""

import sys

from dflockd_client import SyncDistributedLock, SyncDistributedSemaphore


def main():
    host, port, key, *limit = sys.argv[1:]
    options = {"servers": [(host, int(port))], "acquire_timeout_s": 60}
    if limit:
        handle = SyncDistributedSemaphore(key, limit=int(limit[0]), **options)
    else:
        handle = SyncDistributedLock(key, **options)
    if not handle.acquire():
        sys.exit("it was not granted within a minute")
    print(f"granted {handle.token}", flush=True)
    sys.stdin.readline()
    handle.release()


main()
