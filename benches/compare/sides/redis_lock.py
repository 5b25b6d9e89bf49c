"""The side that uses the lock of redis-py, in asyncio tasks. measure.py describes the arguments."""

import platform
import sys

import redis
import redis.asyncio

from measure import Task, with_tasks


def main():
    task = Task(sys.argv[1:])
    task.version = f"{redis.__version__}, Python {platform.python_version()}"
    client = redis.asyncio.Redis(host=task.host, port=task.port, max_connections=task.workers)

    def make(key):
        lock = client.lock(key, timeout=33)

        async def pair():
            async with lock:
                pass

        return pair

    with_tasks(task, make)


main()
