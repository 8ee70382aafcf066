//! The language between the tests and a participant. An order is a line of JSON, and so is its
//! answer ([`Answer`]). A participant (`peer`) obeys all orders; the driver's methods (`talk`,
//! `session`, `lane_talk`, `notices`) give an order and take the value out of its answer.

pub use super::answer::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
pub enum Order<'a> {
    #[serde(borrow)]
    Process(Process<'a>),
    #[serde(borrow)]
    Queue(Queue<'a>),
    Signal(Signal),
    Second(Second),
    #[serde(borrow)]
    Session(Session<'a>),
    #[serde(borrow)]
    Send(Send<'a>),
    #[serde(borrow)]
    Receive(Receive<'a>),
    #[serde(borrow)]
    Call(Call<'a>),
    #[serde(borrow)]
    Handlers(Handlers<'a>),
    #[serde(borrow)]
    Fork(Fork<'a>),
    /// Words for the hostile participant (`liar_peer`), which the fault campaign drives without
    /// this language: [`Answer::Lines`].
    #[serde(borrow)]
    Liar(Vec<&'a str>),
}

macro_rules! from {
    ($($kind:ident$(<$life:lifetime>)?)*) => {$(
        impl<'a> From<$kind$(<$life>)?> for Order<'a> {
            fn from(order: $kind$(<$life>)?) -> Order<'a> {
                Order::$kind(order)
            }
        }
    )*};
}
from!(Process<'a> Queue<'a> Signal Second Session<'a> Send<'a> Receive<'a> Call<'a> Handlers<'a> Fork<'a>);

/// The process itself.
#[derive(Debug, Serialize, Deserialize)]
pub enum Process<'a> {
    /// Number of the thread that obeys: [`Answer::Number`].
    Tid,
    /// The calling thread's name.
    Name(Vec<u8>),
    Fifo(u8),
    Pin(usize),
    LimitSigpending(u64),
    Setpgid(u32),
    Setsid,
    /// Real, effective and saved user.
    Setresuid(u32, u32, u32),
    /// The same program again in this process, with nothing of what it had, neither a handler nor a
    /// queue; the signal mask stays.
    Exec,
    Exit(i32),
    /// Registers the process under this name, without a session.
    Register {
        socket: &'a str,
        name: &'a str,
    },
}

/// One message queue, by `mq_open` and its siblings; on Cobalt by Cobalt's.
#[derive(Debug, Serialize, Deserialize)]
pub enum Queue<'a> {
    OpenToSend(&'a str),
    OpenToReceive(&'a str),
    /// With O_CREAT: ten 64-byte messages.
    Create {
        name: &'a str,
        mode: u32,
    },
    Unlink(&'a str),
    /// Messages in the open queue: [`Answer::Number`].
    Held,
    Send {
        priority: u32,
        bytes: Vec<u8>,
    },
    /// Numbers as payloads of 8 bytes.
    Stream {
        from: u64,
        count: u64,
    },
    /// [`Answer::Mail`]; fewer when none comes for so long.
    Receive {
        count: u64,
        quiet_ms: u64,
    },
    /// Waits for a message in one queue, sends one into another, and answers how many a third then
    /// holds.
    Relay {
        from: &'a str,
        to: &'a str,
        watch: &'a str,
    },
}

/// Signals by the raw calls.
#[derive(Debug, Serialize, Deserialize)]
pub enum Signal {
    /// Before this a signal ends the process, as it would any program that does not expect it.
    Block(i32),
    Unblock(i32),
    Ignore(i32),
    /// Installs a handler that counts, for as long as the process lives.
    Count(i32),
    /// What such handlers have counted.
    Counted,
    /// sigqueue(3); on Cobalt to a thread.
    Queue {
        pid: u32,
        signo: i32,
        value: u64,
    },
    /// sigqueue(3), also on Cobalt.
    QueueToProcess {
        pid: u32,
        signo: i32,
        value: u64,
    },
    /// kill(2), for standard signals.
    Kill {
        pid: u32,
        signo: i32,
    },
    /// As `Queue`, with a pid and a uid that are not its own (rt_sigqueueinfo(2) lets anybody).
    Forge {
        pid: u32,
        signo: i32,
        value: u64,
        as_pid: u32,
        as_uid: u32,
    },
    /// Takes up to so many blocked signals: [`Answer::Rang`]; fewer when none comes for so long.
    Take {
        signo: i32,
        count: u64,
        quiet_ms: u64,
    },
    /// Sleeps in sigwaitinfo(2) for each: [`Answer::Rang`].
    Wait {
        signo: i32,
        count: u64,
    },
    /// Queues signals to itself until the kernel has no room; answers how many.
    Spend(i32),
    TakeAll(i32),
}

/// Another thread of the process, which begins with its first order.
#[derive(Debug, Serialize, Deserialize)]
pub enum Second {
    Tid,
    Block(i32),
    Take {
        signo: i32,
        count: u64,
        quiet_ms: u64,
    },
    End,
}

/// The session.
#[derive(Debug, Serialize, Deserialize)]
pub enum Session<'a> {
    Connect {
        socket: &'a str,
        name: &'a str,
    },
    ConnectWithin {
        limit_ms: u64,
        socket: &'a str,
        name: &'a str,
    },
    ConnectInstance {
        instance: &'a str,
        name: &'a str,
    },
    /// A second one in the same process, which is dropped again.
    ConnectAgain {
        socket: &'a str,
        name: &'a str,
    },
    /// Drops the session alone.
    Close,
    /// Drops all that there is: senders, inboxes, callers, session.
    CloseAll,
    /// [`Answer::Text`].
    State,
    /// Whether the session knows the process to be alive.
    Lives(&'a str),
    /// Makes this thread real-time below the lane; answers its priority.
    Promote(&'a str),
    /// Two threads claim the endpoint at once, so many times; answers in how many rounds not
    /// exactly one had it.
    Race {
        endpoint: &'a str,
        rounds: u64,
    },
}

/// Senders, one for each endpoint that was claimed.
#[derive(Debug, Serialize, Deserialize)]
pub enum Send<'a> {
    Claim(&'a str),
    /// Waits until somebody receives.
    Reach(&'a str),
    /// Answers the sequence; a refusal is an error.
    Bytes {
        endpoint: &'a str,
        bytes: Vec<u8>,
    },
    /// [`Answer::Sent`].
    Timed {
        endpoint: &'a str,
        bytes: Vec<u8>,
        intended_ns: Option<u64>,
    },
    /// Numbers until one is refused: [`Answer::Filled`].
    Fill {
        endpoint: &'a str,
        from: u64,
    },
    /// Each number once, never waiting: [`Answer::Burst`].
    Burst {
        endpoint: &'a str,
        from: u64,
        count: u64,
    },
    /// The same: [`Answer::Outcomes`].
    Outcomes {
        endpoint: &'a str,
        from: u64,
        count: u64,
    },
    /// All of them, however long a full ring takes.
    Stream {
        endpoint: &'a str,
        from: u64,
        count: u64,
    },
    /// All of them, each in the first 8 bytes of a payload of `len`; a daemon that is away or has
    /// no room is waited for.
    Press {
        endpoint: &'a str,
        from: u64,
        count: u64,
        len: usize,
    },
    /// Numbers with a pause after each, by the skin's own clock.
    Pace {
        endpoint: &'a str,
        from: u64,
        count: u64,
        pause_us: u64,
    },
    /// As many as go in, for so long.
    Hammer {
        endpoint: &'a str,
        ms: u64,
    },
    /// Numbers from 1 on in a thread of its own, with a pause after each, until `Flooded`.
    Flood {
        endpoint: &'a str,
        pause_us: u64,
    },
    /// [`Answer::Tried`].
    Flooded,
    /// Sends numbers from 1 on and answers each that was sent; never ends by itself.
    Report(&'a str),
    /// Half a message, and never the other half: a process that is killed now dies in the middle of
    /// a send.
    Loan {
        endpoint: &'a str,
        len: usize,
    },
    Pending(&'a str),
    /// [`Answer::Flushed`].
    Flush {
        endpoint: &'a str,
        ms: u64,
    },
}

/// Inboxes, by a key of the test's choice.
#[derive(Debug, Serialize, Deserialize)]
pub enum Receive<'a> {
    /// Of all endpoints of the process, or of these.
    Inbox {
        key: &'a str,
        #[serde(borrow)]
        of: Option<Vec<&'a str>>,
    },
    Drop(&'a str),
    Strategy {
        key: &'a str,
        wait: Strategy,
    },
    /// [`Answer::Counters`].
    Counters(&'a str),
    /// Messages and events until so many messages came or the time is over: [`Answer::Items`].
    Items {
        key: &'a str,
        count: u64,
        ms: u64,
    },
    /// Messages and events until there are so many or none comes for so long, with unbroken
    /// sequences of numbers as one item: [`Answer::Runs`].
    Runs {
        count: u64,
        quiet_ms: u64,
    },
    /// The same up to the item that begins so (`event up`, `number 7`).
    RunsUntil {
        wanted: &'a str,
        quiet_ms: u64,
    },
    /// [`Answer::Numbers`].
    Numbers {
        key: &'a str,
        count: u64,
        ms: u64,
    },
    /// The same, in place, with what is there.
    InPlace {
        key: &'a str,
        count: u64,
    },
    /// Increasing numbers with a pause after each, until none comes for so long; answers how many.
    Drain {
        key: &'a str,
        pause_us: u64,
        quiet_ms: u64,
    },
    /// So many numbers, each with whether the process of this name sent it: [`Answer::From`].
    From {
        process: &'a str,
        count: u64,
    },
    /// One message that is waited for by the inbox' descriptor: [`Answer::Message`].
    Polled {
        quiet_ms: u64,
    },
    /// As a foreign event loop would: [`Answer::Epoll`].
    Epoll {
        key: &'a str,
        count: u64,
    },
    /// Inbox (priority 1), timer (2) and signal (3) in one wait, all ready: [`Answer::Waiter`].
    Waiter {
        key: &'a str,
        signo: i32,
    },
    /// The number that an inbox receives which was opened, and slept, while another had
    /// everything.
    WaitsForAnother,
    /// Sends one message every `pause_us` to itself, real-time; answers the longest time there and
    /// back in microseconds.
    Ping {
        key: &'a str,
        endpoint: &'a str,
        count: u64,
        pause_us: u64,
    },
    /// Sends back what comes, as it is.
    Echo {
        key: &'a str,
        endpoint: &'a str,
        count: u64,
    },
    /// Heap calls that a sealed thread counts which makes one.
    Leak,
    /// Sends from one end and receives at the other in every way there is, sealed:
    /// [`Answer::Sealed`].
    Sealed {
        key: &'a str,
        endpoint: &'a str,
        count: u64,
    },
}

/// How an inbox waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    Block,
    Poll,
    Spin { spin_ns: u64 },
}

/// Requests and their answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call<'a> {
    Caller {
        key: &'a str,
        requests: &'a str,
        answers: &'a str,
    },
    /// [`Answer::Called`].
    Ask {
        key: &'a str,
        request: Vec<u8>,
        ms: u64,
    },
    /// Answers that came too late.
    Late(&'a str),
    /// Answers so many requests with their bytes in reverse.
    Serve {
        key: &'a str,
        endpoint: &'a str,
        count: u64,
    },
    /// Takes a request and leaves it unanswered until `Reply`.
    Hold(&'a str),
    Reply {
        endpoint: &'a str,
        bytes: Vec<u8>,
    },
}

/// Signals and their payloads by the library's dispatcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum Handlers<'a> {
    /// As a program that uses the library blocks a signal.
    Block(i32),
    /// Logs what comes, from any process or from this one.
    Handle {
        signo: i32,
        from: Option<&'a str>,
    },
    /// The first signal has its handler drop the dispatcher and open the next one.
    ReplaceInHandler(i32),
    /// Handlers wait until `Release`.
    Hold,
    Release,
    /// All that came, when there are so many: [`Answer::Notices`].
    Notices(u64),
    /// Waits until the values count up from there, without any more.
    CountUp {
        from: u64,
        count: u64,
    },
    /// [`Answer::Dispatcher`].
    Counters,
    End,
}

/// What a forked child meets that inherits a session.
#[derive(Debug, Serialize, Deserialize)]
pub enum Fork<'a> {
    /// Every call of one child, so many times, while another thread of this process uses the
    /// session: [`Answer::Text`].
    Touch {
        endpoint: &'a str,
        rounds: u64,
    },
    Loan(&'a str),
    InPlace,
    /// A child that connects as another process and sends a number.
    Connect {
        socket: &'a str,
        name: &'a str,
        endpoint: &'a str,
        number: u64,
    },
    /// A child that lives on and does nothing: its pid.
    Idle,
}
