/* Threads: one pool for all kernels of this folder, products of matrices included (product.c).

   A job is numbers 0 to items - 1 and a function. Each thread, the caller's among them, takes the
   next number until none is left. The ticket holds the job's generation beside the next number, so
   a thread that comes late finds another generation and leaves: nobody waits for a thread that the
   operating system has not let run. Idle threads spin for a moment, since jobs follow each other
   closely, and then sleep. */

#include "kernels.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { MOST_THREADS = 256, SPINS = 5000 };
static const double WORTHWHILE = 16384;  /* below, waking a thread costs more than it saves */

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;  /* held by who runs a job on the pool */
static pthread_mutex_t bed = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t alarm_clock = PTHREAD_COND_INITIALIZER;
static int threads = 1, workers = 0;
static atomic_int asleep;

static _Atomic uint64_t ticket;  /* generation << 32 | next number */
static atomic_long done;
static atomic_long items_of_job;
static void (*job_function)(size, void *);
static void *job_data;

static inline void breathe(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Take numbers of a job of this generation until none is left. */
static void take_part(uint32_t generation) {
    uint64_t now = atomic_load(&ticket);
    while ((uint32_t)(now >> 32) == generation &&
           (uint32_t)now < (uint64_t)atomic_load(&items_of_job)) {
        /* `now` is the fresh value */
        if (!atomic_compare_exchange_weak(&ticket, &now, now + 1)) continue;
        job_function((size)(uint32_t)now, job_data);
        atomic_fetch_add(&done, 1);
        now = atomic_load(&ticket);
    }
}

static void *worker(void *start) {
    uint32_t seen = (uint32_t)(uintptr_t)start;
    for (;;) {
        uint32_t generation = (uint32_t)(atomic_load(&ticket) >> 32);
        for (int i = 0; generation == seen && i < SPINS; i++) {
            breathe();
            generation = (uint32_t)(atomic_load(&ticket) >> 32);
        }
        if (generation == seen) {
            pthread_mutex_lock(&bed);
            atomic_fetch_add(&asleep, 1);
            while ((generation = (uint32_t)(atomic_load(&ticket) >> 32)) == seen)
                pthread_cond_wait(&alarm_clock, &bed);
            atomic_fetch_sub(&asleep, 1);
            pthread_mutex_unlock(&bed);
        }
        seen = generation;
        take_part(generation);
    }
    return NULL;
}

static void hire(int count) {
    while (workers < count && workers < MOST_THREADS - 1) {
        pthread_t thread;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        int failed = pthread_create(&thread, &attributes, worker,
                                    (void *)(uintptr_t)(uint32_t)(atomic_load(&ticket) >> 32));
        pthread_attr_destroy(&attributes);
        if (failed) return;
        workers++;
    }
}

/* Run a job on the pool. `turn` is held. */
static void run(size items, void (*function)(size, void *), void *job) {
    uint64_t generation = ((atomic_load(&ticket) >> 32) + 2) & UINT32_MAX;
    /* closed: late threads of the last job find no number here */
    atomic_store(&ticket, ((generation - 1) & UINT32_MAX) << 32 | UINT32_MAX);
    job_function = function;
    job_data = job;
    atomic_store(&items_of_job, (long)items);
    atomic_store(&done, 0);
    atomic_store(&ticket, generation << 32);  /* open */
    if (atomic_load(&asleep)) {
        pthread_mutex_lock(&bed);
        pthread_cond_broadcast(&alarm_clock);
        pthread_mutex_unlock(&bed);
    }
    take_part((uint32_t)generation);
    for (int i = 0; atomic_load(&done) < (long)items; i++) {
        if (i < SPINS) breathe();
        else sched_yield();
    }
}

void parallel(size items, double work, void (*function)(size item, void *job), void *job) {
    /* or another thread of the program has the pool */
    if (threads == 1 || items < 2 || work < WORTHWHILE || pthread_mutex_trylock(&turn)) {
        for (size i = 0; i < items; i++) function(i, job);
        return;
    }
    hire(threads - 1);
    run(items, function, job);
    pthread_mutex_unlock(&turn);
}

/* After a fork the child has no workers: it hires its own. */
static void forget_workers(void) {
    workers = 0;
    atomic_store(&asleep, 0);
    pthread_mutex_init(&turn, NULL);
    pthread_mutex_init(&bed, NULL);
    pthread_cond_init(&alarm_clock, NULL);
}

int thread_count(void) { return threads; }

KERNEL set_threads(size count) {
    static int prepared = 0;
    if (!prepared++) pthread_atfork(NULL, NULL, forget_workers);
    threads = (int)(count < 1 ? 1 : count > MOST_THREADS ? MOST_THREADS : count);
    return threads;
}
