/* A 1 kHz control loop that sends set points, on an absolute schedule. The twin of rtcore/examples/controller.rs.
 *
 * Terminal 1: cargo run --bin rtd -- run configs/examples.toml (as an ordinary user with --allow-degraded)
 * Terminal 2: target/release/c/drive          (make -C bindings/c examples builds it)
 * Terminal 3: target/release/c/controller --seconds 10
 */
#include <math.h>

#include "common.h"

enum { PERIOD_NS = 1000000 };
/* How long to wait for a drive at the start. */
#define PATIENCE_NS UINT64_C(30000000000)

typedef struct outcome {
    uint64_t sent, refused;
    rtcore_error last_refusal;
} outcome;

/* The loop: neither allocates, locks nor prints. */
static void control(rtcore_sender *setpoints, uint64_t for_ns, outcome *done) {
    uint64_t start_ns = rtcore_now_ns();
    for (uint64_t next_ns = start_ns; next_ns - start_ns < for_ns;) {
        next_ns += PERIOD_NS;
        rtcore_sleep_until(next_ns);
        /* A sine, from the time at which this cycle should have run: lateness does not bend the path. */
        double phase = (double)(next_ns - start_ns) * 1e-9;
        set_point setpoint = { sin(phase), cos(phase) };
        /* A drive that ended is -EPIPE until it is started again; one that is too slow is -EAGAIN. Neither stops the cycle. */
        if (rtcore_send_at(setpoints, next_ns, &setpoint, sizeof setpoint, &done->last_refusal) > 0) {
            done->sent++;
        } else {
            done->refused++;
        }
    }
}

int main(int argc, char **argv) {
    program = "controller";
    uint64_t seconds = seconds_of(argc, argv);
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_sender *setpoints;

    /* Setup: take the name, take the endpoint, wait for a drive. */
    if (rtcore_connect(&session, "controller", NULL, &err) < 0 ||
        rtcore_sender_open(&setpoints, session, "controller.setpoints", &err) < 0) {
        fail(&err);
    }
    puts("waiting for the drive");
    fflush(stdout);
    if (rtcore_sender_wait(setpoints, rtcore_now_ns() + PATIENCE_NS, &err) < 0) {
        fail(&err);
    }
    /* From here on in real time. */
    int priority = enter_realtime(session, "control", "latencies have no bound");
    if (priority > 0) {
        printf("SCHED_FIFO %d\n", priority);
    }
    outcome done = { 0, 0, RTCORE_ERROR_INIT };
    control(setpoints, seconds > UINT64_MAX / 1000000000 ? UINT64_MAX : seconds * 1000000000, &done);

    printf("%llu set points sent, %llu refused\n", (unsigned long long)done.sent, (unsigned long long)done.refused);
    if (done.refused > 0) {
        char text[1024];
        rtcore_error_text(&done.last_refusal, text, sizeof text);
        printf("the last refusal: %s\n", text);
    }
    rtcore_sender_close(setpoints);
    rtcore_session_close(session);
    return 0;
}
