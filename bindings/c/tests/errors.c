/* Every errno of rtcore.h that can be provoked, against a daemon of the test's own (tests/bindings_c.rs): a planner whose
 * `cmd` goes to an arm through the daemon and whose `fast` goes there directly. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"

RTCORE_HOLD_SIGNALS;

static const char payload[200];

/* A structure of a later header: what this library does not know is 0 or refused. */
static void structures(void) {
    struct {
        rtcore_options known;
        uint64_t later;
    } options = { RTCORE_OPTIONS_INIT, 0 };
    rtcore_session *session = NULL;
    options.known.size = sizeof options;
    options.known.instance = "no-such-instance";
    REFUSED(rtcore_connect(&session, "planner", &options.known, &err), ECONNREFUSED, RTCORE_ERR_NO_DAEMON, "start it");
    options.later = 1;
    REFUSED(rtcore_connect(&session, "planner", &options.known, &err), E2BIG, RTCORE_ERR_FUTURE, "newer librtcore");
    options.known.size = sizeof(rtcore_options) - 1;
    REFUSED(rtcore_connect(&session, "planner", &options.known, &err), EINVAL, RTCORE_ERR_ARGUMENT, "RTCORE_*_INIT");
    options.known.size = sizeof(rtcore_options);
    options.known.skin = 7;
    REFUSED(rtcore_connect(&session, "planner", &options.known, &err), EINVAL, RTCORE_ERR_ARGUMENT, "RTCORE_SKIN_");
    options.known.skin = RTCORE_SKIN_COBALT;
    options.known.cobalt_library = "/no/such/library.so";
    REFUSED(rtcore_connect(&session, "planner", &options.known, &err), ENODEV, RTCORE_ERR_SKIN, "/no/such/library.so");
    REFUSED(rtcore_connect(&session, NULL, NULL, &err), EFAULT, RTCORE_ERR_ARGUMENT, "name is NULL");
    REFUSED(rtcore_connect(NULL, "two words", NULL, &err), EINVAL, RTCORE_ERR_NAME, "two words");
    EXPECT(rtcore_error_code(NULL), 0);
    EXPECT(rtcore_error_kind(&err), 0);
    CHECK(session == NULL);
}

/* A socket at which somebody listens who is no daemon: silent, or with an answer that is no frame. */
static void *answer(void *listener) {
    int connection = accept(*(int *)listener, NULL, NULL);
    char request[512];
    if (read(connection, request, sizeof request) > 0) {
        (void)!write(connection, "nonsense", 8);
    }
    (void)!read(connection, request, sizeof request);
    close(connection);
    return NULL;
}

static void foreign_listeners(const char *path) {
    struct sockaddr_un address = { AF_UNIX, "" };
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 4) == 0);
    rtcore_options options = RTCORE_OPTIONS_INIT;
    rtcore_session *session = NULL;
    options.socket = path;
    options.timeout_ns = 100000000;
    REFUSED(rtcore_connect(&session, "planner", &options, &err), ETIMEDOUT, RTCORE_ERR_TIMEOUT, "no answer within 100 ms");
    close(accept(listener, NULL, NULL));
    options.timeout_ns = 0;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer, &listener) == 0);
    REFUSED(rtcore_connect(&session, "planner", &options, &err), EPROTO, RTCORE_ERR_PROTOCOL, "one release");
    pthread_join(thread, NULL);
    close(listener);
    unlink(path);
}

/* A user who is neither root nor this one listens where a daemon would. Only root can try it. */
static void stranger(const char *directory) {
    struct sockaddr_un address = { AF_UNIX, "" };
    rtcore_options options = RTCORE_OPTIONS_INIT;
    rtcore_session *session = NULL;
    if (geteuid() != 0) {
        return;
    }
    char place[100];
    snprintf(place, sizeof place, "%s/rtd", directory);
    CHECK(mkdir(place, 0755) == 0 && setenv("XDG_RUNTIME_DIR", directory, 1) == 0);
    CHECK((size_t)snprintf(address.sun_path, sizeof address.sun_path, "%s/no-such-daemon.sock", place) <
          sizeof address.sun_path);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(seteuid(65534) == 0 && listen(listener, 4) == 0 && seteuid(0) == 0);
    options.instance = "no-such-daemon";
    REFUSED(rtcore_connect(&session, "planner", &options, &err), EPERM, RTCORE_ERR_STRANGER, "uid 65534 listens there");
    close(listener);
    unlink(address.sun_path);
}

static void claims(rtcore_session *session) {
    rtcore_sender *sender = NULL, *second = NULL;
    rtcore_inbox *inbox = NULL, *again = NULL;
    const char *names[] = { "plan" };
    REFUSED(rtcore_sender_open(&sender, session, "arm.cmd", &err), EACCES, RTCORE_ERR_DENIED, "arm");
    REFUSED(rtcore_sender_open(&sender, session, "nobody", &err), ENOENT, RTCORE_ERR_UNKNOWN, "nobody");
    REFUSED(rtcore_sender_open(&sender, NULL, "cmd", &err), EFAULT, RTCORE_ERR_ARGUMENT, "NULL");
    EXPECT(rtcore_sender_open(&sender, session, "cmd", &err), 0);
    REFUSED(rtcore_sender_open(&second, session, "cmd", &err), EBUSY, RTCORE_ERR_TAKEN, "a sender of thread");
    EXPECT(rtcore_sender_msgsize(sender), 64);
    rtcore_sender_close(sender);
    EXPECT(rtcore_inbox_open(&inbox, session, names, 1, &err), 0);
    REFUSED(rtcore_inbox_open(&again, session, names, 1, &err), EBUSY, RTCORE_ERR_TAKEN, "plan");
    EXPECT(rtcore_inbox_set_wait(inbox, 9, 0), -EINVAL);
    rtcore_message message;
    REFUSED(rtcore_try_recv(inbox, &message, 8, &err), EINVAL, RTCORE_ERR_ARGUMENT, "sizeof");
    REFUSED(rtcore_try_recv(inbox, NULL, sizeof message, &err), EFAULT, RTCORE_ERR_ARGUMENT, "NULL");
    rtcore_inbox_close(inbox);
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    REFUSED(rtcore_realtime_enter(session, &how, &err), ENOENT, RTCORE_ERR_LANE, "no lane was named");
    how.lane = "lane";
    how.below = 50;
    REFUSED(rtcore_realtime_enter(session, &how, &err), ERANGE, RTCORE_ERR_PRIORITY, "below");
    how.below = 1;
    how.stack = (size_t)1 << 40;
    REFUSED(rtcore_realtime_enter(session, &how, &err), EINVAL, RTCORE_ERR_ARGUMENT, "stack");
}

static void signals(rtcore_session *session) {
    int both[] = { SIGRTMIN + 3, SIGKILL };
    rtcore_signal_source *source = NULL, *second = NULL;
    REFUSED(rtcore_signals_block(both, 2, &err), EINVAL, RTCORE_ERR_SIGNAL, "SIGKILL");
    EXPECT(rtcore_signal_source_open(&source, both, 1, &err), 0);
    REFUSED(rtcore_signal_source_open(&second, both, 1, &err), EBUSY, RTCORE_ERR_TAKEN, "drop that one first");
    rtcore_notice notice;
    EXPECT(rtcore_signal_source_take(source, &notice, sizeof notice), 0);
    union sigval value = { .sival_int = 7 };
    CHECK(sigqueue(getpid(), both[0], value) == 0);
    EXPECT(rtcore_signal_source_take(source, &notice, sizeof notice), 1);
    CHECK(notice.signo == both[0] && (int)notice.value == 7 && notice.pid == getpid() && !(notice.flags & RTCORE_VERIFIED));
    rtcore_signal_source_close(source);
    rtcore_signals *signals = NULL;
    EXPECT(rtcore_signals_open(&signals, session, &err), 0);
    EXPECT(rtcore_signals_remove(signals, 1), -ENOENT);
    EXPECT(rtcore_signals_replace(signals, 1, NULL, NULL), -EINVAL);
    REFUSED(rtcore_signals_register(signals, SIGSEGV, 0, (rtcore_signal_fn)(void (*)(void))abort, NULL, &err), EINVAL,
            RTCORE_ERR_SIGNAL, "SIGSEGV");
    rtcore_signals_close(signals);
}

static void waiters(void) {
    rtcore_waiter *waiter = NULL;
    rtcore_ready ready[2];
    int pipes[2], file = open("/etc/passwd", O_RDONLY);
    CHECK(pipe(pipes) == 0);
    EXPECT(rtcore_waiter_open(&waiter, 1), 0);
    EXPECT(rtcore_wait(waiter, ready, 2, RTCORE_FOREVER), -EINVAL);
    EXPECT(rtcore_waiter_add_fd(waiter, -1, 1, 0, RTCORE_READABLE), -EBADF);
    EXPECT(rtcore_waiter_add_fd(waiter, 999, 1, 0, RTCORE_READABLE), -EBADF);
    EXPECT(rtcore_waiter_add_fd(waiter, file, 1, 0, RTCORE_READABLE), -EPERM);
    EXPECT(rtcore_waiter_add_fd(waiter, pipes[0], 1, 0, RTCORE_READABLE), 0);
    EXPECT(rtcore_waiter_add_fd(waiter, pipes[1], 1, 0, RTCORE_WRITABLE), -EEXIST);
    EXPECT(rtcore_waiter_add_fd(waiter, pipes[1], 2, 0, RTCORE_WRITABLE), -ENOSPC);
    EXPECT(rtcore_wait(waiter, ready, 2, 0), 0);
    CHECK(write(pipes[1], "x", 1) == 1);
    EXPECT(rtcore_wait(waiter, ready, 2, RTCORE_FOREVER), 1);
    CHECK(ready[0].key == 1 && ready[0].flags == RTCORE_READABLE);
    EXPECT(rtcore_waiter_remove(waiter, 9), -ENOENT);
    EXPECT(rtcore_waiter_remove(waiter, 1), 0);
    rtcore_waiter_close(waiter);
    close(pipes[0]);
    close(pipes[1]);
    close(file);
}

static void sends(rtcore_session *session) {
    rtcore_sender *routed = NULL, *direct = NULL;
    rtcore_caller *caller = NULL;
    rtcore_message reply;
    EXPECT(rtcore_sender_open(&routed, session, "cmd", &err), 0);
    EXPECT(rtcore_sender_open(&direct, session, "fast", &err), 0);
    EXPECT(rtcore_caller_open(&caller, session, "ask", "plan", &err), 0);
    REFUSED(rtcore_sender_wait(direct, in_ms(10), &err), EPIPE, RTCORE_ERR_PEER_DEAD, "start");
    REFUSED(rtcore_try_send(routed, payload, 8, &err), EPIPE, RTCORE_ERR_PEER_DEAD, "start");
    REFUSED(rtcore_call(caller, "?", 1, &reply, sizeof reply, in_ms(100), &err), EPIPE, RTCORE_ERR_PEER_DEAD, "start");
    stop("start the arm");
    EXPECT(rtcore_sender_wait(routed, in_ms(40000), &err), 0);
    EXPECT(rtcore_sender_wait(direct, in_ms(40000), &err), 0);
    REFUSED(rtcore_send(routed, payload, 65, &err), EMSGSIZE, RTCORE_ERR_TOO_LARGE, "raise msgsize");
    REFUSED(rtcore_send(routed, NULL, 5, &err), EFAULT, RTCORE_ERR_ARGUMENT, "NULL");
    REFUSED(rtcore_send(routed, payload, SIZE_MAX, &err), EINVAL, RTCORE_ERR_ARGUMENT, "negative");
    REFUSED(rtcore_reply(routed, 0, payload, 8, &err), EINVAL, RTCORE_ERR_ARGUMENT, "reply_to");
    REFUSED(rtcore_commit(routed, 0, &err), EINVAL, RTCORE_ERR_ARGUMENT, "rtcore_loan");
    CHECK(rtcore_loan(routed, 65, &err) == NULL);
    REFUSED(-EMSGSIZE, EMSGSIZE, RTCORE_ERR_TOO_LARGE, "raise msgsize");
    void *slot = rtcore_loan(routed, 8, &err);
    CHECK(slot);
    memcpy(slot, "loaned..", 8);
    REFUSED(rtcore_send(routed, payload, 8, &err), EBUSY, RTCORE_ERR_ARGUMENT, "rtcore_commit or rtcore_discard");
    REFUSED(rtcore_commit(routed, 9, &err), EINVAL, RTCORE_ERR_ARGUMENT, "more than was loaned");
    EXPECT(rtcore_commit(routed, 6, &err), 1);
    struct iovec pieces[] = { { (void *)"in ", 3 }, { NULL, 0 }, { (void *)"pieces", 6 } };
    EXPECT(rtcore_send_vec(routed, pieces, 3, &err), 2);
    pieces[1].iov_len = 1;
    REFUSED(rtcore_send_vec(routed, pieces, 3, &err), EFAULT, RTCORE_ERR_ARGUMENT, "NULL");
    pieces[1].iov_len = SIZE_MAX;
    REFUSED(rtcore_send_vec(routed, pieces, 3, &err), EINVAL, RTCORE_ERR_ARGUMENT, "length");
    EXPECT(rtcore_send(routed, "last", 4, &err), 3);
    EXPECT(rtcore_flush(routed, in_ms(40000), &err), 0);
    EXPECT(rtcore_sender_pending(routed), 0);
    /* Nobody reads the direct ring, which has 8 slots. */
    struct iovec many[12];
    for (int i = 0; i < 12; i++) {
        many[i] = (struct iovec){ (void *)payload, 4 };
    }
    EXPECT(rtcore_send_batch(direct, many, 12, &err), 8);
    REFUSED(-EAGAIN, EAGAIN, RTCORE_ERR_FULL, "raise maxmsg");
    REFUSED(rtcore_send_batch(direct, many, 1, &err), EAGAIN, RTCORE_ERR_FULL, "raise maxmsg");
    REFUSED(rtcore_try_send(direct, payload, 1, &err), EAGAIN, RTCORE_ERR_FULL, "raise maxmsg");
    EXPECT(rtcore_sender_pending(direct), 8);
    REFUSED(rtcore_flush(direct, in_ms(1), &err), ETIMEDOUT, RTCORE_ERR_PENDING, "8");
    REFUSED(rtcore_call(caller, "?", 1, &reply, sizeof reply, in_ms(20), &err), ETIMEDOUT, RTCORE_ERR_TIMEOUT, "no reply to");
    rtcore_caller_close(caller);
    rtcore_inbox *inbox = NULL;
    EXPECT(rtcore_inbox_open(&inbox, session, NULL, 0, &err), 0);
    EXPECT(rtcore_inbox_wake(inbox), 0);
    while (rtcore_error_code(&err) == 0) {
        rtcore_recv(inbox, &reply, sizeof reply, in_ms(40000), &err);
    }
    REFUSED(-ECANCELED, ECANCELED, RTCORE_ERR_WOKEN, "call again");
    stop("kill the daemon");
    do {
        EXPECT(rtcore_recv(inbox, &reply, sizeof reply, in_ms(40000), &err), 1);
    } while (reply.kind != RTCORE_EVENT_DOWN);
    EXPECT(rtcore_session_state(session), RTCORE_STATE_DOWN);
    char reason[200];
    CHECK(rtcore_session_reason(session, reason, sizeof reason) > 0 && reason[0]);
    REFUSED(rtcore_send(routed, payload, 8, &err), ENETDOWN, RTCORE_ERR_DOWN, "connects again by itself");
    rtcore_sender *other = NULL;
    REFUSED(rtcore_sender_open(&other, session, "nobody", &err), ENETDOWN, RTCORE_ERR_AWAY, "try again");
    stop("start it without cmd");
    do {
        EXPECT(rtcore_recv(inbox, &reply, sizeof reply, in_ms(40000), &err), 1);
    } while (reply.kind != RTCORE_EVENT_UP);
    REFUSED(rtcore_send(routed, payload, 8, &err), EIDRM, RTCORE_ERR_REMOVED, "[[route]]");
    rtcore_session_close(session);
    REFUSED(rtcore_send(direct, payload, 8, &err), ESHUTDOWN, RTCORE_ERR_CLOSED, "session was dropped");
    int got;
    while ((got = rtcore_recv(inbox, &reply, sizeof reply, RTCORE_FOREVER, &err)) == 1) {
    }
    REFUSED(got, ESHUTDOWN, RTCORE_ERR_CLOSED, "session was dropped");
    EXPECT(rtcore_inbox_wake(inbox), -ESHUTDOWN);
    rtcore_inbox_close(inbox);
    rtcore_sender_close(routed);
    rtcore_sender_close(direct);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    CHECK(strcmp(rtcore_version(), "0.1.0") == 0);
    structures();
    foreign_listeners(argv[1]);
    stranger(argv[2]);
    rtcore_session *session = NULL;
    REFUSED(rtcore_connect(&session, "locked", NULL, &err), EACCES, RTCORE_ERR_REFUSED, "locked");
    REFUSED(rtcore_connect(NULL, "planner", NULL, &err), EFAULT, RTCORE_ERR_ARGUMENT, "NULL");
    EXPECT(rtcore_connect(&session, "planner", NULL, &err), 0);
    EXPECT(rtcore_session_state(session), RTCORE_STATE_UP);
    claims(session);
    signals(session);
    waiters();
    sends(session);
    puts("all refused as they should be");
    return 0;
}
