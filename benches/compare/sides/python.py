"""The sides that use the Python client's handles, in asyncio tasks or in threads.

    python.py tasks|threads ARGUMENTS

measure.py describes the ARGUMENTS. The sides call `acquire` and `release` and check the results, so that only complete
pairs count. They do not use `with` and `async with`, which only log that a release failed.
"""

import platform
import sys

from dflockd_client import AsyncDistributedLock, SyncDistributedLock, __version__

from measure import Task, with_tasks, with_threads


def check(is_done):
    """Raises an error if an acquire or a release failed.

    An `assert` is not enough, because PYTHONOPTIMIZE removes it together with the call in it.
    """
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
