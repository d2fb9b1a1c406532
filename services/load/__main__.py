"""`python -m services.load`: demo traffic and the load API, until told to stop or until the parent is gone."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import random
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable

import uvloop
from aiohttp import web
from pydantic import ValidationError

from services.load.api import LoadApi, read_token
from services.load.gateway import Gateway
from services.load.recorder import Recorder
from services.load.settings import LoadSettings
from services.load.traffic import Traffic
from services.load.users import Accounts

log = logging.getLogger("services.load")

PR_SET_PDEATHSIG = 1
EXIT_BAD_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
EXIT_PORT_TAKEN = 98  # EADDRINUSE


def main() -> int:
    """Serve until told to stop; 0 after a graceful end."""
    _die_with_parent()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        return uvloop.run(_serve(LoadSettings()))
    except ValidationError as error:
        findings = "; ".join(f"SUITE_LOAD_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        log.critical("a setting is wrong: %s", findings)
        return EXIT_BAD_CONFIGURATION


async def _serve(settings: LoadSettings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _watch_parent(lambda: loop.call_soon_threadsafe(stop.set))

    chance = random.Random(settings.seed)  # noqa: S311  no secret hangs on it
    gateway = Gateway(settings)
    recorder = Recorder(steady_wall_clock())
    secret = read_token(settings.token_file).encode() or secrets.token_bytes(32)
    accounts = Accounts(gateway, recorder, secret, chance)
    traffic = Traffic(gateway, recorder, accounts, chance)
    api = LoadApi(gateway, recorder, accounts, traffic, settings.token_file)
    runner = web.AppRunner(api.application(), access_log=None)
    await runner.setup()
    work: list[asyncio.Task[None]] = []
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port).start()
        except OSError as error:
            log.critical("cannot listen on %s:%d: %s", settings.host, settings.port, error.strerror)
            return EXIT_PORT_TAKEN
        log.info("load API on http://%s:%d", settings.host, settings.port)
        work.append(asyncio.create_task(accounts.keep_ready(settings.users, settings.sign_ins_per_second)))
        if settings.scale > 0:
            work.append(asyncio.create_task(traffic.demo(settings.scale, settings.ramp_seconds)))
        if settings.probe_seconds > 0:
            work.append(asyncio.create_task(traffic.probe(settings.probe_seconds)))
        gc.collect()
        gc.freeze()
        await asyncio.wait([*work, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            if task.done():
                task.result()  # none ends by itself, so it broke: say how
    finally:
        for task in work:
            task.cancel()
        await traffic.stop()
        await asyncio.gather(*work, return_exceptions=True)
        await runner.cleanup()
        await gateway.close()
    log.info("stopped")
    return 0


def steady_wall_clock() -> Callable[[], float]:
    """Unix seconds that never jump: the wall clock at the start, and monotonic time since."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def _die_with_parent() -> None:
    """On Linux the kernel sends SIGTERM when the parent dies, however it died; elsewhere stdin's end says so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _watch_parent(gone: Callable[[], object]) -> None:
    """Calls `gone` at the end of stdin. A thread reads it, because stdin may be anything: pipe, terminal, file."""

    def read() -> None:
        while os.read(0, 4096):  # unbuffered: a thread that holds the buffer's lock would crash the interpreter's end
            pass
        gone()

    threading.Thread(target=read, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
