"""The Python client's handles, in asyncio tasks or in threads: python.py tasks|threads, and what measure.py says."""

import platform
import sys

from dflockd_client import AsyncDistributedLock, SyncDistributedLock, __version__

from measure import Task, with_tasks, with_threads


def main():
    kind, task = sys.argv[1], Task(sys.argv[2:])
    options = {"servers": [(task.host, task.port)]}
    task.version = f"{__version__}, Python {platform.python_version()}"

    def async_pair(key):
        lock = AsyncDistributedLock(key, **options)

        async def pair():
            async with lock:
                pass

        return pair

    def sync_pair(key):
        lock = SyncDistributedLock(key, **options)

        def pair():
            with lock:
                pass

        return pair

    if kind == "tasks":
        with_tasks(task, async_pair)
    else:
        with_threads(task, sync_pair)


main()
