"""A test bench: drives a controller's inputs, and asserts on the deadlines of its outputs.

Takes the place of the drive of configs/examples.toml, starts the controller (the one of this file, or
any program: --controller COMMAND), and checks what arrives: a set point every millisecond, none
missing, none later than --max-ms. Exit status 0 = passed, 1 = failed.

    rtd run configs/examples.toml        # in another terminal; an ordinary user: --allow-degraded
    RTD_INSTANCE=examples python3 bindings/python/examples/bench.py --seconds 3
"""

from __future__ import annotations

import argparse
import math
import shlex
import struct
import subprocess
import sys
import time

import rtcore

PERIOD_NS = 1_000_000


def control(seconds: float) -> None:
    """The controller under test, where no other is given. Python is none for a real machine: it has
    no bound on its latency."""
    with rtcore.Session("controller") as session:
        setpoints = session.sender("controller.setpoints")
        setpoints.wait_for_receiver(10.0)
        start = due = time.monotonic_ns()
        while due - start < seconds * 1e9:
            due += PERIOD_NS
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            angle = (due - start) * 1e-9
            try:
                setpoints.send(struct.pack("dd", math.sin(angle), math.cos(angle)), intended_ns=due)
            except (rtcore.Full, rtcore.PeerDead) as refused:
                print(f"controller: {refused}", file=sys.stderr)
        setpoints.flush(1.0)


class Verdict:
    """What arrived, and what is wrong with it."""

    def __init__(self) -> None:
        self.latencies: list[int] = []
        self.missed = 0
        self.ended: str | None = None

    def take(self, m: rtcore.Message) -> None:
        position, velocity = struct.unpack("dd", m.data)
        assert abs(math.hypot(position, velocity) - 1.0) < 1e-9, "a set point off the circle"
        self.missed += m.missed
        self.latencies.append(m.latency_ns)

    def failures(self, seconds: float, max_ms: float) -> list[str]:
        found = []
        if len(self.latencies) < 0.9 * seconds * 1e9 / PERIOD_NS:
            found.append(f"{len(self.latencies)} set points in {seconds} s")
        if self.missed:
            found.append(f"{self.missed} set points are missing")
        late = [ns for ns in self.latencies if ns > max_ms * 1e6]
        if late:
            found.append(f"{len(late)} set points later than {max_ms} ms, {max(late) / 1e6:.3f} ms at most")
        return found


def bench(command: list[str], seconds: float, max_ms: float) -> int:
    verdict = Verdict()
    with rtcore.Session("drive") as session, session.inbox() as inbox:
        controller = subprocess.Popen(command)
        try:
            while True:
                m = inbox.recv(timeout=seconds + 20.0)
                if isinstance(m, rtcore.Message):
                    verdict.take(m)
                elif m.kind == "peer-lost" and verdict.latencies:
                    verdict.ended = m.text
                    break
            # Its last messages may be behind the event.
            while (rest := inbox.try_recv()) is not None:
                if isinstance(rest, rtcore.Message):
                    verdict.take(rest)
        except rtcore.Timeout as silence:
            verdict.ended = str(silence)
        finally:
            controller.kill()
            controller.wait()
    late = sorted(verdict.latencies) or [0]
    print(
        f"{len(verdict.latencies)} set points, p50 {late[len(late) // 2] / 1e3:.1f} us,"
        f" p99 {late[len(late) * 99 // 100] / 1e3:.1f} us, max {late[-1] / 1e3:.1f} us"
    )
    failures = verdict.failures(seconds, max_ms)
    for failure in failures:
        print(f"FAIL: {failure}")
    if not failures:
        print("PASS")
    return 1 if failures else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long the controller runs")
    parser.add_argument("--max-ms", type=float, default=2.0, help="latest set point that passes")
    parser.add_argument("--controller", metavar="COMMAND", help="the controller under test")
    parser.add_argument("--control", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.control:
        control(args.seconds)
        return 0
    own = [sys.executable, __file__, "--control", "--seconds", str(args.seconds)]
    command = shlex.split(args.controller) if args.controller else own
    return bench(command, args.seconds, args.max_ms)


if __name__ == "__main__":
    sys.exit(main())
