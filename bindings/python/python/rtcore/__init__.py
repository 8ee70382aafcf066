"""Python programs beside rtd: panels, test benches, supervision, plots. Not the 1 kHz loop.

>>> import rtcore
>>> with rtcore.Session("panel") as session:
...     commands = session.sender("panel.questions")
...     commands.wait_for_receiver(timeout=5.0)
...     commands.send(b"position?")
...     for m in session.inbox():
...         print(m)

Times are nanoseconds of CLOCK_MONOTONIC (``time.monotonic_ns()``), timeouts are seconds. A sender, an
inbox, a caller or a waiter is for one thread at a time.
"""

from __future__ import annotations

import os as _os

from ._errors import (
    Closed,
    Corrupt,
    Denied,
    Disconnected,
    Error,
    Forked,
    Full,
    InUse,
    NoDaemon,
    PeerDead,
    Protocol,
    SeveralInstances,
    SignalRefused,
    Stranger,
    Taken,
    Timeout,
    TooLarge,
    Unknown,
)
from ._histogram import Histogram, histogram
from ._rtcore import (
    Caller,
    Event,
    Head,
    Inbox,
    InPlace,
    Loan,
    Message,
    Notice,
    Origin,
    Ready,
    Registration,
    ReplyTo,
    Sender,
    Session,
    Signals,
    Waiter,
    __version__,
    _after_fork_in_child,
    block_signals,
    instances,
    stats,
)

# A view of a slot that the child inherits shows zeros there, where it would end the child.
_os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = [
    "Caller",
    "Closed",
    "Corrupt",
    "Denied",
    "Disconnected",
    "Error",
    "Event",
    "Forked",
    "Full",
    "Head",
    "Histogram",
    "InPlace",
    "InUse",
    "Inbox",
    "Loan",
    "Message",
    "NoDaemon",
    "Notice",
    "Origin",
    "PeerDead",
    "Protocol",
    "Ready",
    "Registration",
    "ReplyTo",
    "Sender",
    "Session",
    "SeveralInstances",
    "SignalRefused",
    "Signals",
    "Stranger",
    "Taken",
    "Timeout",
    "TooLarge",
    "Unknown",
    "Waiter",
    "__version__",
    "block_signals",
    "histogram",
    "instances",
    "stats",
]
