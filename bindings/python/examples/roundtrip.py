"""Measures a request and its answer between two Python processes, through rtd and past it.

    RTD=target/release/rtd python3 bindings/python/examples/roundtrip.py --calls 20000

Starts an rtd of its own. The figures of the manual come from this program, on a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rtcore

_LANE = '[[lane]]\nname = "talk"\npriority = 40\ncpu = {cpu}\n'
_PROCESS = '[[process]]\nname = "{}"\n'
_ENDPOINT = '[[endpoint]]\nname = "{}"\nkind = "lane"\nowner = "{}"\nmsgsize = 64\n'
_ROUTE = '[[route]]\nfrom = "{}"\nto = ["{}"]\nlane = "talk"\npath = "{}"\n'
PATHS = ("direct", "routed")


def config(name: str, socket: Path) -> str:
    text = f'[daemon]\nname = "{name}"\nsocket = "{socket}"\nkeep_queues = false\n'
    text += _LANE.format(cpu=min(os.sched_getaffinity(0)))
    text += _PROCESS.format("asker") + _PROCESS.format("server")
    for path in PATHS:
        for name in (f"asker.{path}", f"asker.{path}.answers"):
            text += _ENDPOINT.format(name, "asker")
        for name in (f"server.{path}", f"server.{path}.answers"):
            text += _ENDPOINT.format(name, "server")
        text += _ROUTE.format(f"asker.{path}", f"server.{path}", path)
        text += _ROUTE.format(f"server.{path}.answers", f"asker.{path}.answers", path)
    return text


def serve(instance: str) -> None:
    """Answers until the asker is gone."""
    with rtcore.Session("server", instance=instance) as session:
        answers = {f"server.{path}": session.sender(f"server.{path}.answers") for path in PATHS}
        # The two directions of a pair of direct routes are joined one after the other.
        for sender in answers.values():
            sender.wait_for_receiver(10.0)
        answered = 0
        for m in session.inbox():
            if isinstance(m, rtcore.Event):
                # One before the first request says that the asker is not there yet.
                if m.kind == "peer-lost" and answered:
                    return
            elif m.reply_to is not None:
                answers[m.endpoint].reply(m.reply_to, m.data)
                answered += 1


def ask(instance: str, calls: int) -> None:
    with rtcore.Session("asker", instance=instance) as session:
        for path in PATHS:
            caller = session.caller(f"asker.{path}", f"asker.{path}.answers")
            caller.wait_for_receiver(10.0)
            took = []
            for _ in range(calls):
                began = time.perf_counter_ns()
                caller.call(b"?" * 64, timeout=1.0)
                took.append(time.perf_counter_ns() - began)
            took.sort()
            p50, p99, largest = (took[min(calls - 1, int(calls * q))] / 1000 for q in (0.5, 0.99, 1.0))
            print(f"{path}: {calls} round trips, p50 {p50:.1f} us, p99 {p99:.1f} us, max {largest:.1f} us")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--serve", metavar="INSTANCE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return 0
    name = f"roundtrip{os.getpid()}"
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "rtd.toml")
        file.write_text(config(name, Path(directory, "rtd.sock")))
        command = [os.environ.get("RTD", "rtd"), "run", str(file)]
        if os.geteuid() != 0:
            command.append("--allow-degraded")
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        server = None
        try:
            assert daemon.stdout is not None
            if not daemon.stdout.readline():
                print("roundtrip: rtd did not start", file=sys.stderr)
                return 1
            server = subprocess.Popen([sys.executable, __file__, "--serve", name])
            ask(name, args.calls)
            server.wait(10)
        finally:
            for process in (server, daemon):
                if process is not None and process.poll() is None:
                    process.terminate()
                    process.wait(10)
    return 0


if __name__ == "__main__":
    sys.exit(main())
