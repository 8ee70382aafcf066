/* The calls that rtcore.h marks [RT], answered and refused, make no heap call: this program's allocator ends it at the first
 * one. (A planner that sends to an arm, both of them this process' sessions, through the daemon and directly.) */
#include <stdbool.h>
#include <unistd.h>

#include "check.h"

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *there, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *there);

/* Volatile: a compiler may assume that malloc(3) looks at no variable of the program. */
static _Thread_local volatile bool guarded;
static _Thread_local volatile unsigned long calls;

static void heap(void) {
    if (guarded) {
        calls++;
    }
}
void *malloc(size_t size) {
    heap();
    return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
    heap();
    return __libc_calloc(n, size);
}
void *realloc(void *there, size_t size) {
    heap();
    return __libc_realloc(there, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    heap();
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    heap();
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : ENOMEM;
}
void free(void *there) {
    heap();
    __libc_free(there);
}

static void quiet(const char *what) {
    guarded = false;
    if (calls) {
        fprintf(stderr, "%lu heap calls: %s\n", calls, what);
        exit(1);
    }
    guarded = true;
}

/* Each call there is, with each way that it ends. */
static void rounds(rtcore_sender *sender, rtcore_inbox *inbox, rtcore_caller *caller, rtcore_waiter *waiter,
                   bool direct) {
    char bytes[200] = { 0 };
    struct iovec pieces[3] = { { bytes, 8 }, { bytes, 4 }, { bytes, 100 } };
    rtcore_message message;
    rtcore_ready ready[2];
    unsigned long got = 0, full = 0;
    calls = 0;
    guarded = true;
    for (int round = 0; round < 300; round++) {
        rtcore_send(sender, bytes, 8, &err);
        rtcore_try_send(sender, bytes, 8, &err);
        rtcore_send_at(sender, rtcore_now_ns(), bytes, 8, NULL);
        rtcore_send_vec(sender, pieces, 2, &err);
        rtcore_send_batch(sender, pieces, 2, &err);
        quiet("sends");
        /* Refused: longer than a slot, and soon also without room. */
        CHECK(rtcore_send(sender, bytes, 100, &err) < 0);
        CHECK(rtcore_send_vec(sender, pieces, 3, &err) < 0);
        CHECK(rtcore_error_kind(&err) == RTCORE_ERR_TOO_LARGE || rtcore_error_kind(&err) == RTCORE_ERR_FULL);
        CHECK(rtcore_reply(sender, 0, bytes, 8, &err) == -EINVAL);
        quiet("refusals");
        void *slot = rtcore_loan(sender, 16, &err);
        if (slot) {
            memset(slot, 1, 16);
            CHECK(rtcore_send(sender, bytes, 8, &err) == -EBUSY);
            CHECK(rtcore_commit(sender, 8, &err) > 0);
            if (rtcore_loan(sender, 16, &err)) {
                rtcore_discard(sender);
            }
        } else {
            CHECK(rtcore_error_kind(&err) == RTCORE_ERR_FULL);
            full++;
        }
        quiet("loans");
        if (round % 10 == 9) {
            rtcore_inbox_set_wait(inbox, RTCORE_WAIT_SPIN, 1000);
            rtcore_wait(waiter, ready, 2, in_ms(1));
            for (;;) {
                int one = round % 20 == 9 ? rtcore_recv(inbox, &message, sizeof message, in_ms(1), &err)
                                          : rtcore_peek(inbox, &message, sizeof message, in_ms(1), &err);
                CHECK(one >= 0);
                if (one == 0) {
                    break;
                }
                got += message.kind == RTCORE_MESSAGE;
                CHECK(message.kind != RTCORE_MESSAGE || rtcore_message_received_ns(&message) >= message.sent_ns);
            }
            rtcore_release(inbox);
            rtcore_try_recv(inbox, &message, sizeof message, &err);
            rtcore_inbox_wake(inbox);
            CHECK(rtcore_recv(inbox, &message, sizeof message, RTCORE_FOREVER, &err) == -ECANCELED);
        }
        quiet("receiving");
        if (round % 50 == 0) {
            CHECK(rtcore_call(caller, "?", 1, &message, sizeof message, in_ms(1), &err) < 0);
        }
        quiet("calls");
        rtcore_sleep_until(rtcore_now_ns() + 1000);
    }
    quiet("the rest");
    guarded = false;
    printf("%s: %lu received, %lu times full\n", direct ? "direct" : "routed", got, full);
    /* A lane takes what a sender's ring has no room for; a direct ring has no lane. */
    CHECK(got > 0 && (full > 0 || !direct));
}

int main(void) {
    rtcore_session *planner = NULL, *arm = NULL;
    rtcore_inbox *inbox = NULL;
    rtcore_caller *caller = NULL;
    rtcore_sender *senders[2] = { NULL, NULL };
    rtcore_waiter *waiter = NULL;
    EXPECT(rtcore_connect(&planner, "planner", NULL, &err), 0);
    EXPECT(rtcore_connect(&arm, "arm", NULL, &err), 0);
    EXPECT(rtcore_inbox_open(&inbox, arm, NULL, 0, &err), 0);
    EXPECT(rtcore_caller_open(&caller, planner, "ask", "plan", &err), 0);
    EXPECT(rtcore_waiter_open(&waiter, 1), 0);
    EXPECT(rtcore_waiter_add_fd(waiter, rtcore_inbox_fd(inbox), 1, 0, RTCORE_READABLE), 0);
    /* The allocator sees what it is there for. */
    guarded = true;
    void *volatile seen = malloc(1);
    free(seen);
    guarded = false;
    CHECK(calls >= 2);
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    how.lane = "lane";
    how.flags = RTCORE_DO_NOT_LOCK;
    int priority = rtcore_realtime_enter(arm, &how, &err);
    CHECK(priority == 49 || rtcore_error_kind(&err) == RTCORE_ERR_PERMISSION);
    for (int way = 0; way < 2; way++) {
        EXPECT(rtcore_sender_open(&senders[way], planner, way ? "fast" : "cmd", &err), 0);
        EXPECT(rtcore_sender_wait(senders[way], in_ms(40000), &err), 0);
        rounds(senders[way], inbox, caller, waiter, way);
    }
    if (priority == 49) {
        rtcore_breaches breaches;
        EXPECT(rtcore_realtime_check(&breaches, sizeof breaches), 0);
        /* The library counts its own calls: those of rtcore_sender_open() above, which is not real-time, are there. */
        CHECK(breaches.heap_calls > 0 && breaches.voluntary_switches > 0);
        guarded = true;
        calls = 0;
        unsigned long before = breaches.heap_calls;
        rtcore_try_send(senders[0], "x", 1, &err);
        EXPECT(rtcore_realtime_check(&breaches, sizeof breaches), 0);
        CHECK(breaches.heap_calls == before && calls == 0);
        guarded = false;
    }
    rtcore_waiter_close(waiter);
    rtcore_caller_close(caller);
    rtcore_inbox_close(inbox);
    rtcore_sender_close(senders[0]);
    rtcore_sender_close(senders[1]);
    rtcore_session_close(arm);
    rtcore_session_close(planner);
    puts("quiet");
    return 0;
}
