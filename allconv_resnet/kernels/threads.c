/* Threads that start for one piece of work and end with it. */

#define _GNU_SOURCE
#include "kernels.h"

#if HAVE_KERNELS

#include <pthread.h>
#include <sched.h>

/* Runs a function for one part after the other until none is left. All threads call it. The parts of a thread that could
not be started, or that starts late, are taken by the others. */
void take_parts(Phase *phase, void (*function)(void *work, long part, long thread), void *work, long thread) {
    long part;
    while ((part = __atomic_fetch_add(&phase->taken, 1, __ATOMIC_RELAXED)) < phase->parts) {
        function(work, part, thread);
        __atomic_fetch_add(&phase->done, 1, __ATOMIC_RELEASE);
    }
}

/* Returns when all parts of a phase are done. */
void wait_for(const Phase *phase) {
    while (__atomic_load_n(&phase->done, __ATOMIC_ACQUIRE) < phase->parts) sched_yield();
}

typedef struct {
    void (*function)(void *work, long thread);
    void *work;
    long thread;
    const cpu_set_t *allowed;
} Start;

static void *start(void *argument) {
    Start *s = argument;
    if (s->allowed) pthread_setaffinity_np(pthread_self(), sizeof *s->allowed, s->allowed); /* now it may be moved */
    s->function(s->work, s->thread);
    return NULL;
}

/* Runs a function in this thread, as number 0, and in up to `threads` - 1 others, with numbers from 1 on.

Each thread starts on a core of its own. Linux would often start it on the core of this thread, because the threads of
TensorFlow have just kept the other cores busy, and move it only milliseconds later. */
void run_in_threads(void (*function)(void *work, long thread), void *work, long threads) {
    pthread_t started[MOST_THREADS];
    Start starts[MOST_THREADS];
    int core = sched_getcpu();
    long count = 1;
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    const int known = !sched_getaffinity(0, sizeof allowed, &allowed); /* not on machines of more than 1,024 cores */
    for (; count < threads && count < MOST_THREADS; count++) {
        cpu_set_t one;
        pthread_attr_t attributes;
        for (int tries = 0; tries < CPU_SETSIZE; tries++)
            if (CPU_ISSET(core = (core + 1) % CPU_SETSIZE, &allowed)) break;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        pthread_attr_init(&attributes);
        pthread_attr_setaffinity_np(&attributes, sizeof one, &one);
        starts[count] = (Start){function, work, count, known ? &allowed : NULL};
        int failed = !known || pthread_create(&started[count], &attributes, start, &starts[count]);
        if (failed) failed = pthread_create(&started[count], NULL, start, &starts[count]); /* on any core */
        pthread_attr_destroy(&attributes);
        if (failed) break;
    }
    function(work, 0);
    for (long i = 1; i < count; i++) pthread_join(started[i], NULL);
}

#endif
