/* A victim of a process that writes invalid data into the memory it shares with it. */
#include "check.h"

int main(void) {
    rtcore_session *session = NULL;
    rtcore_inbox *inbox = NULL;
    rtcore_sender *sender = NULL;
    rtcore_message message;
    EXPECT(rtcore_connect(&session, "victim", NULL, &err), 0);
    EXPECT(rtcore_inbox_open(&inbox, session, NULL, 0, &err), 0);
    EXPECT(rtcore_sender_open(&sender, session, "victim.direct", &err), 0);
    stop("connect the liar");
    EXPECT(rtcore_sender_wait(sender, in_ms(40000), &err), 0);
    /* A sender reads the head of a ring that it takes for full. */
    for (int number = 1; number <= 8; number++) {
        EXPECT(rtcore_try_send(sender, "x", 1, &err), number);
    }
    stop("break its head");
    REFUSED(rtcore_try_send(sender, "x", 1, &err), EBADMSG, RTCORE_ERR_CORRUPT, "victim.direct");
    stop("break its tail");
    do {
        EXPECT(rtcore_recv(inbox, &message, sizeof message, in_ms(40000), &err), 1);
    } while (message.kind != RTCORE_EVENT_CORRUPT);
    CHECK(strcmp(message.endpoint, "victim.direct.in") == 0 && strcmp(message.from, "liar.direct") == 0);
    CHECK(strstr(message.reason, "tail 100") != NULL);
    rtcore_sender_close(sender);
    rtcore_inbox_close(inbox);
    rtcore_session_close(session);
    puts("corrupt");
    return 0;
}
