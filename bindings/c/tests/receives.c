/* What a message says of itself, in an arm's inbox; and signals with payloads, by callbacks of its dispatcher. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"

RTCORE_HOLD_SIGNALS;

static rtcore_signals *signals;
static int64_t first, second;
static atomic_int calls[3], running;

static void count(const rtcore_notice *notice, void *user) {
    CHECK(notice->signo == SIGRTMIN + 4);
    if (notice->flags & RTCORE_FROM_RING) {
        CHECK(strcmp(notice->endpoint, "arm.bell") == 0 && strcmp(notice->from, "ring") == 0);
        CHECK(notice->len == 8 && memcmp(notice->data, "payload!", 8) == 0 && notice->flags & RTCORE_VERIFIED);
    }
    calls[(intptr_t)user]++;
}

/* Removes itself, which must not wait for its own end. */
static void removes(const rtcore_notice *notice, void *user) {
    count(notice, user);
    EXPECT(rtcore_signals_remove(signals, second), 0);
}

/* Runs while somebody removes it, who has to wait. */
static void lasts(const rtcore_notice *notice, void *user) {
    running = 1;
    count(notice, user);
    rtcore_sleep_until(in_ms(50));
    running = 2;
}

static void raise_one(void) {
    union sigval value = { .sival_int = 1 };
    CHECK(sigqueue(getpid(), SIGRTMIN + 4, value) == 0);
}

static void until(atomic_int *what, int wanted) {
    uint64_t limit_ns = in_ms(40000);
    while (*what < wanted) {
        CHECK(rtcore_now_ns() < limit_ns);
        rtcore_sleep_until(in_ms(1));
    }
}

static void callbacks(rtcore_session *session) {
    EXPECT(rtcore_signals_open(&signals, session, &err), 0);
    CHECK((first = rtcore_signals_register(signals, SIGRTMIN + 4, 0, count, (void *)0, &err)) > 0);
    CHECK((second = rtcore_signals_register(signals, SIGRTMIN + 4, RTCORE_FIRST, removes, (void *)1, &err)) > 0);
    CHECK(rtcore_signals_register(signals, SIGRTMIN + 4, RTCORE_ONCE, count, (void *)2, &err) > 0);
    stop("ring");
    until(&calls[0], 2);
    CHECK(calls[0] == 2 && calls[1] == 1 && calls[2] == 1);
    EXPECT(rtcore_signals_remove(signals, second), -ENOENT);
    EXPECT(rtcore_signals_replace(signals, first, lasts, (void *)0), 0);
    raise_one();
    until(&running, 1);
    EXPECT(rtcore_signals_remove(signals, first), 0);
    CHECK(running == 2);
    /* The dispatcher counts a call after it has let go of the callback. */
    rtcore_signals_counters counters = { 0 };
    uint64_t limit_ns = in_ms(40000);
    while (counters.calls < 5) {
        CHECK(rtcore_now_ns() < limit_ns);
        EXPECT(rtcore_signals_count(signals, &counters, sizeof counters), 0);
        rtcore_sleep_until(in_ms(1));
    }
    CHECK(counters.received >= 3 && counters.calls == 5);
    rtcore_signals_close(signals);
}

static void *wakes(void *inbox) {
    EXPECT(rtcore_inbox_wake(inbox), 0);
    return NULL;
}

int main(void) {
    rtcore_session *session = NULL;
    rtcore_inbox *inbox = NULL;
    rtcore_message message, events = { 0 };
    EXPECT(rtcore_connect(&session, "arm", NULL, &err), 0);
    EXPECT(rtcore_inbox_open(&inbox, session, NULL, 0, &err), 0);
    CHECK(rtcore_session_fd(session) >= 0);
    callbacks(session);
    stop("send");
    int got = 0, back = 0;
    while (got < 3) {
        /* By copy, then in place, then as a longer structure of a later header. */
        struct {
            rtcore_message known;
            uint64_t later;
        } longer = { .later = 1 };
        if (got == 1) {
            EXPECT(rtcore_peek(inbox, &message, sizeof message, in_ms(40000), &err), 1);
        } else {
            EXPECT(rtcore_recv(inbox, &longer.known, sizeof longer, in_ms(40000), &err), 1);
            CHECK(longer.later == 0);
            message = longer.known;
        }
        if (message.kind != RTCORE_MESSAGE) {
            back += message.kind == RTCORE_EVENT_PEER_BACK && strcmp(message.process, "planner") == 0;
            continue;
        }
        uint64_t number;
        CHECK(message.len == sizeof number);
        memcpy(&number, message.data, sizeof number);
        CHECK(number == (uint64_t)got + 1 && message.sequence == number && message.missed == 0);
        CHECK(strcmp(message.endpoint, "arm.cmd") == 0 && strcmp(message.from, "cmd") == 0);
        CHECK(strcmp(message.lane, "lane") == 0 && strcmp(message.process, "planner") == 0);
        CHECK(message.flags == RTCORE_VERIFIED && message.pid > 0 && message.uid == getuid() && message.reply_to == 0);
        CHECK(message.sent_ns && message.intended_ns <= message.sent_ns);
        CHECK(rtcore_message_received_ns(&message) >= message.sent_ns);
        got++;
    }
    rtcore_release(inbox);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wakes, inbox) == 0);
    REFUSED(rtcore_recv(inbox, &message, sizeof message, in_ms(40000), &err), ECANCELED, RTCORE_ERR_WOKEN, "waker");
    pthread_join(thread, NULL);
    rtcore_inbox_counters counters;
    EXPECT(rtcore_inbox_count(inbox, &counters, sizeof counters), 0);
    CHECK(counters.received == 3 && counters.missed == 0);
    stop("end the planner");
    do {
        EXPECT(rtcore_recv(inbox, &message, sizeof message, in_ms(40000), &err), 1);
    } while (message.kind != RTCORE_EVENT_PEER_LOST);
    CHECK(message.ending_kind == RTCORE_KILLED && message.ending_value == SIGKILL && strcmp(message.process, "planner") == 0);
    /* The session has the same events behind its own descriptor. */
    rtcore_waiter *waiter = NULL;
    rtcore_ready ready;
    EXPECT(rtcore_waiter_open(&waiter, 1), 0);
    EXPECT(rtcore_waiter_add_fd(waiter, rtcore_session_fd(session), 1, 0, RTCORE_READABLE), 0);
    while (events.kind != RTCORE_EVENT_PEER_LOST) {
        if (rtcore_session_take(session, &events, sizeof events) == 0) {
            EXPECT(rtcore_wait(waiter, &ready, 1, in_ms(40000)), 1);
        }
    }
    rtcore_waiter_close(waiter);
    rtcore_peer peers[8];
    ssize_t known = rtcore_session_peers(session, peers, 8, sizeof peers[0]);
    CHECK(known == 1 && strcmp(peers[0].process, "planner") == 0 && peers[0].state == RTCORE_PEER_DEAD);
    CHECK(peers[0].ending_value == SIGKILL);
    rtcore_channel channels[16];
    ssize_t ways = rtcore_session_channels(session, channels, 16, sizeof channels[0]);
    CHECK(ways > 3 && ways <= 16);
    int direct = 0, bell = 0;
    for (ssize_t i = 0; i < ways; i++) {
        direct += channels[i].flags == RTCORE_DIRECT && channels[i].msgsize == 64 && channels[i].slots == 8;
        bell += channels[i].role == RTCORE_ROLE_SIGNAL && channels[i].signo == SIGRTMIN + 4;
    }
    CHECK(direct == 1 && bell == 1);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
    CHECK(back >= 0);
    puts("received");
    return 0;
}
