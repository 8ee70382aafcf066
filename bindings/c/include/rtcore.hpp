// rtcore.hpp - client library of the rtd messaging daemon for C++17, header only, over rtcore.h.
//
// What opens something throws rtcore::Error (std::system_error), whose text says what to do. What runs in real time, marked
// [RT], never throws and never allocates: it returns a negative errno, and the sender, inbox or caller keeps the details
// (error()). Handles are move-only and close themselves. Each keeps the thread rule of its C handle.
//
// The bytes of a message are rtcore::Bytes: std::span<const std::byte> where the standard library has it, else a class of
// that interface.
#ifndef RTCORE_HPP
#define RTCORE_HPP

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__has_include)
#if __has_include(<version>)
#include <version>
#endif
#endif
#if defined(__cpp_lib_span)
#include <span>
#endif

#include "rtcore.h"

namespace rtcore {

constexpr std::uint64_t forever = RTCORE_FOREVER;

inline std::uint64_t now_ns() noexcept { return rtcore_now_ns(); }
inline void sleep_until(std::uint64_t time_ns) noexcept { rtcore_sleep_until(time_ns); }
inline const char *version() noexcept { return rtcore_version(); }

#if defined(__cpp_lib_span)
using Bytes = std::span<const std::byte>;
using Slot = std::span<std::byte>;
#else
// The part of std::span that messages need.
template <typename T>
class BasicSpan {
  public:
    constexpr BasicSpan() noexcept = default;
    constexpr BasicSpan(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr std::size_t size_bytes() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t at) const noexcept { return data_[at]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
using Bytes = BasicSpan<const std::byte>;
using Slot = BasicSpan<std::byte>;
#endif

// Why a call failed, as the caller keeps it: copied without a heap call, text on demand.
class Failure {
  public:
    int code() const noexcept { return rtcore_error_code(&raw_); }            // the negative errno; 0: none
    std::uint32_t kind() const noexcept { return rtcore_error_kind(&raw_); }  // RTCORE_ERR_*
    std::string text() const {                                                // not for a real-time thread
        std::string text(rtcore_error_text(&raw_, nullptr, 0), '\0');
        rtcore_error_text(&raw_, text.data(), text.size() + 1);
        return text;
    }
    rtcore_error *raw() noexcept { return &raw_; }

  private:
    rtcore_error raw_ = RTCORE_ERROR_INIT;
};

// What opening something throws.
class Error : public std::system_error {
  public:
    Error(int result, const Failure &failure)
        : std::system_error(-result, std::generic_category(), failure.text()), kind_(failure.kind()) {}
    Error(int result, const char *what) : std::system_error(-result, std::generic_category(), what) {}
    std::uint32_t kind() const noexcept { return kind_; }

  private:
    std::uint32_t kind_ = 0;
};

namespace detail {

template <auto Close>
struct Closer {
    template <typename T>
    void operator()(T *handle) const noexcept {
        Close(handle);
    }
};
template <typename T, auto Close>
using Handle = std::unique_ptr<T, Closer<Close>>;

inline void check(int result, const Failure &failure) {
    if (result < 0) {
        throw Error(result, failure);
    }
}
inline int check(int result, const char *what) {
    if (result < 0) {
        throw Error(result, what);
    }
    return result;
}

template <typename T>
constexpr void is_a_value() noexcept {
    static_assert(std::is_trivially_copyable_v<T>, "a message is the bytes of a value: the type must be trivially copyable");
    static_assert(!std::is_pointer_v<T>, "a pointer means nothing in another process");
}

}  // namespace detail

// A message or an event; its pointers stay valid until the next call on what returned it.
struct Message : rtcore_message {
    Message() noexcept : rtcore_message() {}
    bool is_message() const noexcept { return kind == RTCORE_MESSAGE; }
    bool is_verified() const noexcept { return (flags & RTCORE_VERIFIED) != 0; }
    Bytes bytes() const noexcept { return Bytes(static_cast<const std::byte *>(data), len); }
    std::string_view text() const noexcept { return std::string_view(static_cast<const char *>(data), len); }
    std::uint64_t when_received_ns() const noexcept { return rtcore_message_received_ns(this); }
    // The bytes as a value; nothing when they are not as many as a T has.
    template <typename T>
    std::optional<T> value() const noexcept {
        detail::is_a_value<T>();
        if (kind != RTCORE_MESSAGE || len != sizeof(T)) {
            return std::nullopt;
        }
        T value;
        std::memcpy(&value, data, sizeof(T));
        return value;
    }
};

class Session;

// Sends from one endpoint.
class Sender {
  public:
    // [RT] Each returns the message's number, from 1, or a negative errno.
    std::int64_t send(const void *data, std::size_t len) noexcept {
        return rtcore_send(handle_.get(), data, len, error_.raw());
    }
    std::int64_t try_send(const void *data, std::size_t len) noexcept {
        return rtcore_try_send(handle_.get(), data, len, error_.raw());
    }
    std::int64_t send_at(std::uint64_t intended_ns, const void *data, std::size_t len) noexcept {
        return rtcore_send_at(handle_.get(), intended_ns, data, len, error_.raw());
    }
    std::int64_t send(std::string_view text) noexcept { return send(text.data(), text.size()); }
    std::int64_t send(Bytes bytes) noexcept { return send(bytes.data(), bytes.size()); }
    template <typename T>
    std::int64_t send_value(const T &value) noexcept {
        detail::is_a_value<T>();
        return send(&value, sizeof(T));
    }
    template <typename T>
    std::int64_t send_value_at(std::uint64_t intended_ns, const T &value) noexcept {
        detail::is_a_value<T>();
        return send_at(intended_ns, &value, sizeof(T));
    }
    std::int64_t send_pieces(const iovec *pieces, std::size_t count) noexcept {
        return rtcore_send_vec(handle_.get(), pieces, count, error_.raw());
    }
    // [RT] How many went.
    ssize_t send_batch(const iovec *messages, std::size_t count) noexcept {
        return rtcore_send_batch(handle_.get(), messages, count, error_.raw());
    }
    std::int64_t reply(const Message &request, const void *data, std::size_t len) noexcept {
        return rtcore_reply(handle_.get(), request.reply_to, data, len, error_.raw());
    }
    template <typename T>
    std::int64_t reply_value(const Message &request, const T &value) noexcept {
        detail::is_a_value<T>();
        return reply(request, &value, sizeof(T));
    }
    // [RT] A slot to write into; empty with error(). Committed or discarded before anything else is sent.
    Slot loan(std::size_t len) noexcept {
        void *data = rtcore_loan(handle_.get(), len, error_.raw());
        return Slot(static_cast<std::byte *>(data), data ? len : 0);
    }
    std::int64_t commit(std::size_t len) noexcept { return rtcore_commit(handle_.get(), len, error_.raw()); }
    std::int64_t commit_at(std::uint64_t intended_ns, std::size_t len) noexcept {
        return rtcore_commit_at(handle_.get(), intended_ns, len, error_.raw());
    }
    std::int64_t commit_reply(const Message &request, std::size_t len) noexcept {
        return rtcore_commit_reply(handle_.get(), request.reply_to, len, error_.raw());
    }
    void discard() noexcept { rtcore_discard(handle_.get()); }

    // Waits until a process can receive; 0 or a negative errno.
    int wait_for_receiver(std::uint64_t deadline_ns) noexcept {
        return rtcore_sender_wait(handle_.get(), deadline_ns, error_.raw());
    }
    int flush(std::uint64_t deadline_ns) noexcept { return rtcore_flush(handle_.get(), deadline_ns, error_.raw()); }
    std::int64_t pending() noexcept { return rtcore_sender_pending(handle_.get()); }
    std::size_t msgsize() const noexcept { return rtcore_sender_msgsize(handle_.get()); }
    // Why the last call that failed did.
    const Failure &error() const noexcept { return error_; }
    rtcore_sender *raw() noexcept { return handle_.get(); }

  private:
    friend class Session;
    explicit Sender(rtcore_sender *handle) noexcept : handle_(handle) {}
    detail::Handle<rtcore_sender, rtcore_sender_close> handle_;
    Failure error_;
};

// Receives messages and events.
class Inbox {
  public:
    // [RT] 1 and the message, 0 at the deadline, or a negative errno.
    int recv(Message &message, std::uint64_t deadline_ns = forever) noexcept {
        return rtcore_recv(handle_.get(), &message, sizeof(rtcore_message), deadline_ns, error_.raw());
    }
    int try_recv(Message &message) noexcept {
        return rtcore_try_recv(handle_.get(), &message, sizeof(rtcore_message), error_.raw());
    }
    // [RT] In place, until release() or the next call.
    int peek(Message &message, std::uint64_t deadline_ns = forever) noexcept {
        return rtcore_peek(handle_.get(), &message, sizeof(rtcore_message), deadline_ns, error_.raw());
    }
    void release() noexcept { rtcore_release(handle_.get()); }
    int set_wait(std::uint32_t how, std::uint64_t spin_ns = 0) noexcept {
        return rtcore_inbox_set_wait(handle_.get(), how, spin_ns);
    }
    // Any thread, and signal handlers.
    int wake() const noexcept { return rtcore_inbox_wake(handle_.get()); }
    int fd() noexcept { return rtcore_inbox_fd(handle_.get()); }
    rtcore_inbox_counters counters() {
        rtcore_inbox_counters counters{};
        detail::check(rtcore_inbox_count(handle_.get(), &counters, sizeof counters), "rtcore_inbox_count");
        return counters;
    }
    const Failure &error() const noexcept { return error_; }
    rtcore_inbox *raw() noexcept { return handle_.get(); }

  private:
    friend class Session;
    explicit Inbox(rtcore_inbox *handle) noexcept : handle_(handle) {}
    detail::Handle<rtcore_inbox, rtcore_inbox_close> handle_;
    Failure error_;
};

// Asks questions.
class Caller {
  public:
    // [RT] 0 and the answer, or a negative errno.
    int call(const void *request, std::size_t len, Message &reply, std::uint64_t deadline_ns) noexcept {
        return rtcore_call(handle_.get(), request, len, &reply, sizeof(rtcore_message), deadline_ns, error_.raw());
    }
    int call(std::string_view request, Message &reply, std::uint64_t deadline_ns) noexcept {
        return call(request.data(), request.size(), reply, deadline_ns);
    }
    std::uint64_t late() const noexcept { return rtcore_caller_late(handle_.get()); }
    int set_wait(std::uint32_t how, std::uint64_t spin_ns = 0) noexcept {
        return rtcore_caller_set_wait(handle_.get(), how, spin_ns);
    }
    const Failure &error() const noexcept { return error_; }

  private:
    friend class Session;
    explicit Caller(rtcore_caller *handle) noexcept : handle_(handle) {}
    detail::Handle<rtcore_caller, rtcore_caller_close> handle_;
    Failure error_;
};

// Callbacks for signals, on an ordinary thread. A callback must not throw: std::terminate.
class Signals {
  public:
    using Callback = std::function<void(const rtcore_notice &)>;

    // Blocks these in the calling thread and those that it starts: first thing in main.
    static void block(std::initializer_list<int> signals) {
        Failure failure;
        detail::check(rtcore_signals_block(signals.begin(), signals.size(), failure.raw()), failure);
    }
    // Without a session: plain signals alone.
    Signals() : handle_(open(nullptr)) {}
    // Any thread. The number of the registration. A callback stays until the object ends, also when it was removed.
    std::int64_t on(int signo, Callback callback, std::uint32_t flags = 0) {
        auto kept = std::make_unique<Callback>(std::move(callback));
        Failure failure;
        std::int64_t id = rtcore_signals_register(handle_.get(), signo, flags, call, kept.get(), failure.raw());
        detail::check(static_cast<int>(id < 0 ? id : 0), failure);
        kept_->push_back(std::move(kept));
        return id;
    }
    // When it returns, the callback does not run any more, unless it is the caller.
    void remove(std::int64_t id) { detail::check(rtcore_signals_remove(handle_.get(), id), "rtcore_signals_remove"); }

  private:
    friend class Session;
    using Raw = detail::Handle<rtcore_signals, rtcore_signals_close>;
    explicit Signals(rtcore_session *session) : handle_(open(session)) {}
    static Raw open(rtcore_session *session) {
        rtcore_signals *handle = nullptr;
        Failure failure;
        detail::check(rtcore_signals_open(&handle, session, failure.raw()), failure);
        return Raw(handle);
    }
    static void call(const rtcore_notice *notice, void *user) noexcept { (*static_cast<Callback *>(user))(*notice); }

    // Destroyed after the handle, whose end waits for the callback that runs.
    std::unique_ptr<std::vector<std::unique_ptr<Callback>>> kept_ =
        std::make_unique<std::vector<std::unique_ptr<Callback>>>();
    Raw handle_;
};

// Signals behind a descriptor.
class SignalSource {
  public:
    explicit SignalSource(std::initializer_list<int> signals) {
        rtcore_signal_source *handle = nullptr;
        Failure failure;
        detail::check(rtcore_signal_source_open(&handle, signals.begin(), signals.size(), failure.raw()), failure);
        handle_.reset(handle);
    }
    int fd() const noexcept { return rtcore_signal_source_fd(handle_.get()); }
    // [RT] 1, 0, or a negative errno.
    int take(rtcore_notice &notice) const noexcept {
        return rtcore_signal_source_take(handle_.get(), &notice, sizeof notice);
    }

  private:
    detail::Handle<rtcore_signal_source, rtcore_signal_source_close> handle_;
};

// One wait for many descriptors, in the order of priorities.
class Waiter {
  public:
    explicit Waiter(std::size_t capacity) {
        rtcore_waiter *handle = nullptr;
        detail::check(rtcore_waiter_open(&handle, capacity), "rtcore_waiter_open");
        handle_.reset(handle);
    }
    void add(int fd, std::uint64_t key, std::uint8_t priority = 0, std::uint32_t interest = RTCORE_READABLE) {
        detail::check(rtcore_waiter_add_fd(handle_.get(), fd, key, priority, interest), "rtcore_waiter_add_fd");
    }
    void remove(std::uint64_t key) { detail::check(rtcore_waiter_remove(handle_.get(), key), "rtcore_waiter_remove"); }
    // [RT] How many are ready, 0 at the deadline, or a negative errno.
    template <std::size_t N>
    ssize_t wait(rtcore_ready (&ready)[N], std::uint64_t deadline_ns = forever) noexcept {
        return rtcore_wait(handle_.get(), ready, N, deadline_ns);
    }

  private:
    detail::Handle<rtcore_waiter, rtcore_waiter_close> handle_;
};

// How to connect; all of it optional.
struct Options {
    std::string instance, socket, cobalt_library;
    std::uint64_t timeout_ns = 0;
    std::int32_t tid = 0;
    std::uint32_t skin = RTCORE_SKIN_POSIX;
};

// How to enter real time.
struct RealTime {
    std::string lane;
    std::uint32_t below = 1;
    std::int32_t cpu = -1;
    bool lock_memory = true;
    std::size_t stack = 0, heap = 0;
};

// A process' connection to the daemon. Keep it for as long as what it opened.
class Session {
  public:
    explicit Session(const std::string &process, const Options &options = {}) {
        rtcore_options raw = RTCORE_OPTIONS_INIT;
        raw.instance = options.instance.empty() ? nullptr : options.instance.c_str();
        raw.socket = options.socket.empty() ? nullptr : options.socket.c_str();
        raw.cobalt_library = options.cobalt_library.empty() ? nullptr : options.cobalt_library.c_str();
        raw.timeout_ns = options.timeout_ns;
        raw.tid = options.tid;
        raw.skin = options.skin;
        rtcore_session *handle = nullptr;
        Failure failure;
        detail::check(rtcore_connect(&handle, process.c_str(), &raw, failure.raw()), failure);
        handle_.reset(handle);
    }
    Sender sender(const std::string &endpoint) {
        rtcore_sender *handle = nullptr;
        Failure failure;
        detail::check(rtcore_sender_open(&handle, handle_.get(), endpoint.c_str(), failure.raw()), failure);
        return Sender(handle);
    }
    // Of these endpoints; of none: of all that no other inbox names.
    Inbox inbox(std::initializer_list<const char *> endpoints = {}) {
        rtcore_inbox *handle = nullptr;
        Failure failure;
        detail::check(rtcore_inbox_open(&handle, handle_.get(), endpoints.begin(), endpoints.size(), failure.raw()), failure);
        return Inbox(handle);
    }
    Caller caller(const std::string &requests, const std::string &answers) {
        rtcore_caller *handle = nullptr;
        Failure failure;
        detail::check(
            rtcore_caller_open(&handle, handle_.get(), requests.c_str(), answers.c_str(), failure.raw()), failure);
        return Caller(handle);
    }
    Signals signals() { return Signals(handle_.get()); }
    // Makes the calling thread a real-time one; its SCHED_FIFO priority. The text of an error has the line that grants it.
    int enter_realtime(const RealTime &how) {
        rtcore_realtime raw = RTCORE_REALTIME_INIT;
        raw.lane = how.lane.empty() ? nullptr : how.lane.c_str();
        raw.below = how.below;
        raw.cpu = how.cpu;
        raw.flags = how.lock_memory ? 0 : RTCORE_DO_NOT_LOCK;
        raw.stack = how.stack;
        raw.heap = how.heap;
        Failure failure;
        int priority = rtcore_realtime_enter(handle_.get(), &raw, failure.raw());
        detail::check(priority, failure);
        return priority;
    }
    int state() const noexcept { return rtcore_session_state(handle_.get()); }
    std::string reason() const {
        std::string text(rtcore_session_reason(handle_.get(), nullptr, 0) + 1, '\0');
        std::size_t len = rtcore_session_reason(handle_.get(), text.data(), text.size());
        text.resize(len < text.size() ? len : text.size() - 1);
        return text;
    }
    int fd() const { return detail::check(rtcore_session_fd(handle_.get()), "rtcore_session_fd"); }
    int take(Message &event) const noexcept {
        return rtcore_session_take(handle_.get(), &event, sizeof(rtcore_message));
    }
    bool is(const std::string &process, std::int32_t pid, std::uint32_t flags) const {
        return detail::check(rtcore_session_is(handle_.get(), process.c_str(), pid, flags), "rtcore_session_is") == 1;
    }
    std::vector<rtcore_peer> peers() const { return all<rtcore_peer>(rtcore_session_peers, "rtcore_session_peers"); }
    std::vector<rtcore_channel> channels() const {
        return all<rtcore_channel>(rtcore_session_channels, "rtcore_session_channels");
    }
    // Ends the registration; inboxes return what came, then -ESHUTDOWN.
    void close() noexcept { handle_.reset(); }
    rtcore_session *raw() noexcept { return handle_.get(); }

  private:
    template <typename T, typename List>
    std::vector<T> all(List list, const char *what) const {
        std::vector<T> found;
        for (;;) {
            // What is added between two calls has room in the next one.
            ssize_t count = list(handle_.get(), found.data(), found.size(), sizeof(T));
            detail::check(static_cast<int>(count), what);
            bool is_whole = static_cast<std::size_t>(count) <= found.size();
            found.resize(static_cast<std::size_t>(count));
            if (is_whole) {
                return found;
            }
        }
    }
    detail::Handle<rtcore_session, rtcore_session_close> handle_;
};

}  // namespace rtcore

#endif
