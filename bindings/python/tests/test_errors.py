"""Every error, provoked: its class, its builtin, its text."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import PATIENCE, STOP, Child, Daemon, event, message, wait_until

import rtcore


def test_full_and_too_large(a: rtcore.Session, b: rtcore.Session) -> None:
    sender = a.sender("a.direct")
    sender.wait_for_receiver(PATIENCE)
    for _ in range(8):
        sender.send(b"x")
    for send in (sender.send, sender.try_send, lambda data: sender.loan(len(data))):
        with pytest.raises(BlockingIOError, match="8 messages wait.*maxmsg") as full:
            send(b"x")
        assert isinstance(full.value, rtcore.Full) and isinstance(full.value, rtcore.Error)
        assert (full.value.errno, full.value.endpoint) == (errno.EAGAIN, "a.direct")
    with pytest.raises(rtcore.TooLarge, match="takes 64 bytes, this message has 65.*msgsize"):
        sender.send(bytes(65))
    assert issubclass(rtcore.TooLarge, ValueError)
    with pytest.raises(rtcore.TooLarge):
        sender.loan(65)


def test_peer_dead_says_how_the_receiver_ended(
    daemon: Daemon, a: rtcore.Session, child: Callable[..., Child]
) -> None:
    sender, inbox = a.sender("a.direct"), a.inbox()
    with pytest.raises(BrokenPipeError, match="process `b` is not connected; start it"):
        sender.send(b"x")
    other = child(
        """
        import sys, rtcore
        session = rtcore.Session("b", instance=sys.argv[1])
        inbox = session.inbox()
        print("ready", flush=True)
        sys.stdin.read()
        """
    )
    assert other.line() == "ready"
    sender.wait_for_receiver(PATIENCE)
    sender.send(b"never read")
    other.send_signal(signal.SIGKILL)
    lost = event(inbox, "peer-lost")
    assert (lost.process, lost.signal, lost.exit_status) == ("b", signal.SIGKILL, None)
    assert lost.pid == other.process.pid and "SIGKILL" in lost.text
    assert event(inbox, "lost").count == 1
    with pytest.raises(rtcore.PeerDead, match="killed by SIGKILL") as dead:
        sender.send(b"x")
    assert (dead.value.process, dead.value.signal) == ("b", signal.SIGKILL)
    with pytest.raises(rtcore.PeerDead):
        sender.wait_for_receiver(0.01)


def test_a_request_to_a_process_that_is_killed_ends_at_once(
    daemon: Daemon, a: rtcore.Session, child: Callable[..., Child]
) -> None:
    other = child(
        """
        import os, signal, sys, rtcore
        session = rtcore.Session("b", instance=sys.argv[1])
        inbox = session.inbox(["b.ask"])
        print("ready", flush=True)
        for m in inbox:
            if isinstance(m, rtcore.Message):
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert other.line() == "ready"
    caller = a.caller("a.ask", "a.answers")
    caller.wait_for_receiver(PATIENCE)
    with pytest.raises(rtcore.PeerDead, match="no reply to `a.ask`") as dead:
        caller.call(b"?", timeout=None)
    assert dead.value.signal == signal.SIGKILL


def test_a_killed_daemon_is_disconnected_and_comes_back(daemon: Daemon, a: rtcore.Session) -> None:
    b = daemon.session("b")
    routed, direct, inbox = a.sender("a.routed"), a.sender("a.direct"), b.inbox()
    direct.wait_for_receiver(PATIENCE)
    daemon.kill()
    assert event(inbox, "down")
    wait_until(lambda: a.state == "down")
    assert a.reason
    with pytest.raises(ConnectionError, match="rtd is away") as gone:
        routed.send(b"x")
    assert isinstance(gone.value, rtcore.Disconnected) and not isinstance(gone.value, rtcore.Closed)
    direct.send(b"goes on")
    assert message(inbox).data == b"goes on"
    with pytest.raises(rtcore.Disconnected):
        routed.wait_for_receiver(0.01)
    daemon.start()
    assert event(inbox, "up")
    routed.wait_for_receiver(PATIENCE)
    routed.send(b"again")
    assert message(inbox).data == b"again"
    assert a.state == "up" and a.reason is None
    b.close()


def test_claims(daemon: Daemon, a: rtcore.Session) -> None:
    held = a.sender("a.direct")
    with pytest.raises(rtcore.Taken, match="held by a sender of thread") as taken:
        a.sender("a.direct")
    assert (taken.value.errno, taken.value.endpoint) == (errno.EBUSY, "a.direct")
    held.close()
    a.sender("a.direct").close()
    with pytest.raises(LookupError, match="no.such") as unknown:
        a.sender("no.such")
    assert isinstance(unknown.value, rtcore.Unknown)
    with pytest.raises(PermissionError, match="b.direct") as denied:
        a.inbox(["b.direct"])
    assert isinstance(denied.value, rtcore.Denied)
    with pytest.raises(TypeError, match="list of names"):
        a.inbox("a.answers")
    daemon.kill()
    wait_until(lambda: a.state == "down")
    with pytest.raises(rtcore.Disconnected, match="no connection to rtd"):
        a.sender("no.such")


def test_connecting(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionRefusedError, match="rtd is not running there") as away:
        rtcore.Session("a", socket=tmp_path / "no.sock")
    assert isinstance(away.value, rtcore.NoDaemon)
    with pytest.raises(rtcore.Denied, match="rtd refuses `nobody`"):
        daemon.session("nobody")
    with daemon.session("a"), pytest.raises(rtcore.Denied):
        daemon.session("a")
    with pytest.raises(rtcore.Unknown, match="not a process name"):
        rtcore.Session("no name", instance=daemon.name)
    with pytest.raises(ValueError, match="give one of them"):
        rtcore.Session("a", instance=daemon.name, socket=daemon.socket)
    with pytest.raises(ValueError):
        rtcore.Session("a", instance=daemon.name, timeout=-1.0)

    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.bind(str(tmp_path / "silent.sock"))
    silent.listen()
    with pytest.raises(TimeoutError, match="no answer within 50 ms.*Session"):
        rtcore.Session("a", socket=tmp_path / "silent.sock", timeout=0.05)
    silent.close()

    other_directory = tmp_path / "other"
    other_directory.mkdir()
    other = Daemon(other_directory)
    monkeypatch.delenv("RTD_INSTANCE", raising=False)
    with pytest.raises(rtcore.SeveralInstances, match="instance=") as several:
        rtcore.Session("a")
    assert daemon.name in str(several.value) and other.name in str(several.value)
    assert several.value.errno == errno.ENOTUNIQ
    other.stop()
    monkeypatch.setenv("RTD_INSTANCE", daemon.name)
    rtcore.Session("a").close()


def test_a_frame_that_is_none_of_rtds(tmp_path: Path) -> None:
    strange = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    strange.bind(str(tmp_path / "strange.sock"))
    strange.listen()

    def answer() -> None:
        connection, _ = strange.accept()
        connection.recv(4096)
        connection.send(b"\xff" * 100)
        connection.recv(4096)
        connection.close()

    answering = threading.Thread(target=answer)
    answering.start()
    with pytest.raises(rtcore.Protocol, match="one release"):
        rtcore.Session("a", socket=tmp_path / "strange.sock", timeout=PATIENCE)
    answering.join()
    strange.close()


def test_timeouts(a: rtcore.Session, b: rtcore.Session) -> None:
    inbox, sender = b.inbox(["b.direct"]), a.sender("a.direct")
    sender.wait_for_receiver(PATIENCE)
    while inbox.try_recv() is not None:
        pass
    for wait in (inbox.recv, inbox.peek):
        with pytest.raises(TimeoutError, match="nothing came within 0.01 s") as timeout:
            wait(timeout=0.01)
        assert isinstance(timeout.value, rtcore.Timeout)
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="number of seconds"):
            inbox.recv(timeout=wrong)
    sender.send(b"x")
    with pytest.raises(rtcore.Timeout, match="not taken yet: 1"):
        sender.flush(0.01)
    assert message(inbox).data == b"x"
    sender.flush(PATIENCE)


def test_what_is_closed_says_so(daemon: Daemon, a: rtcore.Session) -> None:
    b = daemon.session("b")
    sender, inbox, caller = a.sender("a.direct"), b.inbox(), a.caller("a.ask", "a.answers")
    with sender, inbox, caller:
        pass
    sender.close()
    calls: list[Callable[[], object]] = [
        lambda: sender.send(b"x"),
        inbox.recv,
        lambda: caller.call(b"x"),
        inbox.fileno,
    ]
    for call in calls:
        with pytest.raises(rtcore.Closed, match="was closed"):
            call()
    sender = a.sender("a.direct")
    inbox = b.inbox()
    a.close()
    a.close()
    b.close()
    assert (a.state, repr(a)) == ("closed", "Session('a', state='closed')")
    calls = [lambda: a.sender("a.direct"), a.inbox, a.peers, lambda: a.signals]
    for call in calls:
        with pytest.raises(rtcore.Closed, match="open another one"):
            call()
    with pytest.raises(rtcore.Closed):
        sender.send(b"x")
    with pytest.raises(rtcore.Closed):
        while True:
            inbox.recv()


def test_signals_that_cannot_be_taken(b: rtcore.Session) -> None:
    with pytest.raises(rtcore.SignalRefused, match="SIGKILL"):
        rtcore.block_signals([signal.SIGKILL])
    with pytest.raises(rtcore.SignalRefused):
        b.signals.on(99, print)
    ready, end = threading.Event(), threading.Event()
    other = signal.SIGRTMIN + 9

    def without() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [other])
        ready.set()
        end.wait()

    thread = threading.Thread(target=without)
    thread.start()
    ready.wait()
    with pytest.raises(rtcore.SignalRefused, match=r"rtcore\.block_signals"):
        b.signals.on(other, print)
    end.set()
    thread.join()
    # Python's thread is over a moment before the kernel's.
    wait_until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists())
    taken = b.signals.on(other, print)
    with rtcore.Signals.start() as signals:
        with pytest.raises(rtcore.Taken):
            signals.on(other, print)
        with pytest.raises(ValueError, match="session.signals"):
            signals.on(STOP, print, only_from="a")
    with pytest.raises(rtcore.Closed):
        signals.on(STOP, print)
    taken.remove()
    with pytest.raises(rtcore.SignalRefused, match="no such handler"):
        taken.remove()


def test_a_page_that_is_none(daemon: Daemon) -> None:
    with pytest.raises(rtcore.NoDaemon, match="no statistics page"):
        rtcore.stats("no-such-instance")
    with pytest.raises(rtcore.Unknown, match="1 to 31"):
        rtcore.stats("no/name")
    with pytest.raises(rtcore.Unknown, match='no route "none"; there are: a.routed'):
        rtcore.histogram(daemon.name, "none")
    places = [Path("/run/rtd"), Path(f"/dev/shm/rtd-{os.getuid()}")]
    (page,) = [file for place in places for file in place.glob(f"*{daemon.name}*")]
    broken = page.with_name(page.name.replace(daemon.name, "py-broken"))
    broken.write_bytes(b"x" * 65536)
    try:
        with pytest.raises(rtcore.Protocol, match="not a statistics page"):
            rtcore.stats("py-broken")
    finally:
        broken.unlink()
