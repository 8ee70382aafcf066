/* Forgets a waiter, which the sanitizer has to find. */
#include "check.h"

int main(void) {
    rtcore_waiter *waiter = NULL;
    EXPECT(rtcore_waiter_open(&waiter, 4), 0);
    waiter = NULL;
    return 0;
}
