"""A panel: the latencies of a route while they come, as a plot or, without matplotlib, as text.

    RTD_INSTANCE=examples python3 bindings/python/examples/panel.py --route setpoints

It only reads the statistics page: it needs no session, and costs the observed nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator

import rtcore


def intervals(instance: str | None, route: str, period: float) -> Iterator[rtcore.Histogram]:
    """What came in each period."""
    before = rtcore.histogram(instance, route)
    while True:
        time.sleep(period)
        now = rtcore.histogram(instance, route)
        yield now.since(before)
        before = now


def text(route: str, h: rtcore.Histogram) -> None:
    p50, p99, largest = (h.quantile(q) / 1000 for q in (0.5, 0.99, 1.0))
    print(f"{route}: {h.total} messages, p50 {p50:.1f} us, p99 {p99:.1f} us, max {largest:.1f} us")
    # One line for each octave.
    octaves: dict[int, int] = {}
    for high, count in zip(h.high_ns, h.count):
        octaves[high.bit_length()] = octaves.get(high.bit_length(), 0) + count
    for bits in sorted(octaves):
        bar = "#" * max(1, 50 * octaves[bits] // h.total)
        print(f"  < {(1 << bits) / 1000:>10.1f} us {octaves[bits]:>8} {bar}")
    sys.stdout.flush()


def plot(instance: str | None, route: str, period: float, updates: int) -> None:
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots()
    for number, h in enumerate(intervals(instance, route, period), 1):
        axes.clear()
        axes.step([high / 1000 for high in h.high_ns], list(h.count), where="mid")
        axes.set(xscale="log", xlabel="latency, us", ylabel="messages", title=f"{route}: {h.total}")
        plt.pause(0.01)
        if number == updates or not plt.fignum_exists(figure.number):
            return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--route", required=True)
    parser.add_argument("--instance", default=os.environ.get("RTD_INSTANCE"))
    parser.add_argument("--period", type=float, default=0.5, help="seconds between two updates")
    parser.add_argument("--updates", type=int, default=0, help="end after so many; 0: never")
    parser.add_argument("--text", action="store_true", help="no plot, even if matplotlib is there")
    args = parser.parse_args()
    try:
        if not args.text:
            try:
                plot(args.instance, args.route, args.period, args.updates)
                return 0
            except ImportError:
                print("matplotlib is not installed: text instead", file=sys.stderr)
        for number, h in enumerate(intervals(args.instance, args.route, args.period), 1):
            text(args.route, h)
            if number == args.updates:
                break
    except KeyboardInterrupt:
        pass
    except rtcore.Error as error:
        print(f"panel: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
