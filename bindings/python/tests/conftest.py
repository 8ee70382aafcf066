"""The real daemon, for each test its own: RTD names the program, else target/debug/rtd."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rtcore

REPO = Path(os.environ.get("RTD_REPO", Path(__file__).resolve().parents[3]))
RTD = os.environ.get("RTD", str(REPO / "target/debug/rtd"))
#: How long a test waits for what has to come, times the machine's slowness.
PATIENCE = 20.0 * float(os.environ.get("RTD_TEST_PATIENCE", "1"))
STOP = signal.SIGRTMIN + 6
# Before any thread: NumPy starts some.
rtcore.block_signals([STOP, signal.SIGRTMIN + 9])

_CONFIG = """
[daemon]
name = "{name}"
socket = "{socket}"
keep_queues = false

[[lane]]
name = "talk"
priority = 20
cpu = {cpu}

[[process]]
name = "a"

[[process]]
name = "b"

[[process]]
name = "c"

[[endpoint]]
name = "c.in"
owner = "c"
kind = "lane"
"""


def _endpoint(name: str, owner: str, more: str = "") -> str:
    more = more or 'kind = "lane"'
    return f'\n[[endpoint]]\nname = "{name}"\nowner = "{owner}"\n{more}\n'


def _route(source: str, target: str, more: str = "") -> str:
    return f'\n[[route]]\nname = "{source}"\nfrom = "{source}"\nto = ["{target}"]\nlane = "talk"\n{more}\n'


def config(name: str, socket: Path) -> str:
    """Processes a, b and c; from a to b a route of each kind."""
    lane = 'kind = "lane"\n'
    text = _CONFIG.format(name=name, socket=socket, cpu=min(os.sched_getaffinity(0)))
    for kind, maxmsg, msgsize, more in (
        ("routed", 8, 64, ""),
        ("direct", 8, 64, 'path = "direct"'),
        ("block", 2, 64, 'path = "direct"\noverflow = "block:10s"'),
        ("latest", 8, 64, 'overflow = "conflate"'),
        ("large", 4, 65536, 'path = "direct"'),
        ("ask", 8, 64, ""),
    ):
        size = f"msgsize = {msgsize}"
        text += _endpoint(f"a.{kind}", "a", lane + size)
        text += _endpoint(f"b.{kind}", "b", lane + size + f"\nmaxmsg = {maxmsg}")
        text += _route(f"a.{kind}", f"b.{kind}", more)
    text += _endpoint("b.answers", "b") + _endpoint("a.answers", "a") + _route("b.answers", "a.answers")
    text += _endpoint("a.stop", "a", lane + "msgsize = 32")
    text += _endpoint("b.stop", "b", 'kind = "signal"\nsignal = "SIGRTMIN+6"\nmsgsize = 32')
    text += _route("a.stop", "b.stop")
    text += _endpoint("b.out", "b") + _route("b.out", "c.in")
    return text


_libc = ctypes.CDLL(None)


def die_with_us() -> None:
    """In a child, before exec: no daemon outlives a test run that is killed."""
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Daemon:
    """A running rtd."""

    def __init__(self, directory: Path) -> None:
        self.name = f"py{os.getpid()}-{directory.name[-12:]}".replace("_", "-")[:31]
        self.directory = directory
        self.socket = directory / "rtd.sock"
        self.file = directory / "rtd.toml"
        self.file.write_text(config(self.name, self.socket))
        self.process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [RTD, "run", str(self.file)]
        if os.geteuid() != 0:
            command.append("--allow-degraded")
        log = open(self.directory / "rtd.log", "a")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, preexec_fn=die_with_us
        )
        log.close()
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        assert ready.startswith("READY"), (self.directory / "rtd.log").read_text()

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, signo: int) -> None:
        if self.process is not None:
            self.process.send_signal(signo)
            self.process.wait(PATIENCE)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def session(self, process: str) -> rtcore.Session:
        return rtcore.Session(process, instance=self.name, timeout=PATIENCE)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    if daemon.process is None:
        # What a killed one left, its page among it, goes with the stop of the next.
        daemon.start()
    daemon.stop()


@pytest.fixture
def a(daemon: Daemon) -> Iterator[rtcore.Session]:
    with daemon.session("a") as session:
        yield session


@pytest.fixture
def b(daemon: Daemon) -> Iterator[rtcore.Session]:
    with daemon.session("b") as session:
        yield session


class Child:
    """Another Python process that runs a script; it ends when its standard input does."""

    def __init__(self, script: str, *args: str) -> None:
        text = textwrap.dedent(script)
        self.process = subprocess.Popen(
            [sys.executable, "-c", text, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def send_signal(self, signo: int) -> None:
        self.process.send_signal(signo)

    def end(self) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()


@pytest.fixture
def child(daemon: Daemon) -> Iterator[Callable[..., Child]]:
    """Starts children whose first argument is the instance; none outlives the test."""
    children: list[Child] = []

    def start(script: str, *args: str) -> Child:
        children.append(Child(script, daemon.name, *args))
        return children[-1]

    yield start
    for one in children:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait()
        for stream in (one.process.stdin, one.process.stdout):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass


def message(inbox: rtcore.Inbox, timeout: float = PATIENCE) -> rtcore.Message:
    """The next message; events before it are skipped."""
    until = time.monotonic() + timeout
    while True:
        m = inbox.recv(timeout=max(0.0, until - time.monotonic()))
        if isinstance(m, rtcore.Message):
            return m


def event(inbox: rtcore.Inbox, kind: str) -> rtcore.Event:
    """The next event of this kind; all else before it is skipped."""
    until = time.monotonic() + PATIENCE
    while True:
        m = inbox.recv(timeout=max(0.0, until - time.monotonic()))
        if isinstance(m, rtcore.Event) and m.kind == kind:
            return m


class Interrupted(Exception):
    """What the handler of `interrupting` raises."""


class interrupting:
    """Has SIGUSR1 sent to this process until the block has ended, and its handler raise."""

    def __init__(self, raising: bool = True) -> None:
        self.raising = raising
        self.calls = 0

    def _handler(self, signo: int, frame: object) -> None:
        self.calls += 1
        if self.raising:
            raise Interrupted

    def _send(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        # A signal is handled at once by a wait that sleeps; one that comes before the sleep is
        # handled before it.
        while not self.over.wait(0.05):
            signal.pthread_kill(main, signal.SIGUSR1)

    def __enter__(self) -> interrupting:
        self.before = signal.signal(signal.SIGUSR1, self._handler)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._send)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # The handler may raise here, too, until the thread has ended.
        self.raising = False
        self.over.set()
        self.thread.join()
        signal.signal(signal.SIGUSR1, self.before)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", type=float, default=3.0, help="seconds of the soak test; scripts/try-python shows ten minutes")


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.01)
