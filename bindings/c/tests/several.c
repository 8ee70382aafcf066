/* No daemon is named, and there are several, or none. */
#include "check.h"

int main(int argc, char **argv) {
    rtcore_session *session = NULL;
    CHECK(argc == 2);
    if (strcmp(argv[1], "several") == 0) {
        REFUSED(rtcore_connect(&session, "planner", NULL, &err), ENOTUNIQ, RTCORE_ERR_SEVERAL_INSTANCES, "RTD_INSTANCE");
    } else {
        REFUSED(rtcore_connect(&session, "planner", NULL, &err), ECONNREFUSED, RTCORE_ERR_NO_INSTANCE, "rtd run FILE");
    }
    puts(argv[1]);
    return 0;
}
