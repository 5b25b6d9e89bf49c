"""Threads that acquire slots of one semaphore repeatedly. Each thread sends `enter` to a counter after it has acquired a
slot, and `leave` before it releases the slot.

    crowd.py HOST PORT KEY LIMIT OCCUPANCY_PORT THREADS ROUNDS

The counter answers `enter` and `leave` with `ok`. At the end, the program prints `done <number of acquires>`.
"""

import socket
import sys
import threading

from dflockd_client import SyncDistributedSemaphore


class Occupancy:
    def __init__(self, host, port):
        self.connection = socket.create_connection((host, port), timeout=60)
        self.answers = self.connection.makefile("r", encoding="utf-8")

    def say(self, what):
        self.connection.sendall(f"{what}\n".encode())
        assert self.answers.readline() == "ok\n", what


def work(host, port, key, limit, occupancy_port, rounds, done):
    occupancy = Occupancy(host, occupancy_port)
    semaphore = SyncDistributedSemaphore(key, limit=limit, servers=[(host, port)], acquire_timeout_s=60)
    for _ in range(rounds):
        assert semaphore.acquire(), "it was not granted within a minute"
        occupancy.say("enter")
        occupancy.say("leave")
        assert semaphore.release()
        done.append(1)


def main():
    host, key = sys.argv[1], sys.argv[3]
    port, limit, occupancy_port, threads, rounds = (int(sys.argv[i]) for i in (2, 4, 5, 6, 7))
    done = []
    workers = [
        threading.Thread(target=work, args=(host, port, key, limit, occupancy_port, rounds, done)) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(f"done {len(done)}", flush=True)


main()
