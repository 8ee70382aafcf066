/* A drive: takes set points in a real-time thread, and prints every second how late they were. The twin of
 * rtcore/examples/drive.rs; controller.c has how to start it. --seconds N ends it by itself.
 *
 * Two threads: one receives and touches neither heap, lock nor terminal; the other prints what the first counted. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common.h"

/* Without a set point for so long the drive holds its position. */
enum { WATCHDOG_NS = 10000000 };

/* One second's figures: written by the real-time thread, taken by the other. */
static _Atomic uint64_t count, missed, sum_ns, min_ns = UINT64_MAX, max_ns;
static atomic_bool holding;

typedef struct work {
    rtcore_session *session;
    rtcore_inbox *inbox;
} work;

static void record(uint64_t late_ns, uint64_t lost) {
    holding = false;
    count += 1;
    missed += lost;
    sum_ns += late_ns;
    uint64_t least = min_ns, most = max_ns;
    while (late_ns < least && !atomic_compare_exchange_weak(&min_ns, &least, late_ns)) {
    }
    while (late_ns > most && !atomic_compare_exchange_weak(&max_ns, &most, late_ns)) {
    }
}

/* The real-time thread. */
static void *follow(void *argument) {
    work *own = argument;
    enter_realtime(own->session, "control", "latencies have no bound");
    set_point target = { 0, 0 };
    rtcore_message message;
    for (;;) {
        int got = rtcore_recv(own->inbox, &message, sizeof message, rtcore_now_ns() + WATCHDOG_NS, NULL);
        if (got < 0) {
            return NULL;
        }
        if (got == 1 && message.kind == RTCORE_MESSAGE) {
            uint64_t received_ns = rtcore_message_received_ns(&message);
            record(received_ns > message.intended_ns ? received_ns - message.intended_ns : 0, message.missed);
            /* Of another length: not from our controller, whatever else it is. */
            if (message.len == sizeof(set_point)) {
                memcpy(&target, message.data, sizeof target);
            }
        } else if (got == 0 || message.kind == RTCORE_EVENT_PEER_LOST) {
            /* The end of the controller is an event; its silence is found by the watchdog. */
            target.velocity = 0;
            holding = true;
        }
        /* Here the motor would get the target. */
        (void)target;
    }
}

static void print(void) {
    uint64_t n = atomic_exchange(&count, 0), lost = atomic_exchange(&missed, 0), sum = atomic_exchange(&sum_ns, 0);
    uint64_t least = atomic_exchange(&min_ns, UINT64_MAX), most = atomic_exchange(&max_ns, 0);
    printf("%10llu %7llu %11.1f %11.1f %11.1f%s\n", (unsigned long long)n, (unsigned long long)lost,
           (n ? (double)least : 0.0) / 1000, (double)(sum / (n ? n : 1)) / 1000, (double)most / 1000,
           holding ? "  holding: nobody commands" : "");
    fflush(stdout);
}

int main(int argc, char **argv) {
    program = "drive";
    uint64_t seconds = seconds_of(argc, argv);
    rtcore_error err = RTCORE_ERROR_INIT;
    work own;
    if (rtcore_connect(&own.session, "drive", NULL, &err) < 0 ||
        rtcore_inbox_open(&own.inbox, own.session, NULL, 0, &err) < 0) {
        fail(&err);
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, follow, &own) != 0) {
        refuse("cannot start the real-time thread");
    }
    printf("%9s %7s %11s %11s %11s\n", "set points", "missed", "min us", "avg us", "max us");
    fflush(stdout);
    for (uint64_t second = 0, next_ns = rtcore_now_ns(); second < seconds; second++) {
        next_ns += UINT64_C(1000000000);
        rtcore_sleep_until(next_ns);
        print();
    }
    rtcore_inbox_wake(own.inbox);
    pthread_join(thread, NULL);
    rtcore_inbox_close(own.inbox);
    rtcore_session_close(own.session);
    return 0;
}
