"""How many acquire+release pairs a second go through the Python client's async handles.

    pairs.py HOST PORT --tasks N --pairs M
"""

import argparse
import asyncio
import time

from dflockd_client import AsyncDistributedLock, __version__


async def work(arguments, task, pairs):
    lock = AsyncDistributedLock(f"pairs/{task}", servers=[(arguments.host, arguments.port)])
    for _ in range(pairs):
        assert await lock.acquire()
        assert await lock.release()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=5000)
    arguments = parser.parse_args()
    each = max(1, arguments.pairs // arguments.tasks)
    # A tenth of the work first, so that everything is warm.
    await asyncio.gather(*(work(arguments, task, each // 10 + 1) for task in range(arguments.tasks)))
    started = time.perf_counter()
    await asyncio.gather(*(work(arguments, task, each) for task in range(arguments.tasks)))
    elapsed = time.perf_counter() - started
    rate = each * arguments.tasks / elapsed
    print(f"Python {__version__}, {arguments.tasks} tasks: {rate:.0f} pairs/s")


asyncio.run(main())
