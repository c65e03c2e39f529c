"""Several devices: one process each, all started and watched by the one that was asked to train."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from spikingmoe.train.devices import Place
from spikingmoe.train.stopping import SIGNALS

END_S = 10.0  # for the others to end by themselves, once one has ended
POLL_S = 0.2
FAILURE = "failure"
LOST, LOST_CODE = ("gloo", "NCCL", "Connection", "process group"), 3  # another process is gone

Work = Callable[[Place, "Tell"], None]
Tell = Callable[[str, tuple], None]


class DeviceError(ValueError):
    """A process that trained on one of several devices has died."""


def run_on_devices(work: Work, device: torch.device, world: int, tell: Tell) -> None:
    """Call `work(place, tell)` in one process per device; returns when all are done.

    SIGINT and SIGTERM are passed on; the processes end them as one does.

    Args:
        work: can be pickled. Its `tell` reaches the caller's from the process of rank 0.

    Raises:
        ValueError: what `work` raised, with its message.
        DeviceError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    listen, speak = context.Pipe(duplex=False)
    port, threads = _free_port(), torch.get_num_threads()
    children = [
        context.Process(
            target=_child,
            args=(
                work,
                Place(_device(device, rank), rank, world),
                port,
                os.getpid(),
                threads,
                speak,
            ),
            name=f"device {rank}",
        )
        for rank in range(world)
    ]
    received: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        received.append(number)
        for child in children:
            if child.pid is not None and child.is_alive():
                os.kill(child.pid, number)

    before: dict[int, Any] = {number: signal.signal(number, pass_on) for number in SIGNALS}
    failure: str | None = None
    try:
        with _environment(TORCH_CPP_LOG_LEVEL="ERROR"):  # else DDP advises against what is needed
            for child in children:
                child.start()
        speak.close()
        failure = _watch(children, listen, tell)
    finally:
        for child in children:
            if child.is_alive():
                child.kill()
        for child in children:
            if child.pid is not None:
                child.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    codes = [child.exitcode for child in children]
    if received:
        handler = before[received[0]]
        if callable(handler):
            handler(received[0], None)
        raise SystemExit(128 + received[0])
    if failure is not None:
        raise ValueError(failure)
    if any(codes):
        raise DeviceError(
            f"training: the processes of {world} devices ended with {codes}; go on with --resume"
        )


def _watch(children: list, listen: Connection, tell: Tell) -> str | None:
    """Hear the children out; the first failure that one of them tells of."""
    failures: list[str] = []
    ended: float | None = None
    heard_out = False
    while not heard_out:
        alive = [
            child.is_alive() for child in children
        ]  # asked first: what they said then is there
        try:
            while listen.poll(POLL_S if all(alive) else 0):
                kind, content = listen.recv()
                failures.append(content) if kind == FAILURE else tell(kind, content)
        except EOFError:
            time.sleep(POLL_S)
        if not all(alive):
            ended = ended or time.monotonic()
            time.sleep(POLL_S / 4)
        late = ended is not None and time.monotonic() - ended > END_S
        heard_out = not any(alive) or late  # late: the others wait for one that has died
    return failures[0] if failures else None


def _child(
    work: Work, place: Place, port: int, parent: int, threads: int, speak: Connection
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(place.world),
        "NODE_RANK": "0",
        "LOCAL_RANK": str(place.rank),
    }
    os.setpgrp()  # a terminal's Ctrl-C reaches the parent alone, which passes it on once
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(128 + signal.SIGINT))

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def tell(kind: str, content: tuple) -> None:
        if place.rank == 0:
            speak.send((kind, content))

    try:
        work(place, tell)
    except SystemExit as stop:
        # At once: the threads of torch's process group do not survive an orderly exit ("terminate called").
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        speak.send((FAILURE, " ".join(str(error).split()) or type(error).__name__))
        raise SystemExit(2) from None
    except RuntimeError as error:
        if not any(word in str(error) for word in LOST):
            raise
        raise SystemExit(LOST_CODE) from None  # the one that died is what matters


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Variables that the processes started in the block inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _end_with(parent: int) -> None:
    """End this process when the one that started it is gone, also while it waits for another device."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _device(first: torch.device, rank: int) -> torch.device:
    return torch.device(first.type, rank) if first.type == "cuda" else first


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
