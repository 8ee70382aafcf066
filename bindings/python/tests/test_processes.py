"""fork, kill -9, signals, and memory that does not grow."""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable

import pytest
from conftest import PATIENCE, STOP, Child, Daemon, message, wait_until

import rtcore


def _in_child(work: Callable[[], object]) -> None:
    """Runs it in a forked child, whose failure is ours."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(status)
    until = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    assert status == 0, f"wait status {status:#x}"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_gets_an_error_from_every_call(
    daemon: Daemon, a: rtcore.Session, b: rtcore.Session
) -> None:
    sender, inbox, caller = a.sender("a.direct"), b.inbox(["b.direct"]), a.caller("a.ask", "a.answers")
    signals = b.signals
    sender.wait_for_receiver(PATIENCE)
    waiter = rtcore.Waiter()

    def child() -> None:
        for call in (
            lambda: sender.send(b"x"),
            lambda: sender.loan(1),
            lambda: sender.wait_for_receiver(1.0),
            lambda: sender.flush(1.0),
            inbox.recv,
            inbox.try_recv,
            inbox.peek,
            lambda: caller.call(b"x"),
            lambda: a.sender("a.routed"),
            a.inbox,
            lambda: signals.on(STOP, print),
        ):
            with pytest.raises(ChildProcessError, match="forked from process") as forked:
                call()
            assert isinstance(forked.value, rtcore.Forked)
        with pytest.raises(OSError, match="forked"):
            waiter.wait(0.0)
        assert a.state == "forked"
        # One of its own works.
        with daemon.session("c") as own:
            assert own.state == "up"
        a.close()
        b.close()

    _in_child(child)
    sender.send(b"x")
    assert message(inbox).data == b"x"
    assert (a.state, b.state) == ("up", "up")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_view_in_a_forked_child_shows_zeros(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.large"), b.inbox(["b.large"])
    sender.wait_for_receiver(PATIENCE)
    sender.send(b"\xff" * 65536)
    with inbox.peek(PATIENCE) as m, sender.loan(65536) as view:
        assert isinstance(m, rtcore.InPlace)
        shown = m.data
        view[:] = b"\xee" * 65536

        def child() -> None:
            assert set(shown) == {0} and set(view) == {0}
            view[:] = b"\xaa" * 65536
            with pytest.raises(rtcore.Forked):
                memoryview(m)

        _in_child(child)
        assert set(shown) == {0xFF} and set(view) == {0xEE}
    assert set(message(inbox).data) == {0xEE}


def test_a_killed_sender_is_reported_and_the_rest_arrives(
    daemon: Daemon, b: rtcore.Session, child: Callable[..., Child]
) -> None:
    inbox = b.inbox()
    other = child(
        """
        import os, signal, sys, rtcore
        session = rtcore.Session("a", instance=sys.argv[1])
        sender = session.sender("a.direct")
        sender.wait_for_receiver(20)
        for number in range(5):
            sender.send(bytes([number]))
        with sender.loan(8) as view:
            view[0] = 1
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    got: list[bytes] = []
    lost = None
    while len(got) < 5 or lost is None:
        m = inbox.recv(PATIENCE)
        if isinstance(m, rtcore.Message):
            got.append(m.data)
        elif m.kind == "peer-lost":
            lost = m
    assert got == [bytes([number]) for number in range(5)]
    assert (lost.process, lost.signal) == ("a", signal.SIGKILL)
    other.process.wait(PATIENCE)
    with daemon.session("a") as session:
        sender = session.sender("a.direct")
        sender.wait_for_receiver(PATIENCE)
        sender.send(b"back")
        assert message(inbox).data == b"back"


def test_a_signal_with_its_payload_reaches_a_handler(
    a: rtcore.Session, b: rtcore.Session, capfd: pytest.CaptureFixture[str]
) -> None:
    got: list[rtcore.Notice] = []
    threads: set[int] = set()

    def handler(notice: rtcore.Notice) -> None:
        threads.add(threading.get_ident())
        got.append(notice)

    registration = b.signals.on(STOP, handler, only_from="a")
    never = b.signals.on(STOP, lambda notice: got.clear(), only_from="c")
    sender = a.sender("a.stop")
    sender.wait_for_receiver(PATIENCE)
    sender.send(struct.pack("Q", 7) + b"why")
    wait_until(lambda: len(got) == 1)
    assert (got[0].signo, got[0].value, got[0].payload[8:]) == (STOP, 7, b"why")
    assert (got[0].endpoint, got[0].route, got[0].sequence) == ("b.stop", "a.stop", 1)
    assert got[0].origin.verified and got[0].origin.pid == os.getpid()
    assert threads.isdisjoint({threading.get_ident()})

    def broken(notice: rtcore.Notice) -> None:
        raise ValueError("a handler that raises")

    unraisable: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda it: unraisable.append(it.exc_value)
    try:
        registration.replace(broken)
        sender.send(b"x")
        wait_until(lambda: len(unraisable) == 1)
    finally:
        sys.unraisablehook = hook
    assert isinstance(unraisable[0], ValueError)
    unraisable.clear()
    registration.replace(handler)
    sender.send(b"y")
    wait_until(lambda: len(got) == 2)
    registration.remove()
    never.remove()

    once = b.signals.on(STOP, handler, once=True, first=True)
    os.kill(os.getpid(), STOP)
    wait_until(lambda: len(got) == 3)
    assert (got[2].endpoint, got[2].payload, got[2].origin.verified) == (None, b"", True)
    with pytest.raises(rtcore.SignalRefused):
        once.remove()


def _rss() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.soak
def test_memory_and_descriptors_do_not_grow(daemon: Daemon, request: pytest.FixtureRequest) -> None:
    seconds = request.config.getoption("--soak")
    assert isinstance(seconds, float)

    def turn() -> None:
        with daemon.session("a") as a, daemon.session("b") as b:
            sender, inbox = a.sender("a.large"), b.inbox(["b.large"])
            caller, asked, answers = a.caller("a.ask", "a.answers"), b.inbox(["b.ask"]), b.sender("b.answers")
            b.signals.on(STOP, lambda notice: None)
            sender.wait_for_receiver(PATIENCE)
            for number in range(50):
                sender.send(b"x" * 65536)
                assert len(message(inbox)) == 65536
                with sender.loan(65536) as view:
                    view[:4] = number.to_bytes(4, "little")
                found = inbox.peek(PATIENCE)
                while isinstance(found, rtcore.Event):
                    found = inbox.peek(PATIENCE)
                with found as m:
                    assert bytes(m.data[:4]) == number.to_bytes(4, "little")
                for wrong in (lambda: sender.send(bytes(65537)), lambda: inbox.recv(0.0)):
                    with pytest.raises(rtcore.Error):
                        wrong()
            server = threading.Thread(
                target=lambda: answers.reply(message(asked).reply_to, b"a")  # type: ignore[arg-type]
            )
            server.start()
            caller.wait_for_receiver(PATIENCE)
            caller.call(b"q", PATIENCE)
            server.join()
            rtcore.stats(daemon.name)
            rtcore.histogram(daemon.name, "a.large")

    for _ in range(5):
        turn()
    gc.collect()
    before, descriptors = _rss(), len(os.listdir("/proc/self/fd"))
    turns, until = 0, time.monotonic() + seconds
    while turns < 5 or time.monotonic() < until:
        turn()
        turns += 1
    gc.collect()
    grown = _rss() - before
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == 1
    # A leak of one message each turn would be 3 MiB and more in this time.
    assert grown < 2 * 1024 * 1024, f"{grown} bytes after {turns} turns"
    print(f"{turns} turns, {grown} bytes grown")


def test_statistics_and_histograms(daemon: Daemon, a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.routed"), b.inbox(["b.routed"])
    sender.wait_for_receiver(PATIENCE)
    for _ in range(100):
        sender.send(b"x")
        message(inbox)
    wait_until(
        lambda: {route["name"]: route for route in rtcore.stats(daemon.name)["routes"]}["a.routed"][
            "delivered"
        ]
        == 100
    )
    page = rtcore.stats(daemon.name)
    assert (page["instance"], page["state"], page["ready"]) == (daemon.name, "running", True)
    assert daemon.name in rtcore.instances()
    route = {route["name"]: route for route in page["routes"]}["a.routed"]
    assert (route["accepted"], route["to"], route["from"], route["path"]) == (
        100,
        ["b.routed"],
        "a.routed",
        "routed",
    )
    assert [lane["name"] for lane in page["lanes"]] == ["talk"]
    assert {one["name"]: one["state"] for one in page["processes"]}["a"] == "alive"
    owners = {one["name"]: (one["owner"], one["kind"]) for one in page["endpoints"]}
    assert (owners["a.stop"], owners["b.stop"]) == (("a", "lane"), ("b", "signal"))

    h = rtcore.histogram(daemon.name, "a.routed")
    assert h.total == 100 == sum(h.count) and list(h.low_ns) == sorted(h.low_ns)
    assert all(low <= high for low, high in zip(h.low_ns, h.high_ns))
    assert h.quantile(0.0) <= h.quantile(0.5) <= h.quantile(1.0)
    assert h.quantile(0.5) >= route["latency_ns"]["p50"]
    sender.send(b"x")
    message(inbox)
    wait_until(lambda: rtcore.histogram(daemon.name, "a.routed").since(h).total == 1)
    with pytest.raises(ValueError):
        h.quantile(2.0)
    numpy = pytest.importorskip("numpy")
    seen = numpy.asarray(h.count)
    assert seen.dtype == "uint64" and seen.sum() == 100


def test_peers_and_channels(daemon: Daemon, a: rtcore.Session, b: rtcore.Session) -> None:
    a.sender("a.direct").wait_for_receiver(PATIENCE)
    assert [peer["process"] for peer in a.peers() if peer["alive"]] == ["b"]
    roles = {channel["endpoint"]: channel["role"] for channel in a.channels()}
    assert (roles["a.direct"], roles["a.answers"]) == ("sender", "inbox")
    assert {channel["role"] for channel in b.channels()} == {"sender", "inbox", "signal"}
