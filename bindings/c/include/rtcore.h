/* rtcore.h - client library of the rtd messaging daemon, for C and C++.
 *
 * A process takes its name with rtcore_connect(). The session then gives it a sender for each endpoint that it sends from,
 * and an inbox for the endpoints that it receives at. The configuration of the daemon decides who may send what to whom, and
 * whether a message passes through a thread of the daemon or directly from process to process; the code is the same.
 * rtd/book/src/c.md is the manual's page; rtcore.hpp has the same for C++17.
 *
 * RESULTS. A function that can fail returns a negative errno: -EAGAIN, -EPIPE, ... (the table is at RTCORE_ERR_*). 0 or a
 * positive number is success. A function that takes an rtcore_error fills it only when it fails; NULL is allowed.
 *
 * TIMES are CLOCK_MONOTONIC in nanoseconds (rtcore_now_ns). A deadline that has passed, such as 0, means: do not wait.
 * RTCORE_FOREVER means: no limit.
 *
 * REAL TIME. Functions that are marked [RT] neither allocate nor lock, and do not return for a signal (EINTR). All others
 * belong to the time before or after the real-time work.
 *
 * THREADS. Each handle states its rule. "One thread at a time": it may move to another thread, whose work then happens after
 * that of the first one.
 *
 * STRUCTURES begin with their size, or are passed with it. Initialise them with their RTCORE_*_INIT. A structure of a newer
 * header is accepted as long as the fields that this library does not know are 0; otherwise the result is -E2BIG.
 *
 * POINTERS to names and data inside a message stay valid until the next call on the handle that returned it.
 *
 * FORK. In a child of fork(2) every call on a handle of the parent returns -ECHILD, without a system call, and the close
 * functions leave the parent's side as it is. The child opens a session of its own. Memory of a loan and of rtcore_peek()
 * is not mapped there. A child of vfork(2) may only exec.
 *
 * PANICS. A defect in the library writes "rtcore: panic in FUNCTION()" to standard error and ends the process (abort(3)).
 */
#ifndef RTCORE_H
#define RTCORE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTCORE_FOREVER UINT64_MAX
/* Bytes of a name with its end. */
#define RTCORE_NAME_BYTES 32

/* ---- the library ------------------------------------------------------------------------------------------------- */

/* Version of the library that runs, such as "0.1.0". */
const char *rtcore_version(void);
/* [RT] CLOCK_MONOTONIC now. */
uint64_t rtcore_now_ns(void);
/* [RT] Sleeps until this time; interruptions resume. Always 0. */
int rtcore_sleep_until(uint64_t time_ns);

/* ---- errors ------------------------------------------------------------------------------------------------------ */

/* Why a call failed: in the caller's memory, opaque, needs no free. It may be copied and kept. An error of a call that is
 * not real-time is text, and is cut after 976 bytes. */
typedef struct rtcore_error { uint64_t opaque[128]; } rtcore_error;
#define RTCORE_ERROR_INIT { { 0 } }

/* What the error is; finer than the errno. */
#define RTCORE_ERR_FULL 1              /* EAGAIN: every slot holds a message that was not taken yet */
#define RTCORE_ERR_TOO_LARGE 2         /* EMSGSIZE: longer than msgsize of the endpoint */
#define RTCORE_ERR_PEER_DEAD 3         /* EPIPE: no process receives it; the text says how the receiver ended */
#define RTCORE_ERR_DOWN 4              /* ENETDOWN: the daemon is away; the session connects again by itself */
#define RTCORE_ERR_REFUSED 5           /* EACCES: the daemon refuses the session; the text has the reason */
#define RTCORE_ERR_CLOSED 6            /* ESHUTDOWN: the session was closed */
#define RTCORE_ERR_REMOVED 7           /* EIDRM: the new configuration has no such route */
#define RTCORE_ERR_FORKED 8            /* ECHILD: the handle belongs to the parent of this process */
#define RTCORE_ERR_CORRUPT 9           /* EBADMSG: the other process wrote invalid data into shared memory */
#define RTCORE_ERR_TIMEOUT 10          /* ETIMEDOUT: no answer before the deadline */
#define RTCORE_ERR_WOKEN 11            /* ECANCELED: rtcore_inbox_wake() ended the call */
#define RTCORE_ERR_DENIED 12           /* EACCES: the configuration gives the endpoint to another process */
#define RTCORE_ERR_UNKNOWN 13          /* ENOENT: no such endpoint or callback */
#define RTCORE_ERR_TAKEN 14            /* EBUSY: another handle of this process has it */
#define RTCORE_ERR_AWAY 15             /* ENETDOWN: the daemon cannot be asked about the endpoint now */
#define RTCORE_ERR_NO_INSTANCE 16      /* ECONNREFUSED: no daemon runs */
#define RTCORE_ERR_SEVERAL_INSTANCES 17 /* ENOTUNIQ: several run: choose one by RTD_INSTANCE or options.instance */
#define RTCORE_ERR_NO_DAEMON 18        /* ECONNREFUSED: no daemon listens there */
#define RTCORE_ERR_STRANGER 19         /* EPERM: a user who is neither root nor this one listens there */
#define RTCORE_ERR_PROTOCOL 20         /* EPROTO: daemon and library are of different releases */
#define RTCORE_ERR_SYSTEM 21           /* errno of the system call that failed */
#define RTCORE_ERR_NAME 22             /* EINVAL: not a name that a process can have */
#define RTCORE_ERR_ARGUMENT 23         /* EINVAL, EFAULT, EBADF, EBUSY: the call was wrong; the text says how */
#define RTCORE_ERR_FUTURE 24           /* E2BIG: a structure has fields that this library does not know */
#define RTCORE_ERR_LANE 25             /* ENOENT: no lane was named, or none of this session's */
#define RTCORE_ERR_PRIORITY 26         /* ERANGE: no priority is left below the lane */
#define RTCORE_ERR_PERMISSION 27       /* EPERM, ENOMEM, ...: the text has the line that grants it */
#define RTCORE_ERR_SIGNAL 28           /* EINVAL: a signal that no program can take */
#define RTCORE_ERR_UNBLOCKED 29        /* EINVAL: a thread does not block the signal */
#define RTCORE_ERR_HANDLERS 30         /* ENOSPC: the signal has as many callbacks as it may have */
#define RTCORE_ERR_SKIN 31             /* ENODEV, EBUSY: no Cobalt here, or no longer a process of one thread */
#define RTCORE_ERR_PENDING 32          /* ETIMEDOUT: rtcore_flush() saw messages that were not taken in time */

/* The negative errno of the error; 0 when there is none. */
int rtcore_error_code(const rtcore_error *err);
/* RTCORE_ERR_*; 0 when there is none. */
uint32_t rtcore_error_kind(const rtcore_error *err);
/* Writes the text as snprintf(3) does: at most n bytes with the end. Returns the length of the whole text. The text names
 * the object, the value, the limit and what to do. Not for a real-time thread. */
size_t rtcore_error_text(const rtcore_error *err, char *buffer, size_t n);

/* ---- messages and events ----------------------------------------------------------------------------------------- */

/* rtcore_message.kind */
#define RTCORE_MESSAGE 1
#define RTCORE_EVENT_PEER_LOST 2       /* process, pid, ending_*: a process that this one talks to ended or left */
#define RTCORE_EVENT_PEER_BACK 3       /* process, pid: it is there, for the first time or again */
#define RTCORE_EVENT_DOWN 4            /* the daemon is away; direct routes go on */
#define RTCORE_EVENT_REFUSED 5         /* reason: the daemon refuses the session; it goes on asking */
#define RTCORE_EVENT_UP 6              /* the daemon is back */
#define RTCORE_EVENT_LOST 7            /* endpoint, count: messages that were accepted reach no process */
#define RTCORE_EVENT_CORRUPT 8         /* endpoint, from, reason: a sender wrote invalid data and is cut off */

/* flags of messages and notices */
#define RTCORE_VERIFIED 1u             /* pid and uid are verified; otherwise they are the sender's claim */
#define RTCORE_SIGNAL 2u               /* it was a signal: signo, signal_value */
#define RTCORE_FROM_RING 4u            /* a notice with endpoint, route, number and times */

/* ending_kind */
#define RTCORE_EXITED 1                /* ending_value is the exit status */
#define RTCORE_KILLED 2                /* ending_value is the signal */

typedef struct rtcore_message {
    uint32_t    kind;
    uint32_t    flags;
    const void *data;                  /* of a message; NULL of an event */
    size_t      len;
    uint64_t    sequence;              /* number among those of its sender, from 1 */
    uint64_t    missed;                /* messages of its sender before it that did not come */
    uint64_t    intended_ns;           /* when it should have been sent */
    uint64_t    sent_ns;
    uint64_t    received_ns;           /* 0: the inbox read no clock; see rtcore_message_received_ns() */
    uint64_t    reply_to;              /* for rtcore_reply(); 0: not a request */
    int32_t     pid;
    uint32_t    uid;                   /* UINT32_MAX: unknown */
    int32_t     signo;
    uint32_t    mq_priority;           /* of a message that came from a message queue */
    uint64_t    signal_value;
    int32_t     ending_kind;           /* RTCORE_EXITED, RTCORE_KILLED; 0: it left, or nobody knows */
    int32_t     ending_value;
    uint64_t    count;
    const char *endpoint;              /* of this process, where it came to */
    const char *from;                  /* the endpoint it came from */
    const char *lane;
    const char *route;
    const char *process;               /* the owner of `from`, or whom the event is about; NULL: none */
    const char *reason;
} rtcore_message;

/* [RT] When the message was received: received_ns, or the time of the call where that is 0. */
uint64_t rtcore_message_received_ns(const rtcore_message *message);

/* ---- session ----------------------------------------------------------------------------------------------------- */

/* A process' connection to the daemon. Any thread. Keep it for as long as its senders and inboxes are used. */
typedef struct rtcore_session rtcore_session;

#define RTCORE_SKIN_POSIX 0u
#define RTCORE_SKIN_COBALT 1u          /* connect on the main thread, before other threads exist; exits if the core refuses */

typedef struct rtcore_options {
    size_t      size;
    const char *instance;              /* NULL: RTD_INSTANCE, else the only one that runs */
    const char *socket;                /* NULL: the instance's; with a path, its owner is not checked */
    uint64_t    timeout_ns;            /* 0: 5 s; an hour at most */
    int32_t     tid;                   /* thread that signals with target = "thread" go to; 0: the main thread */
    uint32_t    skin;
    const char *cobalt_library;        /* NULL: libcobalt.so.2 */
} rtcore_options;
#define RTCORE_OPTIONS_INIT { sizeof(rtcore_options), NULL, NULL, 0, 0, RTCORE_SKIN_POSIX, NULL }

/* Takes the name of a [[process]]. options may be NULL. */
int rtcore_connect(rtcore_session **out, const char *process, const rtcore_options *options, rtcore_error *err);
/* Ends the registration. Calls that wait in its inboxes return what came, then -ESHUTDOWN. NULL is allowed. */
void rtcore_session_close(rtcore_session *session);

#define RTCORE_STATE_UP 1
#define RTCORE_STATE_DOWN 2
#define RTCORE_STATE_CLOSED 3
/* RTCORE_STATE_*. */
int rtcore_session_state(const rtcore_session *session);
/* Why it is RTCORE_STATE_DOWN, as snprintf(3) writes it; empty otherwise. */
size_t rtcore_session_reason(const rtcore_session *session, char *buffer, size_t n);
/* A descriptor that is readable while an event waits (level-triggered), for a program without an inbox. The first time it
 * may be readable without an event. Events before the first call of this function or of rtcore_session_take() are not kept. */
int rtcore_session_fd(const rtcore_session *session);
/* The next event: 1, or 0 when there is none. The pointers in it stay valid until the next call; one thread at a time. */
int rtcore_session_take(const rtcore_session *session, rtcore_message *message, size_t size);
/* Whether a message or notice with this pid and these flags is from the process of this name: 1 or 0. It may wait for the
 * session's thread, at most a second. */
int rtcore_session_is(const rtcore_session *session, const char *process, int32_t pid, uint32_t flags);

#define RTCORE_PEER_UNREGISTERED 0u
#define RTCORE_PEER_ALIVE 1u
#define RTCORE_PEER_DEAD 2u
typedef struct rtcore_peer {
    char     process[RTCORE_NAME_BYTES];
    uint32_t state;
    int32_t  pid;
    int32_t  ending_kind;
    int32_t  ending_value;
} rtcore_peer;
/* Copies what is known of the first n processes that this one talks to, each size_of_one bytes apart. Returns how many there
 * are. */
ssize_t rtcore_session_peers(const rtcore_session *session, rtcore_peer *array, size_t n, size_t size_of_one);

#define RTCORE_ROLE_SENDER 1u
#define RTCORE_ROLE_INBOX 2u
#define RTCORE_ROLE_SIGNAL 3u          /* receives payloads of `signo` */
#define RTCORE_DIRECT 1u               /* flags: from process to process */
typedef struct rtcore_channel {
    char     endpoint[RTCORE_NAME_BYTES];
    char     other[RTCORE_NAME_BYTES]; /* the endpoint at the other side */
    char     process[RTCORE_NAME_BYTES]; /* its owner; empty: none */
    char     lane[RTCORE_NAME_BYTES];
    char     route[RTCORE_NAME_BYTES];
    uint32_t role;
    uint32_t flags;
    uint32_t priority;                 /* of the lane */
    int32_t  signo;
    uint32_t slots;
    uint32_t msgsize;
    uint32_t keep;                     /* a receiver's: the newest so many messages are kept; 0: all */
    uint32_t reserved;
    uint64_t block_ns;                 /* how long a send may wait for room */
    uint64_t ttl_ns;                   /* a receiver's: older messages are discarded; 0: none */
    uint64_t deadline_ns;              /* a receiver's: later messages are counted; 0: none */
} rtcore_channel;
/* The same for the ends that the session has by the configuration in force. */
ssize_t rtcore_session_channels(const rtcore_session *session, rtcore_channel *array, size_t n, size_t size_of_one);

/* ---- sender ------------------------------------------------------------------------------------------------------ */

/* Sends from one endpoint. One thread at a time. */
typedef struct rtcore_sender rtcore_sender;

int rtcore_sender_open(rtcore_sender **out, rtcore_session *session, const char *endpoint, rtcore_error *err);
void rtcore_sender_close(rtcore_sender *sender);
/* Waits until a process can receive, at most until the deadline. For the start of a program. */
int rtcore_sender_wait(rtcore_sender *sender, uint64_t deadline_ns, rtcore_error *err);

/* A send returns the message's number, from 1. A message that was refused does not arrive. A send never waits without a
 * bound: rtcore_send(), rtcore_send_at() and rtcore_reply() wait as long as overflow = "block:TIME" of the route says, the
 * others do not wait. */
/* [RT] */
int64_t rtcore_send(rtcore_sender *sender, const void *data, size_t len, rtcore_error *err);
/* [RT] */
int64_t rtcore_try_send(rtcore_sender *sender, const void *data, size_t len, rtcore_error *err);
/* [RT] As rtcore_send(), for a message that should have been sent at intended_ns: latency counts from there. */
int64_t rtcore_send_at(rtcore_sender *sender, uint64_t intended_ns, const void *data, size_t len, rtcore_error *err);
/* [RT] One message, gathered from several pieces. */
int64_t rtcore_send_vec(rtcore_sender *sender, const struct iovec *pieces, size_t count, rtcore_error *err);
/* [RT] Several messages with one wake-up of the receiver. Returns how many went; if that is fewer than count, err has the
 * reason. If none went, returns its errno. */
ssize_t rtcore_send_batch(rtcore_sender *sender, const struct iovec *messages, size_t count, rtcore_error *err);

/* [RT] A slot of len bytes to write into, aligned to 64 bytes; NULL with err. Its content is undefined. One at a time: until
 * it is committed or discarded, other sends of this sender return -EBUSY. */
void *rtcore_loan(rtcore_sender *sender, size_t len, rtcore_error *err);
/* [RT] Sends its first len bytes. The loan has ended, also if this fails, except for a len that is longer than the loan. */
int64_t rtcore_commit(rtcore_sender *sender, size_t len, rtcore_error *err);
/* [RT] */
int64_t rtcore_commit_at(rtcore_sender *sender, uint64_t intended_ns, size_t len, rtcore_error *err);
/* [RT] Sends it as the answer to a request. */
int64_t rtcore_commit_reply(rtcore_sender *sender, uint64_t reply_to, size_t len, rtcore_error *err);
/* [RT] Ends the loan and sends nothing. */
void rtcore_discard(rtcore_sender *sender);
/* [RT] Answers a request; reply_to is the request's. */
int64_t rtcore_reply(rtcore_sender *sender, uint64_t reply_to, const void *data, size_t len, rtcore_error *err);

/* Messages that were sent and that neither the daemon nor a direct receiver has taken. They are lost if this process ends. */
int64_t rtcore_sender_pending(rtcore_sender *sender);
/* Waits until there are none. For a program that sends and ends. */
int rtcore_flush(rtcore_sender *sender, uint64_t deadline_ns, rtcore_error *err);
/* [RT] Bytes of the largest message. */
size_t rtcore_sender_msgsize(const rtcore_sender *sender);

/* ---- inbox ------------------------------------------------------------------------------------------------------- */

/* Receives messages, those of the highest lane first, and events, which come before messages. One thread at a time, except
 * for rtcore_inbox_wake(). */
typedef struct rtcore_inbox rtcore_inbox;

/* An inbox of these endpoints; with n = 0, of all that no other inbox names. */
int rtcore_inbox_open(rtcore_inbox **out, rtcore_session *session, const char *const *endpoints, size_t n, rtcore_error *err);
void rtcore_inbox_close(rtcore_inbox *inbox);
/* [RT] Waits for what comes next: 1, or 0 at the deadline. size is sizeof(rtcore_message). */
int rtcore_recv(rtcore_inbox *inbox, rtcore_message *message, size_t size, uint64_t deadline_ns, rtcore_error *err);
/* [RT] What is there: 1, or 0 when nothing is. After 0 the descriptor is unreadable until something comes. */
int rtcore_try_recv(rtcore_inbox *inbox, rtcore_message *message, size_t size, rtcore_error *err);
/* [RT] As rtcore_recv(), without a copy: data points into shared memory, until rtcore_release() or the next call on the
 * inbox. The process at the other end of a direct route can change the bytes meanwhile: copy what is checked. The flag
 * RTCORE_SIGNAL is not set. */
int rtcore_peek(rtcore_inbox *inbox, rtcore_message *message, size_t size, uint64_t deadline_ns, rtcore_error *err);
/* [RT] The sender may use the slot again. */
void rtcore_release(rtcore_inbox *inbox);
/* A descriptor that is readable while something is there, level-triggered: call rtcore_try_recv() until it returns 0. */
int rtcore_inbox_fd(rtcore_inbox *inbox);

#define RTCORE_WAIT_BLOCK 0u           /* sleep */
#define RTCORE_WAIT_SPIN 1u            /* spin for spin_ns, then sleep */
#define RTCORE_WAIT_POLL 2u            /* never sleep: for a thread that has its CPU to itself */
/* [RT] */
int rtcore_inbox_set_wait(rtcore_inbox *inbox, uint32_t how, uint64_t spin_ns);
/* Any thread, and signal handlers: ends the receiving call that waits, or else the next one, with -ECANCELED. */
int rtcore_inbox_wake(const rtcore_inbox *inbox);

typedef struct rtcore_inbox_counters {
    uint64_t received;
    uint64_t duplicates;               /* came once more after a restart of the daemon, and were dropped */
    uint64_t missed;
    uint64_t expired;                  /* older than the route's ttl */
    uint64_t superseded;               /* gave way to newer ones */
    uint64_t late;                     /* past the route's deadline */
    uint64_t torn;                     /* left half written by a sender that ended */
    uint64_t corrupt;                  /* rings that were given up */
    uint64_t events_lost;              /* were not read in time */
} rtcore_inbox_counters;
int rtcore_inbox_count(rtcore_inbox *inbox, rtcore_inbox_counters *counters, size_t size);

/* ---- question and answer ----------------------------------------------------------------------------------------- */

/* Sends requests from one endpoint and receives their answers at another. One thread at a time. */
typedef struct rtcore_caller rtcore_caller;

int rtcore_caller_open(rtcore_caller **out, rtcore_session *session, const char *requests, const char *answers,
                       rtcore_error *err);
void rtcore_caller_close(rtcore_caller *caller);
/* [RT] Sends a request and waits for its answer: 0, or -ETIMEDOUT at the deadline. Answers that come later are dropped. */
int rtcore_call(rtcore_caller *caller, const void *request, size_t len, rtcore_message *reply, size_t size,
                uint64_t deadline_ns, rtcore_error *err);
/* [RT] Answers that came too late. */
uint64_t rtcore_caller_late(const rtcore_caller *caller);
/* [RT] RTCORE_WAIT_*. */
int rtcore_caller_set_wait(rtcore_caller *caller, uint32_t how, uint64_t spin_ns);

/* ---- signals ----------------------------------------------------------------------------------------------------- */

/* A signal, or a message to a signal endpoint. */
typedef struct rtcore_notice {
    int32_t     signo;
    uint32_t    flags;
    uint64_t    value;
    const void *data;                  /* what came with it, up to msgsize of the endpoint */
    size_t      len;
    int32_t     pid;
    uint32_t    uid;
    uint64_t    received_ns;
    uint64_t    sequence;              /* from here on only with RTCORE_FROM_RING */
    uint64_t    missed;
    uint64_t    intended_ns;
    uint64_t    sent_ns;
    const char *endpoint;
    const char *from;
    const char *lane;
    const char *route;
} rtcore_notice;

/* Runs on the dispatcher's thread, an ordinary one: it may allocate, lock and block. It must not throw or longjmp out. The
 * pointers of the notice stay valid until it returns. */
typedef void (*rtcore_signal_fn)(const rtcore_notice *notice, void *user);

/* Blocks every signal that a route may carry in the calling thread. A signal that arrives before main has blocked it ends the
 * program. Write RTCORE_HOLD_SIGNALS once, outside any function, to block them before main. */
void rtcore_signals_hold(void);
#define RTCORE_HOLD_SIGNALS \
    __attribute__((constructor)) static void rtcore_hold_signals_before_main(void) { rtcore_signals_hold(); } \
    struct rtcore_hold_signals_before_main

/* Blocks these signals in the calling thread and in those that it starts: first thing in main. */
int rtcore_signals_block(const int *signals, size_t n, rtcore_error *err);

/* The dispatcher: one thread that calls callbacks, one after the other. Any thread. */
typedef struct rtcore_signals rtcore_signals;

/* The session's dispatcher, which also reads payloads; with session NULL, one for plain signals alone. */
int rtcore_signals_open(rtcore_signals **out, rtcore_session *session, rtcore_error *err);
/* Ends the thread, if no other handle of the session has it. Waits for the callback that runs. */
void rtcore_signals_close(rtcore_signals *signals);
#define RTCORE_ONCE 1u                 /* removed after its first call */
#define RTCORE_FIRST 2u                /* called before those that are there */
/* Calls fn for each such signal from now on. Returns the number of the registration, from 1. To accept signals of one process
 * alone, compare with rtcore_session_is() in the callback. */
int64_t rtcore_signals_register(const rtcore_signals *signals, int signo, uint32_t flags, rtcore_signal_fn fn, void *user,
                                rtcore_error *err);
/* Puts another callback into its place. When it returns, the former one does not run any more, unless it is the caller. */
int rtcore_signals_replace(const rtcore_signals *signals, int64_t id, rtcore_signal_fn fn, void *user);
/* Removes it. When it returns, the callback does not run any more, unless it is the caller. */
int rtcore_signals_remove(const rtcore_signals *signals, int64_t id);
typedef struct rtcore_signals_counters {
    uint64_t received;
    uint64_t doorbells;                /* signals that only announced a message of a ring */
    uint64_t duplicates;
    uint64_t unhandled;                /* no callback was called */
    uint64_t calls;
} rtcore_signals_counters;
int rtcore_signals_count(const rtcore_signals *signals, rtcore_signals_counters *counters, size_t size);

/* Signals behind a descriptor, for a program with a loop of its own. Any thread. */
typedef struct rtcore_signal_source rtcore_signal_source;

int rtcore_signal_source_open(rtcore_signal_source **out, const int *signals, size_t n, rtcore_error *err);
void rtcore_signal_source_close(rtcore_signal_source *source);
/* Readable while one is pending. */
int rtcore_signal_source_fd(const rtcore_signal_source *source);
/* [RT] The next one that is pending, lowest number first: 1, or 0 when there is none. */
int rtcore_signal_source_take(const rtcore_signal_source *source, rtcore_notice *notice, size_t size);

/* ---- one wait for many ------------------------------------------------------------------------------------------- */

/* Waits for inboxes and other descriptors, in the order of priorities. One thread at a time. */
typedef struct rtcore_waiter rtcore_waiter;

#define RTCORE_READABLE 1u
#define RTCORE_WRITABLE 2u
#define RTCORE_HANGUP 4u               /* the other end hung up, or the descriptor was closed: remove it */
typedef struct rtcore_ready {
    uint64_t key;
    uint32_t priority;
    uint32_t flags;
} rtcore_ready;

int rtcore_waiter_open(rtcore_waiter **out, size_t capacity);
void rtcore_waiter_close(rtcore_waiter *waiter);
/* -EEXIST: the key or the descriptor is in it; -ENOSPC: the capacity is used up; -EPERM: the file is always ready. */
int rtcore_waiter_add_fd(rtcore_waiter *waiter, int fd, uint64_t key, uint8_t priority, uint32_t interest);
/* Remove a descriptor before closing it. */
int rtcore_waiter_remove(rtcore_waiter *waiter, uint64_t key);
/* [RT] Waits until something is ready; returns how many of the n first, highest priority first; 0 at the deadline. What is not
 * served comes again. */
ssize_t rtcore_wait(rtcore_waiter *waiter, rtcore_ready *array, size_t n, uint64_t deadline_ns);

/* ---- real time --------------------------------------------------------------------------------------------------- */

#define RTCORE_DO_NOT_LOCK 1u          /* flags: leave the memory of the process unlocked */
typedef struct rtcore_realtime {
    size_t      size;
    const char *lane;                  /* the lowest lane that the thread sends or receives in */
    uint32_t    below;                 /* so far below its priority; 0: 1 */
    int32_t     cpu;                   /* on this CPU alone; -1: where it is */
    uint32_t    flags;
    uint32_t    reserved;
    size_t      stack;                 /* bytes of stack to touch beforehand */
    size_t      heap;                  /* bytes of heap to have at hand, for the whole process */
} rtcore_realtime;
#define RTCORE_REALTIME_INIT { sizeof(rtcore_realtime), NULL, 1, -1, 0, 0, 0, 0 }

/* Makes the calling thread a SCHED_FIFO thread below a lane, with locked memory. Returns its priority. If a permission is
 * missing, the text of err has the line that grants it; what was granted before stays. */
int rtcore_realtime_enter(rtcore_session *session, const rtcore_realtime *how, rtcore_error *err);

typedef struct rtcore_breaches {
    uint64_t heap_calls;               /* of this library; the program's own malloc is not seen */
    uint64_t minor_faults;
    uint64_t major_faults;
    uint64_t voluntary_switches;       /* it slept */
    uint64_t involuntary_switches;     /* it was preempted */
} rtcore_breaches;
/* What the calling thread has done since rtcore_realtime_enter(): for tests. */
int rtcore_realtime_check(rtcore_breaches *breaches, size_t size);

#ifdef __cplusplus
}
#endif

#endif
