/* What the examples share: a set point, the option --seconds, and how an error ends a program. */
#ifndef COMMON_H
#define COMMON_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtcore.h"

/* What comes early waits: by default a real-time signal would end a program that has not blocked it yet. */
RTCORE_HOLD_SIGNALS;

/* Where the drive is to be, and how fast. Without padding: both programs see the same bytes. */
typedef struct set_point {
    double position; /* radians */
    double velocity; /* radians a second */
} set_point;

static const char *program;

/* Ends the program with the text of an error. */
static inline void fail(const rtcore_error *err) {
    char text[1024];
    rtcore_error_text(err, text, sizeof text);
    fprintf(stderr, "%s: %s\n", program, text);
    exit(EXIT_FAILURE);
}

static inline void refuse(const char *text) {
    fprintf(stderr, "%s: %s\n", program, text);
    exit(EXIT_FAILURE);
}

/* How long to run: --seconds N, or for ever. */
static inline uint64_t seconds_of(int argc, char **argv) {
    if (argc == 1) {
        return UINT64_MAX;
    }
    char *end = NULL;
    uint64_t seconds = argc == 3 && strcmp(argv[1], "--seconds") == 0 ? strtoull(argv[2], &end, 10) : 0;
    if (end == NULL || *end || end == argv[2]) {
        refuse("the only option is --seconds N");
    }
    return seconds;
}

/* Below the lane, all memory locked, the stack touched: its priority; else a warning with the line that grants it. */
static inline int enter_realtime(rtcore_session *session, const char *lane, const char *without) {
    rtcore_error err = RTCORE_ERROR_INIT;
    rtcore_realtime how = RTCORE_REALTIME_INIT;
    how.lane = lane;
    how.stack = 64 * 1024;
    int priority = rtcore_realtime_enter(session, &how, &err);
    if (priority < 0) {
        char text[1024];
        rtcore_error_text(&err, text, sizeof text);
        fprintf(stderr, "not in real time, %s: %s\n", without, text);
    }
    return priority;
}

#endif
