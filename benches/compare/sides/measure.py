"""The common part of the Python sides: the arguments of all sides, and the counting of pairs.

    SIDE HOST PORT KEYS PREFIX WORKERS WARM SECONDS

KEYS is `own` (a key for each worker) or `one` (the same key for all). Pairs in the first WARM seconds do not count, nor do those before there
were as many pairs as workers. The pairs of the SECONDS after that count; one line of JSON reports their number.
"""

import asyncio
import json
import os
import sys
import threading
import time

# After this many seconds the warm-up no longer waits until there are as many pairs as workers.
LONGEST_WARM_UP = 5.0


class Task:
    """The arguments of a measurement, and its counters."""

    def __init__(self, arguments):
        host, port, keys, prefix, workers, warm, seconds = arguments
        self.host, self.port = host, int(port)
        self.workers, self.warm, self.seconds = int(workers), float(warm), float(seconds)
        own = keys == "own"
        self.keys = [f"{prefix}/{worker if own else 'one'}" for worker in range(self.workers)]
        self.counts = [0] * self.workers
        self.version = None
        self.lock = threading.Lock()
        self.started = time.perf_counter()
        self.began = self.before = None

    def count(self, worker):
        """Counts a pair. The workers read the clock themselves: with a thousand threads, a separate thread for the clock might not run for seconds."""
        self.counts[worker] += 1
        now = time.perf_counter()
        since, length = (self.started, self.warm) if self.began is None else (self.began, self.seconds)
        if now - since >= length:
            with self.lock:
                self.advance(now)

    def advance(self, now):
        """Ends the warm-up, or prints the result and ends the process, whatever its workers do."""
        pairs = sum(self.counts)
        if self.began is None:
            if pairs >= self.workers or now - self.started >= LONGEST_WARM_UP:
                self.before, self.began = pairs, now
        elif now - self.began >= self.seconds:
            result = {"version": self.version, "pairs": pairs - self.before, "seconds": now - self.began}
            print(json.dumps(result), flush=True)
            os._exit(0)

    def fail(self, failure):
        """Prints the failure, and ends the process."""
        print(repr(failure), file=sys.stderr, flush=True)
        os._exit(1)


def with_tasks(task, make):
    """Runs `make(key)`, which returns a coroutine function that makes one pair, in asyncio tasks."""

    async def work(worker):
        try:
            pair = make(task.keys[worker])
            while True:
                await pair()
                task.count(worker)
        except Exception as failure:
            task.fail(failure)

    async def main():
        await asyncio.gather(*(work(worker) for worker in range(task.workers)))

    asyncio.run(main())


def with_threads(task, make):
    """Runs `make(key)`, which returns a function that makes one pair, in threads."""

    def work(worker):
        try:
            pair = make(task.keys[worker])
            while True:
                pair()
                task.count(worker)
        except Exception as failure:
            task.fail(failure)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(task.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
