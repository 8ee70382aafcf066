/* What the test programs share: checks that end the program with the line that failed, and stops at which the test that
 * started it does something. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtcore.h"

static rtcore_error err = RTCORE_ERROR_INIT;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static inline void expect(long long got, long long wanted, const char *what, int line) {
    if (got == wanted) {
        return;
    }
    char text[1024];
    rtcore_error_text(&err, text, sizeof text);
    fprintf(stderr, "line %d: %s: %lld, wanted %lld (last error: %s)\n", line, what, got, wanted, text);
    exit(1);
}
/* The call's result. */
#define EXPECT(call, wanted) expect((long long)(call), (long long)(wanted), #call, __LINE__)

/* The call's errno, the kind of its error, and a part of its text: what to do. */
static inline void refuse(long long got, int number, uint32_t kind, const char *part, const char *what, int line) {
    char text[1024];
    rtcore_error_text(&err, text, sizeof text);
    if (got != -number || rtcore_error_code(&err) != -number || rtcore_error_kind(&err) != kind || !strstr(text, part)) {
        fprintf(stderr, "line %d: %s: %lld, wanted %d; error %d, kind %u, wanted %u; \"%s\", wanted \"%s\"\n", line, what, got,
                -number, rtcore_error_code(&err), rtcore_error_kind(&err), kind, text, part);
        exit(1);
    }
    memset(&err, 0, sizeof err);
}
#define REFUSED(call, number, kind, part) refuse((long long)(call), number, kind, part, #call, __LINE__)

static inline uint64_t in_ms(uint64_t ms) {
    return rtcore_now_ns() + ms * 1000000;
}

/* Says that it is here, and waits until the test has done its part. */
static inline void stop(const char *where) {
    char line[64];
    printf("%s\n", where);
    fflush(stdout);
    CHECK(fgets(line, sizeof line, stdin));
}

#endif
