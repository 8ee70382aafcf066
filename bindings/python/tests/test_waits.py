"""Waits: Ctrl-C ends each, the GIL is free meanwhile, other threads and event loops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, Child, Daemon, Interrupted, interrupting, message

import rtcore

Wait = Callable[[], object]


def _waits(daemon: Daemon, a: rtcore.Session, b: rtcore.Session, tmp_path: Path) -> dict[str, Wait]:
    """Each call that waits, with nothing to end it."""
    inbox = b.inbox(["b.direct"])
    full, routed = a.sender("a.block"), a.sender("a.direct")
    full.wait_for_receiver(PATIENCE)
    routed.wait_for_receiver(PATIENCE)
    while inbox.try_recv() is not None:
        pass
    for _ in range(2):
        full.send(b"x")
    caller = a.caller("a.ask", "a.answers")
    caller.wait_for_receiver(PATIENCE)
    waiter = rtcore.Waiter()
    reading, _ = os.pipe()
    waiter.add(reading, 0)
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.bind(str(tmp_path / "silent.sock"))
    silent.listen()

    def connect() -> rtcore.Session:
        assert silent.fileno() >= 0, "the listener is kept"
        return rtcore.Session("c", socket=tmp_path / "silent.sock", timeout=3600.0)

    return {
        "recv": inbox.recv,
        "next": lambda: next(inbox),
        "peek": inbox.peek,
        "send": lambda: full.send(b"x"),
        "flush": full.flush,
        "call": lambda: caller.call(b"?"),
        "wait": waiter.wait,
        "connect": connect,
    }


def test_a_signal_whose_handler_raises_ends_each_wait(
    daemon: Daemon, a: rtcore.Session, b: rtcore.Session, tmp_path: Path
) -> None:
    waits = _waits(daemon, a, b, tmp_path)
    for name, wait in waits.items():
        with pytest.raises(Interrupted), interrupting():
            wait()
            pytest.fail(f"{name} returned")


def test_a_signal_ends_the_wait_for_a_receiver(daemon: Daemon, a: rtcore.Session) -> None:
    sender = a.sender("a.direct")
    with pytest.raises(Interrupted), interrupting():
        sender.wait_for_receiver()


def test_a_wait_goes_on_after_a_handler_that_returns(
    a: rtcore.Session, b: rtcore.Session
) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    while inbox.try_recv() is not None:
        pass
    with interrupting(raising=False) as signals:
        later = threading.Timer(0.3, lambda: sender.send(b"after"))
        later.start()
        assert message(inbox).data == b"after"
        began = time.monotonic()
        with pytest.raises(rtcore.Timeout):
            inbox.recv(timeout=0.2)
        assert time.monotonic() - began >= 0.2
        later.join()
    assert signals.calls >= 2


@pytest.mark.parametrize("wait", ["inbox.recv()", "sender.wait_for_receiver()"])
def test_ctrl_c_ends_a_program_that_waits(
    daemon: Daemon, child: Callable[..., Child], wait: str
) -> None:
    other = child(
        f"""
        import signal, sys, rtcore
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session = rtcore.Session("a", instance=sys.argv[1])
        sender = session.sender("a.direct")
        inbox = session.inbox()
        while inbox.try_recv(): pass
        print("ready", flush=True)
        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    assert other.line() == "ready"
    # Until it sleeps; then at once.
    stat = Path(f"/proc/{other.process.pid}/stat")
    while stat.read_text().rsplit(")", 1)[1].split()[0] != "S":
        time.sleep(0.001)
    sent = time.monotonic()
    other.send_signal(signal.SIGINT)
    assert other.line() == "interrupted"
    took = time.monotonic() - sent
    assert other.end() == 0
    assert took < 0.1 * PATIENCE / 20, f"{took} s from the signal to its handler"


def test_the_gil_is_free_during_each_wait(
    daemon: Daemon, a: rtcore.Session, b: rtcore.Session, tmp_path: Path
) -> None:
    waits = _waits(daemon, a, b, tmp_path)
    for name, wait in waits.items():
        counted = [0]
        over = threading.Event()

        def count() -> None:
            while not over.is_set():
                counted[0] += 1
                time.sleep(0.001)

        counting = threading.Thread(target=count)
        counting.start()
        try:
            # The main thread holds the GIL from the first count to the wait, and signals come only
            # after other threads have counted on.
            def interrupt() -> None:
                begun = counted[0]
                while counted[0] < begun + 20 and not over.is_set():
                    time.sleep(0.005)
                while not over.is_set():
                    main = threading.main_thread().ident
                    assert main is not None
                    signal.pthread_kill(main, signal.SIGUSR1)
                    time.sleep(0.05)

            def handler(signo: int, frame: object) -> None:
                if not over.is_set():
                    over.set()
                    raise Interrupted

            before = signal.signal(signal.SIGUSR1, handler)
            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
            with pytest.raises(Interrupted):
                wait()
            interrupter.join()
            signal.signal(signal.SIGUSR1, before)
        finally:
            over.set()
            counting.join()
        assert counted[0] >= 20, name


def test_a_handle_is_for_one_thread_at_a_time(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    got: list[bytes] = []
    waiting = threading.Thread(target=lambda: got.append(message(inbox).data))
    waiting.start()
    with pytest.raises(rtcore.InUse, match="one thread at a time"):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and waiting.is_alive():
            inbox.try_recv()
    assert issubclass(rtcore.InUse, RuntimeError)
    sender.send(b"x")
    waiting.join()
    assert got == [b"x"]


def test_closing_a_session_ends_the_waits_of_other_threads(
    daemon: Daemon, a: rtcore.Session
) -> None:
    b = daemon.session("b")
    ended: list[str] = []
    inboxes = [b.inbox([name]) for name in ("b.direct", "b.routed")]

    def wait(inbox: rtcore.Inbox) -> None:
        try:
            while True:
                inbox.recv()
        except rtcore.Closed:
            ended.append("closed")

    threads = [threading.Thread(target=wait, args=(inbox,)) for inbox in inboxes]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    b.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert ended == ["closed", "closed"]


def test_threads_send_and_receive_beside_each_other(a: rtcore.Session, b: rtcore.Session) -> None:
    counts = {"routed": 0, "direct": 0}

    def run(kind: str) -> None:
        sender, inbox = a.sender(f"a.{kind}"), b.inbox([f"b.{kind}"])
        sender.wait_for_receiver(PATIENCE)
        for number in range(500):
            while True:
                try:
                    sender.send(number.to_bytes(4, "little"))
                    break
                except rtcore.Full:
                    time.sleep(0)
            assert message(inbox).data == number.to_bytes(4, "little")
            counts[kind] += 1

    threads = [threading.Thread(target=run, args=(kind,)) for kind in counts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert counts == {"routed": 500, "direct": 500}


def test_async_for_waits_by_the_descriptor(daemon: Daemon, a: rtcore.Session) -> None:
    b = daemon.session("b")
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    got: list[bytes] = []

    async def listen() -> None:
        async for m in inbox:
            if isinstance(m, rtcore.Message):
                got.append(m.data)

    async def talk() -> None:
        for number in range(300):
            while True:
                try:
                    sender.send(str(number).encode())
                    break
                except rtcore.Full:
                    await asyncio.sleep(0)
            if number % 50 == 0:
                await asyncio.sleep(0.01)
        while len(got) < 300:
            await asyncio.sleep(0.001)
        with pytest.raises(rtcore.InUse, match="one at a time"):
            async for _ in inbox:
                pass
        b.close()

    async def both() -> None:
        before = threading.active_count()
        await asyncio.wait_for(asyncio.gather(listen(), talk()), PATIENCE)
        assert threading.active_count() == before

    asyncio.run(both())
    assert got == [str(number).encode() for number in range(300)]


def test_a_loop_without_messages_does_nothing(daemon: Daemon, b: rtcore.Session) -> None:
    inbox = b.inbox(["b.direct"])

    async def listen() -> None:
        async for _ in inbox:
            pass

    async def idle() -> float:
        listening = asyncio.create_task(listen())
        await asyncio.sleep(0.2)
        before = time.process_time()
        await asyncio.sleep(1.0)
        used = time.process_time() - before
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        return used

    assert asyncio.run(idle()) < 0.05
    # The inbox is free again.
    inbox.close()


def test_a_program_may_end_while_a_thread_waits(daemon: Daemon) -> None:
    script = """
import sys, threading, rtcore
session = rtcore.Session("b", instance=sys.argv[1])
inbox = session.inbox()
threading.Thread(target=inbox.recv, daemon=True).start()
session.signals.on(40, print)
print("end")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, daemon.name], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
