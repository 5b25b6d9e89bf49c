"""Waits for a lock or a slot of a semaphore, reports the grant, and releases the lease on request.

    contend.py HOST PORT KEY [LIMIT]

With LIMIT, the lease is a slot of a semaphore, otherwise a lock. Prints `granted <token>` when it holds the lease. Releases the
lease when it reads a line from standard input.
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
