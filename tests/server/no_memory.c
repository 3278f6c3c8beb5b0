/* Preloaded: in the threads named mc-worker every MCSERVER_EVERY-th request for memory is refused, until MCSERVER_REFUSALS were. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static atomic_long asked, refused;

static long number(const char *name) {
    const char *text = getenv(name);
    return text != NULL ? atol(text) : 0;
}

static int refuses(void) {
    char name[16] = "";
    static long every, most;
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "mc-worker") != 0)
        return 0;
    if (most == 0) {
        every = number("MCSERVER_EVERY");
        most = number("MCSERVER_REFUSALS");
    }
    return atomic_load(&refused) < most && atomic_fetch_add(&asked, 1) % every == 0 && atomic_fetch_add(&refused, 1) < most;
}

void *malloc(size_t n) { return refuses() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return refuses() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return refuses() ? NULL : __libc_realloc(p, n); }
