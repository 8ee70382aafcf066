/* An arm on the Cobalt skin, whose library is named: sends back what it receives, on a promoted thread. */
#include "check.h"

int main(int argc, char **argv) {
    CHECK(argc == 2);
    rtcore_session *session = NULL;
    rtcore_inbox *inbox = NULL;
    rtcore_sender *sender = NULL;
    rtcore_options options = RTCORE_OPTIONS_INIT;
    options.skin = RTCORE_SKIN_COBALT;
    options.cobalt_library = argv[1];
    EXPECT(rtcore_connect(&session, "arm", &options, &err), 0);
    EXPECT(rtcore_inbox_open(&inbox, session, NULL, 0, &err), 0);
    EXPECT(rtcore_sender_open(&sender, session, "arm.back", &err), 0);
    EXPECT(rtcore_sender_wait(sender, in_ms(40000), &err), 0);
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    how.lane = "lane";
    how.flags = RTCORE_DO_NOT_LOCK;
    EXPECT(rtcore_realtime_enter(session, &how, &err), 49);
    rtcore_message message;
    for (int got = 0; got < 20;) {
        EXPECT(rtcore_recv(inbox, &message, sizeof message, RTCORE_FOREVER, &err), 1);
        if (message.kind == RTCORE_MESSAGE) {
            got++;
            EXPECT(rtcore_send(sender, message.data, message.len, &err), got);
        }
    }
    /* By the skin's clock and sleep. */
    uint64_t wake_ns = in_ms(5);
    EXPECT(rtcore_sleep_until(wake_ns), 0);
    CHECK(rtcore_now_ns() >= wake_ns);
    rtcore_breaches breaches;
    EXPECT(rtcore_realtime_check(&breaches, sizeof breaches), 0);
    EXPECT(breaches.heap_calls, 0);
    stop("echoed");
    rtcore_sender_close(sender);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
    puts("on cobalt");
    return 0;
}
