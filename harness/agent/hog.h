/*
 * hog.h: bounded loads that ask for more than they may have (`agent --hog`, PROTOCOL.md).
 *
 * Each has a bound of its own, so that it ends well where no limit holds it; what ended it is said.
 */
#ifndef HARNESS_HOG_H
#define HARNESS_HOG_H

#include <sys/resource.h>
#include <sys/time.h>

#define MIB (1024 * 1024)
#define HOG_FILE "/.harness-hog"
#define HOG_PROCESSES_MOST 100000

/* What a hog reached at most, in its own unit, and what ended that round. */
struct reached {
    long long value;
    const char *end;
};

static long long read_hog_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static const char *describe_death(int status) {
    if (WIFSIGNALED(status)) return WTERMSIG(status) == SIGKILL ? "killed" : "signal";
    return WEXITSTATUS(status) ? name_error(WEXITSTATUS(status)) : "bound";
}

/* `bound` processes that compute for `left` ns; CPU milliseconds that they got together. */
static struct reached hog_cpu(long long bound, long long left) {
    const char *end = "bound";
    const long long until = read_hog_clock() + left;
    struct rusage before, after;
    getrusage(RUSAGE_CHILDREN, &before);
    for (long long i = 0; i < bound; i++) {
        pid_t child = fork();
        if (child == 0) {
            while (read_hog_clock() < until)
                for (volatile int turn = 0; turn < 10000; turn++) { }
            _exit(0);
        }
        if (child < 0) end = name_error(errno);
    }
    while (wait(NULL) > 0) { }
    getrusage(RUSAGE_CHILDREN, &after);
    long long used = 0;
    for (int i = 0; i < 2; i++) {
        struct timeval *one = i ? &before.ru_utime : &after.ru_utime;
        struct timeval *other = i ? &before.ru_stime : &after.ru_stime;
        long long both = (one->tv_sec + other->tv_sec) * 1000ll + (one->tv_usec + other->tv_usec) / 1000;
        used += i ? -both : both;
    }
    return (struct reached){used, end};
}

/* MiB that were not only given but written to, in a child that the kernel takes first. */
static struct reached hog_memory(long long bound) {
    int status = 0;
    volatile long long *held = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (held == MAP_FAILED) return (struct reached){0, name_error(errno)};
    *held = 0;
    pid_t child = fork();
    if (child == 0) {
        int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (score >= 0) (void)!write(score, "1000", 4);
        while (*held < bound) {
            char *part = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (part == MAP_FAILED) _exit(errno);
            for (size_t page = 0; page < MIB; page += 4096) part[page] = (char)(*held + 1);
            *held += 1;
        }
        _exit(0);
    }
    if (child < 0) return (struct reached){0, name_error(errno)};
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
    struct reached found = {*held, describe_death(status)};
    munmap((void *)held, 4096);
    return found;
}

/* Processes that were alive at the same time. */
static struct reached hog_processes(long long bound) {
    static pid_t children[HOG_PROCESSES_MOST];
    struct reached found = {0, "bound"};
    if (bound > HOG_PROCESSES_MOST) bound = HOG_PROCESSES_MOST;
    while (found.value < bound) {
        pid_t child = fork();
        if (child == 0) for (;;) pause();
        if (child < 0) {
            found.end = name_error(errno);
            break;
        }
        children[found.value++] = child;
    }
    for (long long i = 0; i < found.value; i++) kill(children[i], SIGKILL);
    while (wait(NULL) > 0) { }
    return found;
}

/* MiB in a file of the root, flushed, then deleted. `direct` goes past the page cache. */
static struct reached hog_file(long long bound, int direct) {
    struct reached found = {0, "bound"};
    char *part = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int file = open(HOG_FILE, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
    if (file < 0 || part == MAP_FAILED) return (struct reached){0, name_error(errno)};
    for (size_t i = 0; i < MIB; i++) part[i] = (char)(i * 2654435761u >> 13);
    while (found.value < bound) {
        size_t done = 0;
        ssize_t size = 0;
        while (done < MIB && (size = write(file, part + done, MIB - done)) > 0) done += (size_t)size;
        if (done < MIB) {
            found.end = name_error(size < 0 ? errno : ENOSPC);
            break;
        }
        found.value++;
    }
    if (fsync(file) < 0 && !strcmp(found.end, "bound")) found.end = name_error(errno);
    close(file);
    unlink(HOG_FILE);
    munmap(part, MIB);
    return found;
}

static struct reached run_hog(const char *kind, long long bound, long long left) {
    if (!strcmp(kind, "cpu")) return hog_cpu(bound, left);
    if (!strcmp(kind, "memory")) return hog_memory(bound);
    if (!strcmp(kind, "processes")) return hog_processes(bound);
    if (!strcmp(kind, "disk")) return hog_file(bound, 0);
    if (!strcmp(kind, "write")) return hog_file(bound, 1);
    return (struct reached){0, "unknown"};
}

/* Again and again for so long, once at least; the most that a round reached, and how the last ended. */
static void hog_for(const char *kind, long long bound, long long milliseconds) {
    const long long begun = read_hog_clock(), until = begun + milliseconds * 1000000;
    struct reached most = {0, "bound"};
    int rounds = 0;
    printf("begun %s\n", kind);
    fflush(stdout);
    do {
        long long left = until - read_hog_clock();
        struct reached found = run_hog(kind, bound, left > 0 ? left : 0);
        if (found.value > most.value) most.value = found.value;
        most.end = found.end;
        rounds++;
    } while (read_hog_clock() < until);
    printf("done %s %lld %s %d %lld\n", kind, most.value, most.end, rounds,
           (read_hog_clock() - begun) / 1000000);
    fflush(stdout);
}

/* `agent --hog KIND:BOUND:MILLISECONDS…`: one after the other; the last line is `end`. */
static int run_hogs(int count, char **words) {
    char kind[16];
    long long bound, milliseconds;
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < count; i++) {
        if (sscanf(words[i], "%15[a-z]:%lld:%lld", kind, &bound, &milliseconds) != 3) return 2;
        hog_for(kind, bound, milliseconds);
    }
    puts("end");
    return fflush(stdout) == 0 ? 0 : 1;
}

#endif
