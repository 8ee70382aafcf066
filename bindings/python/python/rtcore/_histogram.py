"""Latency histograms of the statistics page."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from ._rtcore import _buckets


@dataclass(frozen=True)
class Histogram:
    """Latencies of a route, in buckets of at most 1 % width.

    The three arrays are ``array('Q')``, which NumPy takes without a copy: ``numpy.asarray(h.count)``.
    They are no NumPy arrays, because importing NumPy starts threads, and a library must not do that
    in a program that is about to block signals.
    """

    #: The lowest and the highest latency of each bucket.
    low_ns: array[int]
    high_ns: array[int]
    #: How many messages were in it.
    count: array[int]

    @property
    def total(self) -> int:
        """Number of latencies."""
        return sum(self.count)

    def quantile(self, q: float) -> int:
        """The latency that a share ``q`` (0 to 1) of the messages did not exceed, in ns; 0 if there
        are none."""
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile is between 0 and 1: {q}")
        below, total = 0, self.total
        for high, count in zip(self.high_ns, self.count):
            below += count
            if below >= q * total:
                return high
        return 0

    def since(self, earlier: Histogram) -> Histogram:
        """What came after ``earlier``, an older histogram of the same route."""
        before = dict(zip(earlier.low_ns, earlier.count))
        rows = [
            (low, high, count - before.get(low, 0))
            for low, high, count in zip(self.low_ns, self.high_ns, self.count)
        ]
        return _of([row for row in rows if row[2] > 0])


def _of(rows: list[tuple[int, int, int]]) -> Histogram:
    low, high, count = (array("Q", (row[at] for row in rows)) for at in range(3))
    return Histogram(low, high, count)


def histogram(instance: str | None, route: str) -> Histogram:
    """The latencies of a route since rtd started. ``instance`` None: the default one."""
    return _of(_buckets(instance, route))
