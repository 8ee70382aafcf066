"""Sending and receiving, by copy and in place."""

from __future__ import annotations

import array
import ctypes
import gc
import struct
import time

import pytest
from conftest import PATIENCE, Daemon, message

import rtcore


class SetPoint(ctypes.Structure):
    _fields_ = [("position", ctypes.c_double), ("velocity", ctypes.c_double)]


@pytest.mark.parametrize("kind", ["routed", "direct"])
def test_a_message_says_who_sent_it_when_and_by_which_way(
    a: rtcore.Session, b: rtcore.Session, kind: str
) -> None:
    sender, inbox = a.sender(f"a.{kind}"), b.inbox([f"b.{kind}"])
    sender.wait_for_receiver(PATIENCE)
    before = time.monotonic_ns()
    assert sender.send(b"one") == 1
    assert sender.send(b"two", intended_ns=before) == 2
    one, two = message(inbox), message(inbox)
    assert (one.data, two.data, len(one)) == (b"one", b"two", 3)
    assert (one.endpoint, one.source, one.lane, one.route) == (
        f"b.{kind}",
        f"a.{kind}",
        "talk",
        f"a.{kind}",
    )
    assert (one.sequence, two.sequence, two.missed) == (1, 2, 0)
    assert two.intended_ns == before <= one.sent_ns <= two.received_ns <= time.monotonic_ns()
    assert two.latency_ns == two.received_ns - two.intended_ns
    assert one.origin.verified and one.origin.pid > 0 and one.origin == two.origin
    assert (one.signal, one.reply_to, one.mq_priority) == (None, None, 0)
    assert inbox.counters()["received"] == 2
    assert (sender.endpoint, sender.msgsize, sender.direct) == (f"a.{kind}", 64, kind == "direct")


def test_anything_with_a_buffer_can_be_sent(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    point = SetPoint(1.5, -2.0)
    for thing in (point, bytearray(b"x"), memoryview(b"abc")[1:], array.array("I", [7]), b""):
        sender.send(thing)
        got = message(inbox).data
        assert got == bytes(memoryview(thing).cast("B") if thing is point else thing)
    assert SetPoint.from_buffer_copy(struct.pack("dd", 1.5, -2.0)).position == 1.5
    with pytest.raises(TypeError):
        sender.send("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        sender.send(memoryview(b"abcd")[::2])


def test_a_loan_is_written_where_it_is_read(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    loan = sender.loan(16)
    assert loan.sequence is None and len(loan) == 16
    with loan as view:
        assert bytes(view) == bytes(16), "nothing of an earlier message shows"
        struct.pack_into("dd", view, 0, 1.0, 2.0)
    assert loan.sequence == 1
    with pytest.raises(ValueError):
        view[0]  # released with the slot
    with pytest.raises(BufferError, match="given back"), loan:
        pass
    with inbox.peek(PATIENCE) as m:
        assert isinstance(m, rtcore.InPlace)
        assert struct.unpack("dd", m.data) == (1.0, 2.0)
        assert (m.sequence, m.endpoint, len(m), m.data.readonly) == (1, "b.direct", 16, True)
        with pytest.raises(TypeError):
            m.data[0] = 1
    with pytest.raises(BufferError):
        memoryview(m)
    with sender.loan(4, intended_ns=5) as view:
        view[:] = b"abcd"
    assert message(inbox).intended_ns == 5


def test_a_loan_is_discarded_if_its_block_raises(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    with pytest.raises(ZeroDivisionError), sender.loan(4) as view:
        view[0] = 1 // 0
    assert sender.send(b"next") == 1
    assert message(inbox).data == b"next"


def test_a_slot_stays_while_a_view_of_it_is_in_use(a: rtcore.Session, b: rtcore.Session) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    for text in (b"one", b"two"):
        sender.send(text)
    with pytest.raises(BufferError, match="1 view of the slot is still in use"):
        with inbox.peek(PATIENCE) as m:
            assert isinstance(m, rtcore.InPlace)
            part = m.data[1:]
    del m
    gc.collect()
    assert bytes(part) == b"ne", "never a dangling pointer"
    for call in (inbox.try_recv, inbox.recv, inbox.peek, inbox.close):
        with pytest.raises(BufferError, match="delete it"):
            call()
    assert sender.pending == 2
    del part
    assert sender.pending == 1, "the slot goes with its last view"
    assert message(inbox).data == b"two"

    with pytest.raises(BufferError, match="nothing was sent"):
        with sender.loan(4) as view:
            kept = view[:2]
    with pytest.raises(BufferError):
        sender.send(b"x")
    kept[:] = b"ab"
    del kept, view
    assert sender.send(b"x") == 3


def test_the_error_of_a_block_is_not_hidden_by_its_views(
    a: rtcore.Session, b: rtcore.Session
) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    sender.send(b"one")
    with pytest.raises(ZeroDivisionError) as raised:
        with inbox.peek(PATIENCE) as m:
            assert isinstance(m, rtcore.InPlace)
            part = m.data[:1]
            1 // 0
    assert bytes(part) == b"o"
    del part, m, raised
    assert inbox.try_recv() is None


def test_a_peek_without_with_keeps_its_slot_until_it_is_dropped(
    a: rtcore.Session, b: rtcore.Session
) -> None:
    sender, inbox = a.sender("a.direct"), b.inbox(["b.direct"])
    sender.wait_for_receiver(PATIENCE)
    sender.send(b"one")
    peeked = inbox.peek(PATIENCE)
    assert sender.pending == 1
    assert isinstance(peeked, rtcore.InPlace) and bytes(peeked.data) == b"one"
    del peeked
    gc.collect()
    assert sender.pending == 0


def test_a_peek_of_a_route_that_writes_over_slots_is_a_copy(
    a: rtcore.Session, b: rtcore.Session
) -> None:
    sender, inbox = a.sender("a.latest"), b.inbox(["b.latest"])
    sender.wait_for_receiver(PATIENCE)
    sender.send(b"old")
    with inbox.peek(PATIENCE) as m:
        assert isinstance(m, rtcore.InPlace)
        for _ in range(20):
            sender.send(b"new")
        assert bytes(m.data) == b"old"


def test_numpy_looks_without_a_copy(a: rtcore.Session, b: rtcore.Session) -> None:
    numpy = pytest.importorskip("numpy")
    sender, inbox = a.sender("a.large"), b.inbox(["b.large"])
    sender.wait_for_receiver(PATIENCE)
    sender.send(numpy.arange(8192, dtype="float64"))
    with inbox.peek(PATIENCE) as m:
        assert isinstance(m, rtcore.InPlace)
        seen = numpy.frombuffer(m.data, dtype="float64")
        assert not seen.flags.owndata and not seen.flags.writeable
        assert seen.sum() == 8191 * 4096
        del seen
    with sender.loan(65536) as view:
        numpy.frombuffer(view, dtype="float64")[:] = 2.0
    assert set(struct.unpack("8192d", message(inbox).data)) == {2.0}
    with pytest.raises(BufferError):
        with sender.loan(65536) as view:
            array_ = numpy.frombuffer(view, dtype="float64")
    array_[:] = 1.0
    del array_, view
    sender.send(b"x")
    assert message(inbox).data == b"x"


def test_requests_and_answers(a: rtcore.Session, b: rtcore.Session) -> None:
    import threading

    inbox, answers = b.inbox(["b.ask"]), b.sender("b.answers")

    def serve() -> None:
        for number in range(3):
            request = message(inbox)
            assert request.reply_to is not None
            if number == 1:
                with answers.loan(4, reply_to=request.reply_to) as view:
                    view[:] = b"loan"
            elif number == 0:
                answers.reply(request.reply_to, request.data.upper())

    server = threading.Thread(target=serve)
    server.start()
    with a.caller("a.ask", "a.answers") as caller:
        caller.wait_for_receiver(PATIENCE)
        assert caller.call(b"question", timeout=PATIENCE).data == b"QUESTION"
        assert caller.call(b"again", timeout=PATIENCE).data == b"loan"
        with pytest.raises(rtcore.Timeout):
            caller.call(b"late", timeout=0.05)
        assert caller.late == 0
    server.join()


def test_an_inbox_is_iterated_until_its_session_is_closed(
    daemon: Daemon, a: rtcore.Session
) -> None:
    b = daemon.session("b")
    sender, inbox = a.sender("a.direct"), b.inbox()
    sender.wait_for_receiver(PATIENCE)
    for number in range(3):
        sender.send(bytes([number]))
    got = []
    for m in inbox:
        if isinstance(m, rtcore.Message):
            got.append(m.data)
            if len(got) == 3:
                b.close()
    assert got == [b"\0", b"\1", b"\2"]
    with pytest.raises(rtcore.Closed):
        inbox.recv()


def test_a_waiter_orders_what_is_ready(a: rtcore.Session, b: rtcore.Session) -> None:
    import os

    low, high = b.inbox(["b.direct"]), b.inbox(["b.routed"])
    reading, writing = os.pipe()
    with rtcore.Waiter() as waiter, pytest.raises(OSError):
        waiter.wait()
    with rtcore.Waiter(capacity=3) as waiter:
        waiter.add(low, "low", 1)
        waiter.add(high, "high", 9)
        waiter.add(reading, reading, 5)

        def drain() -> None:
            """Events of the start, and what a descriptor announces for nothing at first."""
            while waiter.wait(0.05):
                while low.try_recv() or high.try_recv():
                    pass

        drain()
        senders = a.sender("a.direct"), a.sender("a.routed")
        for sender in senders:
            sender.wait_for_receiver(PATIENCE)
        drain()
        os.write(writing, b"x")
        senders[0].send(b"l")
        senders[1].send(b"h")
        ready: list[rtcore.Ready] = []
        while len(ready) < 3:
            ready = waiter.wait(PATIENCE)
        assert [one.key for one in ready] == ["high", reading, "low"]
        assert all(one.readable and not one.hangup for one in ready)
        with pytest.raises(ValueError, match="remove it first"):
            waiter.add(low, "low")
        waiter.remove("high")
        with pytest.raises(KeyError):
            waiter.remove("high")
        assert [one.key for one in waiter.wait(PATIENCE)] == [reading, "low"]
    os.close(reading)
    os.close(writing)
