"""A server's processes: a light one that supervises, and workers that each hold the model.

A worker that crashes or hangs is replaced. SIGTERM and Ctrl-C let every worker finish what it was asked; SIGHUP
replaces the workers one after the other, which loads a new bundle without a pause. Knows nothing of routes.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from threading import Thread

from fastapi import FastAPI
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from cxr.errors import ConfigError, CxrError
from cxr.serving import silence
from cxr.serving.connections import BoundedConfig
from cxr.serving.facts import read_facts
from cxr.serving.hosts import parse_hosts
from cxr.serving.measures import FOLDER
from cxr.serving.settings import Settings
from cxr.serving.wrapping import check_origin

ENDINGS = frozenset({signal.SIGINT, signal.SIGTERM})
SECONDS_TO_START = 60
"""What a new worker may take to import what it needs, before it is held to hang."""


def serve(settings: Settings, tell: Callable[[str], object]) -> None:
    """Serve until a signal ends it.

    Args:
        settings: Of the server, looked at by `check`.
        tell: Is told the server's address, before the model is loaded.

    Raises:
        ConfigError: The address cannot be had, or a worker could not start.
    """
    silence.set_up_logging()
    with bind(settings.host, settings.port) as listener, tempfile.TemporaryDirectory(prefix="cxr_measures_") as folder:
        os.environ[FOLDER] = folder
        host, port = listener.getsockname()[:2]
        tell(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
        supervisor = Supervisor(make_config(settings), [listener])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise ConfigError("expected workers that start, but one did not; see what it said above")


def check(settings: Settings) -> None:
    """Find what would keep every worker from starting, before there is one; the weights are left to the workers.

    Raises:
        ConfigError: An origin or a host of images is none.
        WeightsError: There is no bundle, or its description or card is damaged.
    """
    read_facts(settings.bundle)
    parse_hosts(settings.image_hosts)
    for origin in settings.allowed_origins:
        check_origin(origin)


def make_config(settings: Settings) -> BoundedConfig:
    """What uvicorn is told."""
    return BoundedConfig(
        partial(make_worker_app, settings),
        settings.limits,
        workers=settings.workers,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.limits.seconds + 5,
        timeout_worker_healthcheck=SECONDS_TO_START,
    )


def make_worker_app(settings: Settings) -> FastAPI:
    """The application in a process of its own, which ends with the one that supervises it."""
    silence.set_up_logging()
    logging.getLogger("uvicorn.access").propagate = False  # each request has a line of ours
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()
    try:
        return _make_app(settings)
    except CxrError as error:
        sys.stderr.write(f"error: {error}\n")
    except Exception as error:
        silence.tell("failed to start", logging.CRITICAL, error)
    sys.exit(STARTUP_FAILURE)  # with any other code, the worker would be replaced for ever


def _make_app(settings: Settings) -> FastAPI:
    from cxr.serving.app import make_app  # not in the process that supervises: it takes a second and much memory

    return make_app(settings)


def bind(host: str, port: int) -> socket.socket:
    """A socket at the address.

    Raises:
        ConfigError: It cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio delays the answers of a socket whose protocol is not told
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"expected to listen at {host} port {port}, got {error.strerror}; choose another --host or --port"
        ) from error
    listener.set_inheritable(True)
    return listener


class Supervisor(Multiprocess):
    """uvicorn's, which notices at once that a worker has ended, and during a reload that the server is to end.

    It takes no connection that no worker would answer.
    """

    def init_processes(self) -> None:
        """Start the workers."""
        super().init_processes()
        self._listen_to_ends()

    def keep_subprocess_alive(self) -> None:
        """Replace workers that have ended, and let go of what they were measuring."""
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        self._listen_to_ends()
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]

    def handle_hup(self) -> None:
        """Replace the workers, until a signal ends the server: it waits for the one that is just being ended."""
        replacing = Thread(target=super().handle_hup)
        replacing.start()
        while replacing.is_alive():
            replacing.join(0.1)
            if ENDINGS.intersection(self.signal_queue):
                self.should_exit.set()

    def terminate_all(self) -> None:
        """Let workers finish; a socket that stayed open here would take connections, and drop them at the end."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def _listen_to_ends(self) -> None:
        """The connection to a worker ends with it only if nobody else holds the worker's side of it."""
        for process in self.processes:
            process.child_conn.close()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
