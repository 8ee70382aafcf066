/* Uses the macros of rtcore.h, so that a compile shows them to fit every language version. Reads as C99 and as C++. */
#include "rtcore.h"

RTCORE_HOLD_SIGNALS;

int uses(rtcore_session **session, rtcore_inbox *inbox);

int uses(rtcore_session **session, rtcore_inbox *inbox) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_options options = RTCORE_OPTIONS_INIT;
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    rtcore_message message;
    options.timeout_ns = 1;
    if (rtcore_connect(session, "name", &options, &err) < 0 || rtcore_realtime_enter(*session, &how, &err) < 0) {
        return rtcore_error_code(&err);
    }
    return rtcore_recv(inbox, &message, sizeof message, RTCORE_FOREVER, NULL);
}
