"""Dictionaries that calls return."""

from __future__ import annotations

from typing import Literal, TypedDict


class PeerDict(TypedDict):
    process: str
    pid: int
    alive: bool


class ChannelDict(TypedDict):
    role: Literal["sender", "inbox", "signal"]
    endpoint: str
    other: str
    process: str | None
    lane: str
    route: str
    direct: bool
    slots: int
    msgsize: int
