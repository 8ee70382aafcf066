/* A program outside the repository: prints what it was built with and what it runs with. */
#include <rtcore.h>
#include <stdio.h>

int main(void) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_session *session = NULL;
    rtcore_options options = RTCORE_OPTIONS_INIT;
    options.instance = "no-such-instance";
    int refused = rtcore_connect(&session, "consumer", &options, &err);
    printf("%s %d\n", rtcore_version(), refused);
    return 0;
}
