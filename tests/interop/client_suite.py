"""Drives the installed Python client against a running server: handles and low-level functions, async and sync.

    client_suite.py HOST PORT [--auth TOKEN] [--ca FILE [--certificate FILE --key FILE]]

Prints a line per check; exits with 1 if any failed.
"""

import argparse
import asyncio
import inspect
import socket
import ssl
import sys
import time
import traceback

import dflockd_client

MAJOR = int(dflockd_client.__version__.split(".")[0])
if MAJOR == 1:
    from dflockd_client import client as async_functions
    from dflockd_client import sync_client as sync_functions
else:
    from dflockd_client import _async as async_functions
    from dflockd_client import _sync as sync_functions

HANDLES = {
    "async": (dflockd_client.AsyncDistributedLock, dflockd_client.AsyncDistributedSemaphore),
    "sync": (dflockd_client.SyncDistributedLock, dflockd_client.SyncDistributedSemaphore),
}


async def call(function, *arguments):
    """Calls a coroutine function, or a blocking one in a thread: one suite serves both APIs."""
    if inspect.iscoroutinefunction(function):
        return await function(*arguments)
    return await asyncio.to_thread(function, *arguments)


class Peer:
    """Makes handles and connections for one server and one API."""

    def __init__(self, host, port, auth, tls, api):
        self.server, self.auth, self.tls, self.api = (host, port), auth, tls, api
        self.functions = async_functions if api == "async" else sync_functions

    def options(self, extra):
        common = {"servers": [self.server], "auth_token": self.auth, "ssl_context": self.tls, "acquire_timeout_s": 5}
        return {**common, **extra}

    def lock(self, key, **extra):
        return HANDLES[self.api][0](f"{self.api}-{key}", **self.options(extra))

    def semaphore(self, key, limit, **extra):
        return HANDLES[self.api][1](f"{self.api}-{key}", limit=limit, **self.options(extra))

    async def close(self, handle):
        await call(handle.aclose if self.api == "async" else handle.close)

    async def connect(self):
        """Connects, and returns the leading arguments of the low-level functions."""
        host, port = self.server
        if MAJOR > 1:
            async_open, sync_open = async_functions.open_conn, sync_functions.open_conn
            options = {"ssl_context": self.tls, "connect_timeout_s": 5.0}
            if self.api == "async":
                return (await async_open(host, port, **options),)
            return (sync_open(host, port, **options),)
        if self.api == "async":
            return await asyncio.open_connection(host, port, ssl=self.tls)
        connection = socket.create_connection((host, port), timeout=10)
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_hostname=host)
        return connection, connection.makefile("r", encoding="utf-8")

    async def run(self, name, connection, *arguments):
        return await call(getattr(self.functions, name), *connection, *arguments)


async def raises(kind, awaitable):
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"gave {result!r} where {kind.__name__} was due")


async def lock_is_exclusive(peer):
    first, second = peer.lock("exclusive"), peer.lock("exclusive", acquire_timeout_s=1)
    assert await call(first.acquire) is True
    assert first.token and len(first.token) == 32
    assert await call(second.acquire) is False, "it is held"
    assert await call(first.release) is True
    assert await call(second.acquire) is True
    assert await call(second.release) is True


async def waiters_are_served_in_order(peer):
    holder = peer.lock("order")
    assert await call(holder.acquire)
    served = []

    async def wait(name):
        handle = peer.lock("order")
        assert await call(handle.acquire)
        served.append(name)
        await call(handle.release)

    waiting = []
    for name in range(4):
        waiting.append(asyncio.create_task(wait(name)))
        await waiters(peer, f"{peer.api}-order", name + 1)
    await call(holder.release)
    await asyncio.gather(*waiting)
    assert served == [0, 1, 2, 3], served


async def waiters(peer, key, count):
    connection = await open_authenticated(peer)
    for _ in range(2000):
        stats = await peer.run("stats", connection)
        if any(lock["key"] == key and lock["waiters"] == count for lock in stats["locks"]):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{key} never had {count} waiters: {stats}")


async def open_authenticated(peer):
    connection = await peer.connect()
    if peer.auth is not None and MAJOR > 1:
        await peer.run("authenticate", connection, peer.auth)
    elif peer.auth is not None and peer.api == "async":
        connection[1].write(f"auth\n_\n{peer.auth}\n".encode())
        assert await connection[0].readline() == b"ok\n"
    elif peer.auth is not None:
        connection[0].sendall(f"auth\n_\n{peer.auth}\n".encode())
        assert connection[1].readline() == "ok\n"
    return connection


async def renewal_keeps_a_short_lease(peer):
    # The client renews this lease every 1.5 s. It cannot renew more than once a second, so it would lose a lease with a
    # TTL of one second.
    # The release comes after 4 s, between two renewals. If a release overlaps with a renewal, client 1.9.0 confuses
    # their answers.
    holder, other = peer.lock("renewed", lease_ttl_s=3), peer.lock("renewed", acquire_timeout_s=4)
    assert await call(holder.acquire)
    assert await call(other.acquire) is False, "it is renewed"
    assert await call(holder.release)


async def closing_frees(peer):
    holder, other = peer.lock("closed"), peer.lock("closed")
    assert await call(holder.acquire)
    await peer.close(holder)
    assert await call(other.acquire)
    await call(other.release)


async def two_phases(peer):
    first, second = peer.lock("phases"), peer.lock("phases")
    assert await call(first.enqueue) == "acquired"
    assert await call(second.enqueue) == "queued"
    assert await call(first.wait, 1) is True
    assert await call(first.release)
    assert await call(second.wait, 5) is True
    third = peer.lock("phases")
    assert await call(third.enqueue) == "queued"
    assert await call(third.wait, 1) is False
    assert await call(second.release)


async def semaphore_has_its_limit(peer):
    slots = [peer.semaphore("slots", 2) for _ in range(2)]
    for slot in slots:
        assert await call(slot.acquire)
    third = peer.semaphore("slots", 2, acquire_timeout_s=1)
    assert await call(third.acquire) is False
    await raises(RuntimeError, call(peer.semaphore("slots", 3).acquire))
    assert await call(slots[0].release)
    assert await call(third.acquire)
    queued = peer.semaphore("slots", 2)
    assert await call(queued.enqueue) == "queued"
    for slot in (slots[1], third):
        assert await call(slot.release)
    assert await call(queued.wait, 5) is True
    assert await call(queued.release)


async def low_level_locks(peer):
    connection, other = await open_authenticated(peer), await open_authenticated(peer)
    key = f"{peer.api}-low"
    token, ttl = await peer.run("acquire", connection, key, 0, 7)
    assert ttl == 7
    await raises(TimeoutError, peer.run("acquire", other, key, 0))
    assert await peer.run("renew", connection, key, token, 9) == 9
    status, granted, lease = await peer.run("enqueue", other, key, 5)
    assert (status, granted, lease) == ("queued", None, None)
    await raises(RuntimeError, peer.run("release", connection, key, "0" * 32))
    await peer.run("release", connection, key, token)
    token, ttl = await peer.run("wait", other, key, 5)
    assert ttl == 5
    await peer.run("release", other, key, token)
    status, token, ttl = await peer.run("enqueue", connection, key)
    assert (status, ttl) == ("acquired", 33), (status, ttl)
    await peer.run("release", connection, key, token)
    if MAJOR > 1:
        first = dflockd_client.fence_from_token(token)
        token, _ = await peer.run("acquire", connection, key, 0)
        assert dflockd_client.fence_from_token(token) > first, "fences grow"
        await peer.run("release", connection, key, token)


async def low_level_semaphores(peer):
    connection, other = await open_authenticated(peer), await open_authenticated(peer)
    key = f"{peer.api}-low-slots"
    token, ttl = await peer.run("sem_acquire", connection, key, 0, 1, 7)
    assert ttl == 7
    assert await peer.run("sem_renew", connection, key, token, 9) == 9
    status, _, _ = await peer.run("sem_enqueue", other, key, 1, 5)
    assert status == "queued"
    await peer.run("sem_release", connection, key, token)
    token, ttl = await peer.run("sem_wait", other, key, 5)
    assert ttl == 5
    await peer.run("sem_release", other, key, token)


async def stats_tell_all(peer):
    connection = await open_authenticated(peer)
    held, slot = peer.lock("told"), peer.semaphore("told", 3)
    assert await call(held.acquire) and await call(slot.acquire)
    stats = await peer.run("stats", connection)
    assert stats["connections"] >= 3
    [lock] = [lock for lock in stats["locks"] if lock["key"] == f"{peer.api}-told"]
    assert lock["waiters"] == 0 and lock["lease_expires_in_s"] > 0 and lock["owner_conn_id"] > 0
    [semaphore] = [entry for entry in stats["semaphores"] if entry["key"] == f"{peer.api}-told"]
    assert (semaphore["limit"], semaphore["holders"], semaphore["waiters"]) == (3, 1, 0)
    await call(held.release)
    await call(slot.release)
    stats = await peer.run("stats", connection)
    assert any(entry["key"] == f"{peer.api}-told" for entry in stats["idle_locks"])
    assert any(entry["key"] == f"{peer.api}-told" for entry in stats["idle_semaphores"])


async def a_wrong_secret_is_refused(peer):
    if peer.auth is None:
        return
    for secret in ("wrong", None):
        handle = peer.lock("secret", auth_token=secret)
        error = await raises((RuntimeError, PermissionError), call(handle.acquire))
        assert "auth" in str(error).lower(), error
    right = peer.lock("secret")
    assert await call(right.acquire) and await call(right.release)


async def a_server_that_is_not_trusted_is_left(peer):
    if peer.tls is None:
        return
    handle = peer.lock("stranger", ssl_context=ssl.create_default_context())
    error = await raises(Exception, call(handle.acquire))
    assert "certificate" in repr(error).lower(), repr(error)
    plain = peer.lock("plain", ssl_context=None)
    await raises(Exception, call(plain.acquire))


CHECKS = [
    lock_is_exclusive,
    waiters_are_served_in_order,
    renewal_keeps_a_short_lease,
    closing_frees,
    two_phases,
    semaphore_has_its_limit,
    low_level_locks,
    low_level_semaphores,
    stats_tell_all,
    a_wrong_secret_is_refused,
    a_server_that_is_not_trusted_is_left,
]


async def check(peer, function):
    name = f"{peer.api} {function.__name__}"
    started = time.monotonic()
    try:
        await asyncio.wait_for(function(peer), 60)
    except BaseException:
        traceback.print_exc()
        print(f"FAILED {name}", flush=True)
        return False
    print(f"ok {name} ({time.monotonic() - started:.2f} s)", flush=True)
    return True


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--auth")
    parser.add_argument("--ca", help="talk TLS, and trust the authority in this file")
    parser.add_argument("--certificate", help="present this certificate")
    parser.add_argument("--key", help="its private key")
    arguments = parser.parse_args()
    tls = None
    if arguments.ca:
        tls = ssl.create_default_context(cafile=arguments.ca)
        if arguments.certificate:
            tls.load_cert_chain(arguments.certificate, arguments.key)
    peers = [Peer(arguments.host, arguments.port, arguments.auth, tls, api) for api in ("async", "sync")]
    results = await asyncio.gather(*(check(peer, function) for function in CHECKS for peer in peers))
    passed = sum(results)
    print(f"client {dflockd_client.__version__}: {passed} of {len(results)} passed")
    return 0 if passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
