// Preloaded into a process: its time of day is the machine's plus an offset in nanoseconds, an int64_t in the file that
// CLOCK_OFFSET_FILE names, which others may write at any moment. Threads that wait until a time of day wait on as they would
// on a machine whose clock is set.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)
#define LOOK_AGAIN (SECOND / 20)

typedef int (*timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);

static const volatile int64_t *offset;
static timedwait wait_really;

__attribute__((constructor)) static void begin(void) {
    int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
    void *mapped = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    wait_really = (timedwait)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (mapped == MAP_FAILED || wait_really == NULL) {
        abort();
    }
    offset = mapped;
    close(file);
}

static int64_t in_ns(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec in_parts(int64_t ns) { return (struct timespec){.tv_sec = ns / SECOND, .tv_nsec = ns % SECOND}; }

static int64_t machine_ns(clockid_t clock) {
    struct timespec now;
    syscall(SYS_clock_gettime, clock, &now);
    return in_ns(&now);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        *time = in_parts(in_ns(time) + *offset);
    }
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    (void)zone;
    int64_t now = machine_ns(CLOCK_REALTIME) + *offset;
    *time = (struct timeval){.tv_sec = now / SECOND, .tv_usec = now % SECOND / 1000};
    return 0;
}

time_t time(time_t *into) {
    time_t now = (machine_ns(CLOCK_REALTIME) + *offset) / SECOND;
    if (into != NULL) {
        *into = now;
    }
    return now;
}

static int wait_until(void *condition, void *mutex, const struct timespec *until) {
    int64_t now = machine_ns(CLOCK_REALTIME), left = in_ns(until) - now - *offset;
    if (llabs(in_ns(until) - machine_ns(CLOCK_MONOTONIC)) < llabs(left)) {  // a condition that waits by the other clock
        return wait_really(condition, mutex, until);
    }
    struct timespec look = in_parts(now + (left < LOOK_AGAIN ? left : LOOK_AGAIN));
    int result = wait_really(condition, mutex, &look);
    // Waking for nothing is allowed: who waits looks, and waits on until the same time of day.
    return result == ETIMEDOUT && left > LOOK_AGAIN ? 0 : result;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    return wait_until(condition, mutex, until);
}

int cnd_timedwait(cnd_t *restrict condition, mtx_t *restrict mutex, const struct timespec *restrict until) {
    int result = wait_until(condition, mutex, until);  // glibc's are the same things by other names
    return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}
