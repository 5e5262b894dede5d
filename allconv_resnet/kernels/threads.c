/* Threads that start for one piece of work and end with it. */

#define _GNU_SOURCE
#include "kernels.h"

#if HAVE_KERNELS

#include <pthread.h>
#include <sched.h>

/* Runs a function for parts of a phase until none is left, and returns when those of the other threads are done too.
All threads call it. Nobody waits for a thread that could not be started or that starts late: the others take its parts. */
void run_phase(Phase *phase, void (*function)(void *work, long part), void *work) {
    long part;
    while ((part = __atomic_fetch_add(&phase->taken, 1, __ATOMIC_RELAXED)) < phase->parts) {
        function(work, part);
        __atomic_fetch_add(&phase->done, 1, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&phase->done, __ATOMIC_ACQUIRE) < phase->parts) sched_yield();
}

typedef struct {
    void (*function)(void *work);
    void *work;
    cpu_set_t allowed;
} Start;

static void *start(void *argument) {
    Start *s = argument;
    pthread_setaffinity_np(pthread_self(), sizeof s->allowed, &s->allowed); /* from now on it may be moved */
    s->function(s->work);
    return NULL;
}

/* Runs a function in this thread and in up to `threads` - 1 others.

Each thread starts on a core of its own. Linux would often start it on the core of this thread, because others have just
been busy, and move it only milliseconds later. */
void run_in_threads(void (*function)(void *work), void *work, long threads) {
    pthread_t started[MOST_THREADS];
    Start s = {.function = function, .work = work};
    int count = 0, core = sched_getcpu();
    CPU_ZERO(&s.allowed);
    sched_getaffinity(0, sizeof s.allowed, &s.allowed);
    while (count < threads - 1 && count < MOST_THREADS) {
        cpu_set_t one;
        pthread_attr_t attributes;
        for (int tries = 0; tries < CPU_SETSIZE; tries++)
            if (CPU_ISSET(core = (core + 1) % CPU_SETSIZE, &s.allowed)) break;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        pthread_attr_init(&attributes);
        pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
        const int failed = pthread_create(&started[count], &attributes, start, &s);
        pthread_attr_destroy(&attributes);
        if (failed) break;
        count++;
    }
    function(work);
    for (int i = 0; i < count; i++) pthread_join(started[i], NULL);
}

#endif
