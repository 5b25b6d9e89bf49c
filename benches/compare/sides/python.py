"""The Python client's handles, in asyncio tasks or in threads: python.py tasks|threads, and the arguments that measure.py describes.

`with` and `async with` log that a release failed, and go on. Here that is a failure, so that only complete pairs count.
"""

import platform
import sys

from dflockd_client import AsyncDistributedLock, SyncDistributedLock, __version__

from measure import Task, with_tasks, with_threads


def check(is_done):
    """Fails if an operation was not done. An `assert` would not do: an environment can disable it, together with the call inside it."""
    if is_done is not True:
        raise RuntimeError("not acquired, or not released")


def main():
    kind, task = sys.argv[1], Task(sys.argv[2:])
    options = {"servers": [(task.host, task.port)]}
    task.version = f"{__version__}, Python {platform.python_version()}"

    def async_pair(key):
        lock = AsyncDistributedLock(key, **options)

        async def pair():
            check(await lock.acquire())
            check(await lock.release())

        return pair

    def sync_pair(key):
        lock = SyncDistributedLock(key, **options)

        def pair():
            check(lock.acquire())
            check(lock.release())

        return pair

    if kind == "tasks":
        with_tasks(task, async_pair)
    else:
        with_threads(task, sync_pair)


main()
