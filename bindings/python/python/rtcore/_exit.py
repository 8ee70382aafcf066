"""Dispatcher threads call Python, so they end before the interpreter does."""

from __future__ import annotations

import atexit
import weakref
from typing import Protocol


class _Closes(Protocol):
    def close(self) -> None: ...


_open: weakref.WeakSet[_Closes] = weakref.WeakSet()


def close_at_exit(it: _Closes) -> None:
    _open.add(it)


@atexit.register
def _close_all() -> None:
    for it in list(_open):
        it.close()
