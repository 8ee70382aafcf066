/* Questions with a deadline, and their answers. The twin of rtcore/examples/ask.rs.
 *
 * Terminal 1: cargo run --bin rtd -- run configs/examples.toml (as an ordinary user with --allow-degraded)
 * Terminal 2: target/release/c/ask axis
 * Terminal 3: target/release/c/ask panel 10
 *
 * `ask axis MS` takes MS milliseconds over every third answer: the panel does not wait for it, and what comes late is counted
 * and never taken for the answer to the next question. Kill the axis meanwhile: the call ends at once. */
#include <math.h>

#include "common.h"

/* How long a question may take, and the time between two questions. */
enum { LIMIT_NS = 20000000, PERIOD_NS = 100000000 };

/* The answer to "where are you?". */
typedef struct position {
    double radians;
    uint64_t at_ns;
} position;

/* Asks, ten times a second. */
static void panel(uint64_t count) {
    static const char question[] = "where are you?";
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_caller *axis;
    if (rtcore_connect(&session, "panel", NULL, &err) < 0 ||
        rtcore_caller_open(&axis, session, "panel.questions", "panel.answers", &err) < 0) {
        fail(&err);
    }
    uint64_t answered = 0, late = 0, next_ns = rtcore_now_ns();
    for (uint64_t asked = 0; asked < count; asked++) {
        next_ns += PERIOD_NS;
        rtcore_sleep_until(next_ns);
        uint64_t asked_ns = rtcore_now_ns();
        rtcore_message reply;
        int result = rtcore_call(axis, question, strlen(question), &reply, sizeof reply, asked_ns + LIMIT_NS, &err);
        if (result == 0) {
            position where;
            if (reply.len != sizeof where) {
                refuse("the answer is not a position");
            }
            memcpy(&where, reply.data, sizeof where);
            uint64_t took_us = (rtcore_message_received_ns(&reply) - asked_ns) / 1000;
            answered++;
            printf("%.3f rad at %llu ns, after %llu us\n", where.radians, (unsigned long long)where.at_ns,
                   (unsigned long long)took_us);
        } else if (result == -ETIMEDOUT) {
            late++;
            puts("no answer in time");
        } else if (result == -EPIPE) {
            /* It may come, or come back. */
            char text[1024];
            rtcore_error_text(&err, text, sizeof text);
            puts(text);
        } else {
            fail(&err);
        }
        fflush(stdout);
    }
    printf("%llu questions: %llu answered, %llu not in time; %llu answers came too late\n", (unsigned long long)count,
           (unsigned long long)answered, (unsigned long long)late, (unsigned long long)rtcore_caller_late(axis));
    rtcore_caller_close(axis);
    rtcore_session_close(session);
}

/* Answers every request until the panel is gone. */
static void axis(uint64_t slow_ns) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_inbox *inbox;
    rtcore_sender *answers;
    if (rtcore_connect(&session, "axis", NULL, &err) < 0 || rtcore_inbox_open(&inbox, session, NULL, 0, &err) < 0 ||
        rtcore_sender_open(&answers, session, "axis.answers", &err) < 0) {
        fail(&err);
    }
    puts("waiting for questions");
    fflush(stdout);
    uint64_t count = 0;
    for (;;) {
        rtcore_message question;
        if (rtcore_recv(inbox, &question, sizeof question, RTCORE_FOREVER, &err) < 0) {
            fail(&err);
        }
        /* A panel that ended before it asked was another one. */
        if (question.kind == RTCORE_EVENT_PEER_LOST && count > 0) {
            printf("%s is gone, after %llu questions\n", question.process, (unsigned long long)count);
            break;
        }
        /* reply_to ties the answer to the question. A message that is no question has none. */
        if (question.kind != RTCORE_MESSAGE || question.reply_to == 0) {
            continue;
        }
        count++;
        if (count % 3 == 0) {
            rtcore_sleep_until(rtcore_now_ns() + slow_ns);
        }
        uint64_t at_ns = rtcore_now_ns();
        position where = { sin((double)at_ns * 1e-9), at_ns };
        if (rtcore_reply(answers, question.reply_to, &where, sizeof where, &err) < 0) {
            char text[1024];
            rtcore_error_text(&err, text, sizeof text);
            printf("not answered: %s\n", text);
        }
    }
    rtcore_sender_close(answers);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
}

int main(int argc, char **argv) {
    program = "ask";
    const char *side = argc > 1 ? argv[1] : "";
    if (strcmp(side, "panel") == 0) {
        panel(argc > 2 ? strtoull(argv[2], NULL, 10) : UINT64_MAX);
    } else if (strcmp(side, "axis") == 0) {
        axis(argc > 2 ? strtoull(argv[2], NULL, 10) * 1000000 : 0);
    } else {
        refuse("which side? `ask axis [MILLISECONDS]` or `ask panel [QUESTIONS]`");
    }
    return 0;
}
