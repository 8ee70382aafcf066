/* Emergency stop over the highest lane, fail safe: whatever goes wrong stops the machine. The twin of
 * rtcore/examples/estop.rs.
 *
 * Terminal 1: cargo run --bin rtd -- run configs/examples.toml (as an ordinary user with --allow-degraded)
 * Terminal 2: target/release/c/estop machine
 * Terminal 3: target/release/c/estop button, then press Enter
 *
 * The button says all the time that it is *not* pressed. The machine moves as long as it receives that, and stops when it
 * receives the press, when the button's process ends, when rtd ends, and when it receives nothing. So a broken path is never
 * taken for a button that nobody presses. (No program replaces the safety relay.) */
#include <signal.h>
#include <unistd.h>

#include "common.h"

enum { RELEASED = 0, PRESSED = 1 };
/* How often the button says so. */
#define ALIVE_NS UINT64_C(40000000)
/* Silence of so long stops the machine. */
#define SILENCE_NS (5 * ALIVE_NS)
/* How long each side waits for the other at the start. */
#define PATIENCE_NS UINT64_C(30000000000)

/* Says that it is released until Enter is pressed, then that it is pressed. The end of the terminal is a press. */
static void button(void) {
    static const unsigned char released[] = { RELEASED }, pressed[] = { PRESSED };
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_sender *state;
    rtcore_waiter *waiter;
    rtcore_ready ready;
    if (rtcore_connect(&session, "button", NULL, &err) < 0 ||
        rtcore_sender_open(&state, session, "button.state", &err) < 0) {
        fail(&err);
    }
    puts("waiting for the machine");
    fflush(stdout);
    if (rtcore_sender_wait(state, rtcore_now_ns() + PATIENCE_NS, &err) < 0) {
        fail(&err);
    }
    enter_realtime(session, "estop", "the stop has no bound");
    if (rtcore_waiter_open(&waiter, 1) < 0 ||
        rtcore_waiter_add_fd(waiter, STDIN_FILENO, 0, 0, RTCORE_READABLE) < 0) {
        refuse("cannot wait for standard input");
    }
    puts("press Enter to stop the machine");
    fflush(stdout);
    uint64_t next_ns = rtcore_now_ns();
    while (rtcore_wait(waiter, &ready, 1, next_ns) == 0) {
        if (rtcore_send_at(state, next_ns, released, 1, &err) < 0) {
            fail(&err);
        }
        next_ns += ALIVE_NS;
    }
    /* It stays pressed until nobody receives any more: the end of this process, an event that comes before messages, must not
     * hide the press. */
    while (rtcore_send(state, pressed, 1, &err) > 0) {
        rtcore_sleep_until(rtcore_now_ns() + ALIVE_NS);
    }
    puts("pressed, and nobody listens any more");
    rtcore_waiter_close(waiter);
    rtcore_sender_close(state);
    rtcore_session_close(session);
}

/* How the process of an event ended. */
static void describe_end(const rtcore_message *event, char *why, size_t size) {
    char how[64] = "it left";
    if (event->ending_kind == RTCORE_EXITED) {
        snprintf(how, sizeof how, "exit status %d", event->ending_value);
    } else if (event->ending_kind == RTCORE_KILLED) {
        const char *name = sigabbrev_np(event->ending_value);
        snprintf(how, sizeof how, "killed by SIG%s", name ? name : "?");
    }
    snprintf(why, size, "%s is gone (%s)", event->process, how);
}

/* Waits for what the button says next: 0 when it is released, else 1 and the reason to stand still. */
static int listen_for(rtcore_inbox *inbox, uint64_t until_ns, char *why, size_t size) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_message message;
    for (;;) {
        int got = rtcore_recv(inbox, &message, sizeof message, until_ns, &err);
        if (got < 0) {
            fail(&err);
        }
        if (got == 0) {
            snprintf(why, size, "the button is silent");
            return 1;
        }
        switch (message.kind) {
        case RTCORE_MESSAGE: {
            unsigned char state = message.len == 1 ? *(const unsigned char *)message.data : 255;
            if (state == RELEASED) {
                return 0;
            }
            uint64_t received_ns = rtcore_message_received_ns(&message);
            if (state != PRESSED) {
                snprintf(why, size, "%zu bytes are neither pressed nor released", message.len);
            } else {
                snprintf(why, size, "pressed, by pid %d (verified: %s), %llu us ago", message.pid,
                         message.flags & RTCORE_VERIFIED ? "true" : "false",
                         (unsigned long long)(received_ns > message.sent_ns ? (received_ns - message.sent_ns) / 1000 : 0));
            }
            return 1;
        }
        case RTCORE_EVENT_PEER_LOST:
            describe_end(&message, why, size);
            return 1;
        case RTCORE_EVENT_DOWN:
            snprintf(why, size, "rtd is gone");
            return 1;
        case RTCORE_EVENT_PEER_BACK:
        case RTCORE_EVENT_UP:
            break;
        default:
            snprintf(why, size, "event %u", message.kind);
            return 1;
        }
    }
}

/* Moves as long as it receives that the button is released; prints why it does not any more. */
static void machine(void) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_inbox *inbox;
    char why[256];
    if (rtcore_connect(&session, "machine", NULL, &err) < 0 || rtcore_inbox_open(&inbox, session, NULL, 0, &err) < 0) {
        fail(&err);
    }
    puts("waiting for the button");
    fflush(stdout);
    /* Whatever was before, also a button that ended: it stands still until it receives that the button is released. */
    uint64_t until_ns = rtcore_now_ns() + PATIENCE_NS;
    while (listen_for(inbox, until_ns, why, sizeof why)) {
        if (rtcore_now_ns() >= until_ns) {
            fprintf(stderr, "estop: not moving at all: %s\n", why);
            exit(EXIT_FAILURE);
        }
    }
    puts("moving");
    fflush(stdout);
    enter_realtime(session, "estop", "the stop has no bound");
    while (!listen_for(inbox, rtcore_now_ns() + SILENCE_NS, why, sizeof why)) {
    }
    /* Here the brakes would close; printing comes after that. */
    printf("STOP: %s\n", why);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
}

int main(int argc, char **argv) {
    program = "estop";
    const char *side = argc > 1 ? argv[1] : "";
    if (strcmp(side, "button") == 0) {
        button();
    } else if (strcmp(side, "machine") == 0) {
        machine();
    } else {
        refuse("which side? estop machine, or estop button");
    }
    return 0;
}
