/* Two daemons run, and none is named. */
#include "check.h"

int main(void) {
    rtcore_session *session = NULL;
    REFUSED(rtcore_connect(&session, "planner", NULL, &err), ENOTUNIQ, RTCORE_ERR_SEVERAL_INSTANCES, "RTD_INSTANCE");
    puts("several");
    return 0;
}
