"""Publishes and subscribes with the Python client 1.9.0.

    signals.py HOST PORT async|sync subscribe PATTERN GROUP COUNT
    signals.py HOST PORT async|sync publish CHANNEL COUNT

A subscriber prints `ready`, then `<channel> <payload>` for each signal, and ends after COUNT signals. A publisher
prints the number of deliveries of each signal. The payloads are `<api> 0`, `<api> 1`, …
"""

import asyncio
import sys

from dflockd_client import AsyncSignalConn, Signal, SyncSignalConn, __version__

assert __version__.startswith("1."), __version__


def say(line):
    print(line, flush=True)


async def subscribe(server, pattern, group, count):
    async with AsyncSignalConn(server=server) as conn:
        await conn.listen(pattern, group=group)
        say("ready")
        async for signal in conn:
            assert isinstance(signal, Signal)
            say(f"{signal.channel} {signal.payload}")
            count -= 1
            if count == 0:
                break
        await conn.unlisten(pattern, group=group)


def subscribe_sync(server, pattern, group, count):
    with SyncSignalConn(server=server) as conn:
        conn.listen(pattern, group=group)
        say("ready")
        for signal in conn:
            say(f"{signal.channel} {signal.payload}")
            count -= 1
            if count == 0:
                break
        conn.unlisten(pattern, group=group)


async def publish(server, channel, count):
    async with AsyncSignalConn(server=server) as conn:
        for number in range(count):
            say(await conn.emit(channel, f"async {number}"))


def publish_sync(server, channel, count):
    with SyncSignalConn(server=server) as conn:
        for number in range(count):
            say(conn.emit(channel, f"sync {number}"))


def main():
    host, port, api, what, *rest = sys.argv[1:]
    server = (host, int(port))
    if what == "subscribe":
        pattern, group, count = rest
        if api == "async":
            asyncio.run(subscribe(server, pattern, group, int(count)))
        else:
            subscribe_sync(server, pattern, group, int(count))
    else:
        channel, count = rest
        if api == "async":
            asyncio.run(publish(server, channel, int(count)))
        else:
            publish_sync(server, channel, int(count))


main()
