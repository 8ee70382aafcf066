/* An inbox in an event loop of one's own, beside a timer and signals. The twin of rtcore/examples/epoll.rs, on epoll(7)
 * itself.
 *
 * Terminal 1: cargo run --bin rtd -- run configs/examples.toml (as an ordinary user with --allow-degraded)
 * Terminal 2: target/release/c/epoll
 * Terminal 3: cargo run --bin rtctl -- --instance examples send console --text hello
 *
 * An inbox has a descriptor, which works in any event loop. It is level-triggered: take what is there until rtcore_try_recv()
 * returns 0. `rtctl send` writes a POSIX message queue; rtd carries it into shared memory. */
#include <signal.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common.h"

/* Messages that one turn takes: the others get theirs, too. */
enum { MESSAGES_PER_TURN = 64 };

static void watch(int set, int fd) {
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
    if (fd < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0) {
        refuse("cannot wait for a descriptor");
    }
}

/* Takes what is there, up to a bound; what is left keeps the descriptor readable. */
static uint64_t take(rtcore_inbox *inbox) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_message message;
    uint64_t received = 0;
    for (int turn = 0; turn < MESSAGES_PER_TURN; turn++) {
        int got = rtcore_try_recv(inbox, &message, sizeof message, &err);
        if (got < 0) {
            fail(&err);
        }
        if (got == 0) {
            break;
        }
        if (message.kind == RTCORE_MESSAGE) {
            received++;
            printf("%s (mq priority %u): %.*s\n", message.from, message.mq_priority, (int)message.len,
                   (const char *)message.data);
        } else {
            printf("event %u\n", message.kind);
        }
    }
    return received;
}

int main(void) {
    program = "epoll";
    static const int ending[] = { SIGINT, SIGTERM };
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session;
    rtcore_inbox *inbox;
    rtcore_signal_source *signals;
    /* Before the first thread, the session's: threads inherit what is blocked. */
    if (rtcore_signals_block(ending, 2, &err) < 0 || rtcore_connect(&session, "monitor", NULL, &err) < 0 ||
        rtcore_inbox_open(&inbox, session, NULL, 0, &err) < 0 ||
        rtcore_signal_source_open(&signals, ending, 2, &err) < 0) {
        fail(&err);
    }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), set = epoll_create1(EPOLL_CLOEXEC);
    struct itimerspec every_second = { { 1, 0 }, { 1, 0 } };
    timerfd_settime(timer, 0, &every_second, NULL);
    int inbox_fd = rtcore_inbox_fd(inbox), signals_fd = rtcore_signal_source_fd(signals);
    watch(set, inbox_fd);
    watch(set, signals_fd);
    watch(set, timer);

    puts("waiting; Ctrl-C ends it");
    fflush(stdout);
    uint64_t received = 0;
    for (int runs = 1; runs;) {
        struct epoll_event ready[3];
        int count = epoll_wait(set, ready, 3, -1);
        for (int i = 0; i < count; i++) {
            uint64_t turns;
            rtcore_notice notice;
            if (ready[i].data.fd == inbox_fd) {
                received += take(inbox);
            } else if (ready[i].data.fd == timer && read(timer, &turns, sizeof turns) == sizeof turns) {
                printf("tick %llu: %llu messages so far\n", (unsigned long long)turns, (unsigned long long)received);
            } else if (ready[i].data.fd == signals_fd && rtcore_signal_source_take(signals, &notice, sizeof notice) == 1) {
                printf("SIG%s, after %llu messages\n", sigabbrev_np(notice.signo), (unsigned long long)received);
                runs = 0;
            }
        }
        fflush(stdout);
    }
    close(set);
    close(timer);
    rtcore_signal_source_close(signals);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
    return 0;
}
