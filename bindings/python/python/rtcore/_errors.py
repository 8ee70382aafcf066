"""The exceptions: a class for each kind of error, each under a builtin.

The text names the object, the value, the limit and the line that fixes it.
"""

from __future__ import annotations


class Error(Exception):
    """Base of all of them. The arguments are an errno and the text."""

    #: The endpoint that it is about, where it is about one.
    endpoint: str | None = None
    #: Of PeerDead: the receiver, and how it ended.
    process: str | None = None
    exit_status: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        return str(self.args[-1]) if self.args else ""


class Full(Error, BlockingIOError):
    """Every slot holds a message that the receiver has not taken."""


class TooLarge(Error, ValueError):
    """The message is longer than a slot."""


class PeerDead(Error, BrokenPipeError):
    """Nobody is there to receive, or to answer."""


class Disconnected(Error, ConnectionError):
    """There is no way out at the moment: rtd is away or refuses the session."""


class Closed(Disconnected):
    """The session or the handle was closed."""


class Corrupt(Error, ConnectionError):
    """The other end broke the protocol of its ring."""


class Timeout(Error, TimeoutError):
    """Nothing came in time."""


class Denied(Error, PermissionError):
    """The configuration does not allow it; the text names the rule."""


class Unknown(Error, LookupError):
    """There is no such endpoint, process or route."""


class Taken(Error, OSError):
    """Another holder in this process has the endpoint or the signal."""


class NoDaemon(Error, ConnectionRefusedError):
    """No rtd runs there."""


class SeveralInstances(Error, OSError):
    """Several instances run: one of them has to be named."""


class Stranger(Error, PermissionError):
    """A user listens at the socket who must not."""


class Protocol(Error, ConnectionError):
    """rtd, or its page, is of another version."""


class Forked(Error, ChildProcessError):
    """This process was forked from the one that opened the session."""


class InUse(Error, RuntimeError):
    """Another thread is in a call of this handle."""


class SignalRefused(Error, ValueError):
    """The signal or the handler cannot be taken."""
