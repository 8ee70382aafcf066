/* Half of a ping-pong, the twin of pingpong.rs: the same calls in the same order, so that their times differ by what a caller
 * in C pays. `pingpong ping ENDPOINT ROUNDS`, `pingpong pong ENDPOINT`; `cost/run` starts both and compares. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtcore.h"

static rtcore_error err = RTCORE_ERROR_INIT;

static void ensure(int yes) {
    if (!yes) {
        char text[1024];
        rtcore_error_text(&err, text, sizeof text);
        fprintf(stderr, "pingpong: %s\n", text);
        exit(1);
    }
}

/* The next message; 0 when the other side has ended. */
static int next(rtcore_inbox *inbox, uint64_t *number) {
    rtcore_message message;
    do {
        ensure(rtcore_recv(inbox, &message, sizeof message, RTCORE_FOREVER, &err) == 1);
        if (message.kind == RTCORE_EVENT_PEER_LOST) {
            return 0;
        }
    } while (message.kind != RTCORE_MESSAGE);
    ensure(message.len == sizeof *number);
    memcpy(number, message.data, sizeof *number);
    return 1;
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    ensure(argc >= 3);
    int pings = strcmp(argv[1], "ping") == 0;
    size_t rounds = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    rtcore_session *session;
    rtcore_sender *sender;
    rtcore_inbox *inbox;
    ensure(rtcore_connect(&session, argv[1], NULL, &err) == 0);
    ensure(rtcore_sender_open(&sender, session, argv[2], &err) == 0);
    ensure(rtcore_inbox_open(&inbox, session, NULL, 0, &err) == 0);
    ensure(rtcore_sender_wait(sender, rtcore_now_ns() + UINT64_C(30000000000), &err) == 0);
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    how.lane = "lane";
    ensure(rtcore_realtime_enter(session, &how, &err) > 0);
    uint64_t *took = calloc(rounds + 1, sizeof *took), number = 0;
    for (size_t round = 0; pings ? round < rounds : 1; round++) {
        if (pings) {
            uint64_t sent_ns = rtcore_now_ns();
            number = round;
            ensure(rtcore_send(sender, &number, sizeof number, &err) > 0);
            ensure(next(inbox, &number) && number == round);
            took[round] = rtcore_now_ns() - sent_ns;
        } else if (!next(inbox, &number) || rtcore_send(sender, &number, sizeof number, &err) < 0) {
            break;
        }
    }
    if (pings) {
        uint64_t sum = 0;
        for (size_t round = 0; round < rounds; round++) {
            sum += took[round];
        }
        qsort(took, rounds, sizeof *took, compare);
        printf("%llu %llu\n", (unsigned long long)took[rounds / 2], (unsigned long long)(sum / rounds));
    }
    free(took);
    rtcore_inbox_close(inbox);
    rtcore_sender_close(sender);
    rtcore_session_close(session);
    return 0;
}
