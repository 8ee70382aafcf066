// rtcore.hpp against the daemon: a planner and an arm, both sessions of this process.
#include <csignal>
#include <iostream>
#include <thread>
#include <unistd.h>

#include "rtcore.hpp"

RTCORE_HOLD_SIGNALS;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            std::cerr << __FILE__ << ":" << __LINE__ << ": not so: " #condition "\n"; \
            return 1; \
        } \
    } while (0)

struct SetPoint {
    double position, velocity;
};

static std::uint64_t in_ms(std::uint64_t ms) { return rtcore::now_ns() + ms * 1000000; }

static int messages(rtcore::Session &planner, rtcore::Session &arm, const char *from) {
    rtcore::Sender sender = planner.sender(from);
    rtcore::Inbox inbox = arm.inbox();
    rtcore::Message message;
    CHECK(sender.wait_for_receiver(in_ms(40000)) == 0 && sender.msgsize() == 64);
    CHECK(sender.send_value(SetPoint{1.0, 2.0}) == 1);
    CHECK(sender.send("text") == 2);
    rtcore::Slot slot = sender.loan(16);
    CHECK(slot.size() == 16);
    slot[0] = std::byte{7};
    CHECK(sender.send("meanwhile") == -EBUSY && sender.commit(1) == 3);
    char large[65] = {};
    CHECK(sender.send(large, sizeof large) == -EMSGSIZE);
    CHECK(sender.error().kind() == RTCORE_ERR_TOO_LARGE && sender.error().text().find("raise msgsize") != std::string::npos);
    int got = 0;
    while (got < 3) {
        CHECK((got == 1 ? inbox.peek(message, in_ms(40000)) : inbox.recv(message, in_ms(40000))) == 1);
        if (!message.is_message()) {
            continue;
        }
        got++;
        CHECK(message.is_verified() && message.sequence == static_cast<std::uint64_t>(got));
        if (got == 1) {
            CHECK(message.value<SetPoint>()->velocity == 2.0 && !message.value<float>());
        } else if (got == 2) {
            CHECK(message.text() == "text");
        } else {
            CHECK(message.bytes().size() == 1 && message.bytes()[0] == std::byte{7});
        }
    }
    inbox.release();
    CHECK(inbox.try_recv(message) == 0);
    std::thread wakes([&] { inbox.wake(); });
    CHECK(inbox.recv(message) == -ECANCELED && inbox.counters().received == 3);
    wakes.join();
    rtcore::Inbox moved = std::move(inbox);
    CHECK(moved.fd() >= 0 && moved.recv(message, in_ms(1)) == 0);
    return 0;
}

int main() {
    rtcore::Session planner("planner"), arm("arm");
    CHECK(planner.state() == RTCORE_STATE_UP && planner.reason().empty());
    CHECK(planner.channels().size() >= 4);
    try {
        planner.sender("arm.cmd");
        CHECK(!"a sender of another process' endpoint");
    } catch (const rtcore::Error &error) {
        CHECK(error.code() == std::errc::permission_denied && error.kind() == RTCORE_ERR_DENIED);
        CHECK(std::string(error.what()).find("arm") != std::string::npos);
    }
    CHECK(messages(planner, arm, "cmd") == 0 && messages(planner, arm, "fast") == 0);

    // A question and its answer.
    rtcore::Caller caller = planner.caller("ask", "plan");
    std::thread answers([&] {
        rtcore::Inbox questions = arm.inbox({"arm.ask"});
        rtcore::Sender sender = arm.sender("arm.answers");
        rtcore::Message question;
        do {
            questions.recv(question, in_ms(40000));
        } while (question.kind != RTCORE_MESSAGE);
        sender.reply_value(question, SetPoint{3.0, 4.0});
        sender.flush(in_ms(40000));
    });
    rtcore::Message reply;
    // Until the other thread has its inbox, the question waits for it.
    CHECK(caller.call("where?", reply, in_ms(40000)) == 0 && reply.value<SetPoint>()->position == 3.0);
    answers.join();

    // Signals by callback, and behind a descriptor.
    {
        int seen = 0;
        rtcore::Signals signals = arm.signals();
        std::int64_t id = signals.on(SIGRTMIN + 5, [&seen](const rtcore_notice &notice) { seen += notice.signo; });
        kill(getpid(), SIGRTMIN + 5);
        rtcore::SignalSource source({SIGRTMIN + 6});
        kill(getpid(), SIGRTMIN + 6);
        rtcore::Waiter waiter(1);
        waiter.add(source.fd(), 1);
        rtcore_ready ready[2];
        rtcore_notice notice;
        CHECK(waiter.wait(ready, in_ms(40000)) == 1 && source.take(notice) == 1 && notice.signo == SIGRTMIN + 6);
        rtcore_signals_counters counters = {};
        rtcore_signals *same = nullptr;
        CHECK(rtcore_signals_open(&same, arm.raw(), nullptr) == 0);
        while (counters.calls < 1) {
            CHECK(rtcore_signals_count(same, &counters, sizeof counters) == 0);
            rtcore::sleep_until(in_ms(1));
        }
        rtcore_signals_close(same);
        signals.remove(id);
        CHECK(seen == SIGRTMIN + 5);
    }

    rtcore::RealTime how;
    how.lane = "lane";
    how.lock_memory = false;
    try {
        CHECK(arm.enter_realtime(how) == 49);
    } catch (const rtcore::Error &error) {
        CHECK(error.kind() == RTCORE_ERR_PERMISSION);
    }
    rtcore::Inbox inbox = arm.inbox();
    arm.close();
    rtcore::Message message;
    int result;
    while ((result = inbox.recv(message)) == 1) {
    }
    CHECK(result == -ESHUTDOWN && inbox.error().kind() == RTCORE_ERR_CLOSED);
    std::cout << "c++\n";
    return 0;
}
