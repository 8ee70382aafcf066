/* fork(2): every call of the child on a handle of its parent returns -ECHILD, its closes leave the parent's side as it is, and
 * the parent goes on. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void ignore(const rtcore_notice *notice, void *user) {
    (void)notice;
    (void)user;
}

int main(void) {
    rtcore_session *session = NULL;
    rtcore_sender *sender = NULL, *second = NULL;
    rtcore_inbox *inbox = NULL, *other = NULL;
    rtcore_caller *caller = NULL;
    rtcore_signals *signals = NULL;
    rtcore_signal_source *source = NULL;
    rtcore_waiter *waiter = NULL;
    rtcore_message message;
    rtcore_notice notice;
    rtcore_ready ready[1];
    rtcore_peer peers[4];
    rtcore_channel channels[4];
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    struct iovec piece = { (void *)"x", 1 };
    const int signal = SIGRTMIN + 6;
    const char *names[] = { "arm.fast" };
    EXPECT(rtcore_signals_block(&signal, 1, &err), 0);
    EXPECT(rtcore_connect(&session, "arm", NULL, &err), 0);
    EXPECT(rtcore_sender_open(&sender, session, "arm.answers", &err), 0);
    EXPECT(rtcore_inbox_open(&inbox, session, names, 1, &err), 0);
    EXPECT(rtcore_caller_open(&caller, session, "arm.question", "arm.cmd", &err), 0);
    EXPECT(rtcore_signals_open(&signals, session, &err), 0);
    EXPECT(rtcore_signal_source_open(&source, &signal, 1, &err), 0);
    EXPECT(rtcore_waiter_open(&waiter, 1), 0);
    EXPECT(rtcore_waiter_add_fd(waiter, rtcore_inbox_fd(inbox), 1, 0, RTCORE_READABLE), 0);
    CHECK(rtcore_session_fd(session) >= 0);
    CHECK(rtcore_session_channels(session, channels, 4, sizeof channels[0]) > 3);
    int in_loan = rtcore_loan(sender, 8, &err) != NULL;
    pid_t child = fork();
    if (child == 0) {
        char parent[64];
        snprintf(parent, sizeof parent, "forked from process %d", (int)getppid());
        how.lane = "lane";
        if (in_loan) {
            REFUSED(rtcore_commit(sender, 8, &err), ECHILD, RTCORE_ERR_FORKED, parent);
            rtcore_discard(sender);
        }
        REFUSED(rtcore_send(sender, "x", 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_try_send(sender, "x", 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_send_at(sender, 1, "x", 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_send_vec(sender, &piece, 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_send_batch(sender, &piece, 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_reply(sender, 1, "x", 1, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_sender_wait(sender, RTCORE_FOREVER, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_flush(sender, RTCORE_FOREVER, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        CHECK(rtcore_loan(sender, 8, &err) == NULL && rtcore_error_code(&err) == -ECHILD);
        EXPECT(rtcore_sender_pending(sender), -ECHILD);
        REFUSED(rtcore_recv(inbox, &message, sizeof message, RTCORE_FOREVER, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_try_recv(inbox, &message, sizeof message, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_peek(inbox, &message, sizeof message, RTCORE_FOREVER, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        EXPECT(rtcore_inbox_wake(inbox), -ECHILD);
        REFUSED(rtcore_call(caller, "?", 1, &message, sizeof message, RTCORE_FOREVER, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_sender_open(&second, session, "arm.answers", &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_inbox_open(&other, session, NULL, 0, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        REFUSED(rtcore_realtime_enter(session, &how, &err), ECHILD, RTCORE_ERR_FORKED, parent);
        EXPECT(rtcore_session_state(session), -ECHILD);
        EXPECT(rtcore_session_fd(session), -ECHILD);
        EXPECT(rtcore_session_take(session, &message, sizeof message), -ECHILD);
        EXPECT(rtcore_session_peers(session, peers, 4, sizeof peers[0]), -ECHILD);
        EXPECT(rtcore_session_channels(session, channels, 4, sizeof channels[0]), -ECHILD);
        EXPECT(rtcore_session_is(session, "planner", 1, RTCORE_VERIFIED), -ECHILD);
        REFUSED(rtcore_signals_register(signals, signal, 0, ignore, NULL, &err), ECHILD, RTCORE_ERR_FORKED, "forked from");
        EXPECT(rtcore_signals_replace(signals, 1, ignore, NULL), -ECHILD);
        EXPECT(rtcore_signals_remove(signals, 1), -ECHILD);
        EXPECT(rtcore_signal_source_fd(source), -ECHILD);
        EXPECT(rtcore_signal_source_take(source, &notice, sizeof notice), -ECHILD);
        EXPECT(rtcore_waiter_add_fd(waiter, 0, 2, 0, RTCORE_READABLE), -ECHILD);
        EXPECT(rtcore_waiter_remove(waiter, 1), -ECHILD);
        EXPECT(rtcore_wait(waiter, ready, 1, RTCORE_FOREVER), -ECHILD);
        rtcore_waiter_close(waiter);
        rtcore_signal_source_close(source);
        rtcore_signals_close(signals);
        rtcore_caller_close(caller);
        rtcore_inbox_close(inbox);
        rtcore_sender_close(sender);
        rtcore_session_close(session);
        fflush(stdout);
        _exit(0);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    if (in_loan) {
        rtcore_discard(sender);
    }
    EXPECT(rtcore_session_state(session), RTCORE_STATE_UP);
    stop("forked");
    do {
        EXPECT(rtcore_recv(inbox, &message, sizeof message, in_ms(40000), &err), 1);
    } while (message.kind != RTCORE_MESSAGE);
    CHECK(message.flags & RTCORE_VERIFIED && strcmp(message.process, "planner") == 0);
    EXPECT(rtcore_session_is(session, "planner", message.pid, message.flags), 1);
    EXPECT(rtcore_session_is(session, "planner", getpid(), message.flags), 0);
    rtcore_waiter_close(waiter);
    rtcore_signal_source_close(source);
    rtcore_signals_close(signals);
    rtcore_caller_close(caller);
    rtcore_inbox_close(inbox);
    rtcore_sender_close(sender);
    rtcore_session_close(session);
    puts("goes on");
    return 0;
}
