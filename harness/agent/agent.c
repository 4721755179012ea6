/*
 * agent: the first process of every instance, the same bytes on every platform (PROTOCOL.md).
 *
 * In a container it is given the path of its channel and starts the workload. As PID 1 of a guest
 * it first makes the machine usable: file systems, modules, root, network. As a service of a guest
 * it is given the path of its port. From then on there is one poll() loop over the channel, the
 * workload's output and SIGCHLD, and no difference.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"
#include "listing.h"
#include "probe.h"
#include "hog.h"

#define SPEC_MAX (128 * 1024)
#define WORDS_MAX 1024
#define GROUPS_MAX 64
#define CHUNK 16384
#define PROBE_INTERVAL_NS 500000ll
#define GRACE_NS 200000000ll
#define REPORT "/.harness/system"
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

enum condition { ON_EXIT, ON_OUTPUT, ON_TCP };

/* An output pipe: 1 and 2 are the workload's, 3 is a report's; `matched` is the state of the search for the pattern. */
struct output {
    int pipe, number;
    size_t matched;
};

/* Bytes on their way to the host. */
struct queue {
    size_t start, end;
    char bytes[CHUNK + 64];
};

static int guest, machine, channel = -1, signals = -1, probe = -1;
static struct output outputs[] = {
    {.pipe = -1, .number = 1}, {.pipe = -1, .number = 2}, {.pipe = -1, .number = 3}};
static struct queue lines, frame;

static char spec[SPEC_MAX];
static char *words[WORDS_MAX + 1], *environment[WORDS_MAX + 1];
static const char *directory = "/", *address, *gateway, *hostname, *mac, *challenge, *root, *pids;
static enum condition condition;
static const char *pattern;
static size_t pattern_size, *fallback;
static int port;

/* Whom the workload runs as; as whom the agent does, unless the spec says. */
static int has_user;
static unsigned uid, gid, groups[GROUPS_MAX];
static size_t group_count;

static pid_t workload, reporter;
static volatile int exec_error;
static const char *volatile exec_step;
static int report_ended, report_status;
static int ready, ended, end_reported, end_status, stopping;
static long long next_probe, kill_time;

/* ---- small things ---- */

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ll + time.tv_nsec;
}

static _Noreturn void leave(int code) {
    if (guest) end_guest();
    _exit(code);
}

/* ---- to the host: lines go ahead of output, so that a milestone never waits for a full pipe ---- */

static ssize_t drain(struct queue *queue) {
    while (queue->start < queue->end) {
        ssize_t size = write(channel, queue->bytes + queue->start, queue->end - queue->start);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return -1;
        queue->start += (size_t)size;
    }
    queue->start = queue->end = 0;
    return 0;
}

static void flush(void) {
    if (frame.start > 0 && drain(&frame) < 0) return; /* begun, so it has to be finished */
    if (drain(&lines) == 0) drain(&frame);
}

static void say(const char *format, ...) {
    va_list arguments;
    size_t room = sizeof lines.bytes - lines.end;
    va_start(arguments, format);
    int size = vsnprintf(lines.bytes + lines.end, room, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size + 1 >= room) return; /* a host that asks and never reads */
    lines.end += (size_t)size;
    lines.bytes[lines.end++] = '\n';
    flush();
}

static void say_ready(void) {
    if (ready) return;
    ready = 1;
    say("ready");
}

/* ---- readiness ---- */

static void prepare_search(void) {
    pattern_size = strlen(pattern);
    fallback = calloc(pattern_size + 1, sizeof *fallback);
    for (size_t i = 1, k = 0; fallback && i < pattern_size; fallback[++i] = k) {
        while (k > 0 && pattern[i] != pattern[k]) k = fallback[k];
        if (pattern[i] == pattern[k]) k++;
    }
}

/* Knuth-Morris-Pratt: the state lives on between two reads, so the text may be split anywhere. */
static void search(struct output *output, const char *bytes, size_t size) {
    for (size_t i = 0; i < size && !ready; i++) {
        while (output->matched > 0 && bytes[i] != pattern[output->matched])
            output->matched = fallback[output->matched];
        if (bytes[i] == pattern[output->matched]) output->matched++;
        if (output->matched == pattern_size) say_ready();
    }
}

static void begin_probe(void) {
    struct sockaddr_in target = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(probe, (struct sockaddr *)&target, sizeof target) == 0) say_ready();
}

static void end_probe(short events) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(probe, SOL_SOCKET, SO_ERROR, &error, &size);
    if (!error && (events & POLLOUT)) say_ready();
    close(probe);
    probe = -1;
    next_probe = now() + PROBE_INTERVAL_NS;
}

/* The one thing that is asked again and again: no kernel event says that a port accepts. */
static void step_probe(void) {
    if (condition != ON_TCP || ready || ended || workload <= 0) return;
    if (probe < 0 && now() >= next_probe) begin_probe();
    struct pollfd state = {.fd = probe, .events = POLLOUT};
    if (probe >= 0 && poll(&state, 1, 0) > 0) end_probe(state.revents);
}

/* ---- the workload ---- */

/*
 * Groups before the user, who may not change them; nothing is asked of the kernel that holds
 * already. System calls as they are: a library's would tell every thread, and after vfork these
 * are the agent's. What the user has no right to, capabilities, goes with the last step.
 */
static int become_user(void) {
    unsigned held[GROUPS_MAX];
    const size_t size = group_count * sizeof *groups;
    if (!has_user) return 0;
    long count = syscall(SYS_getgroups, GROUPS_MAX, held);
    if ((count != (long)group_count || memcmp(held, groups, size)) &&
        syscall(SYS_setgroups, group_count, groups) < 0) return -1;
    if (getgid() != gid && syscall(SYS_setresgid, gid, gid, gid) < 0) return -1;
    return getuid() != uid ? (int)syscall(SYS_setresuid, uid, uid, uid) : 0;
}

static _Noreturn void become_workload(int out, int err) {
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    dup2(out, 1);
    dup2(err, 2);
    if (root && chroot(root) < 0) exec_step = "root";
    else if (chdir(directory) < 0) exec_step = "directory";
    else if (become_user() < 0) exec_step = "user";
    else {
        say("exec"); /* before it happens: afterwards one CPU would run the workload first */
        execvp(words[0], words);
        exec_step = "exec";
    }
    exec_error = errno; /* the parent sees it: after vfork, memory is shared */
    _exit(127);
}

static void say_failed_step(void) {
    const char *reason = strerror(exec_error);
    if (exec_step && !strcmp(exec_step, "root")) say("fail root %s: %s", root, reason);
    else if (exec_step && !strcmp(exec_step, "directory"))
        say("fail directory %s: %s", directory, reason);
    else if (exec_step && !strcmp(exec_step, "user")) say("fail user %u:%u: %s", uid, gid, reason);
    else say("fail exec %s: %s", words[0], reason);
}

/* The workload's user owns its output, or could not open /dev/stdout. Made as that user, since a
 * user-space kernel lets nobody change a pipe's owner. */
static int open_outputs(int out[2], int err[2]) {
    int other = has_user && uid != geteuid() && syscall(SYS_setresuid, -1, uid, -1) == 0;
    int done = pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0 ? -1 : 0;
    if (other && syscall(SYS_setresuid, -1, getuid(), -1) < 0) return -1;
    return done;
}

static void start_workload(void) {
    int out[2], err[2];
    if (open_outputs(out, err) < 0) {
        say("fail pipe: %s", strerror(errno));
        return;
    }
    environ = environment;
    pid_t child = vfork(); /* returns when the child has executed its command, or has failed to */
    if (child == 0) become_workload(out[1], err[1]);
    if (child < 0) exec_error = errno;
    if (exec_error) say_failed_step();
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* the child's new user cleared it for both */
    close(out[1]);
    close(err[1]);
    if (exec_error) {
        close(out[0]);
        close(err[0]);
        return;
    }
    workload = child;
    outputs[0].pipe = out[0];
    outputs[1].pipe = err[0];
    for (int i = 0; i < 2; i++) fcntl(outputs[i].pipe, F_SETFL, O_NONBLOCK);
}

/* One frame at a time: while the host is slow, the workload waits in its own pipe. */
static void forward(struct output *output) {
    static char bytes[CHUNK];
    ssize_t size = read(output->pipe, bytes, sizeof bytes);
    if (size < 0) return;
    if (size == 0) {
        close(output->pipe);
        output->pipe = -1;
        return;
    }
    int head = snprintf(frame.bytes, 64, "out %d %zd\n", output->number, size);
    memcpy(frame.bytes + head, bytes, (size_t)size);
    frame.end = (size_t)head + (size_t)size;
    if (condition == ON_OUTPUT && output->number < 3) search(output, bytes, (size_t)size);
    flush();
}

/* Whether the last byte that was written to an output is on its way. */
static int is_drained(const struct output *output) {
    int waiting = 0;
    if (frame.end > 0) return 0;
    return output->pipe < 0 || ioctl(output->pipe, FIONREAD, &waiting) < 0 || waiting == 0;
}

/* `exit` follows the last byte of output that the workload itself has written. */
static void report_end(void) {
    if (!is_drained(&outputs[0]) || !is_drained(&outputs[1])) return;
    end_reported = 1;
    if (WIFSIGNALED(end_status)) say("exit signal %d", WTERMSIG(end_status));
    else say("exit %d", WEXITSTATUS(end_status));
}

/* ---- what the guest's own system says of itself, on request and outside every timed window ---- */

static void begin_report(void) {
    int ends[2];
    static char *argv[] = {REPORT, NULL};
    if (reporter > 0 || access(REPORT, X_OK) < 0 || pipe2(ends, O_CLOEXEC) < 0) {
        say("report none");
        return;
    }
    pid_t child = vfork();
    if (child == 0) {
        dup2(ends[1], 1);
        execve(REPORT, argv, environ);
        _exit(127);
    }
    close(ends[1]);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    reporter = child;
    outputs[2].pipe = ends[0];
}

static void finish_report(void) {
    if (!is_drained(&outputs[2])) return;
    if (outputs[2].pipe >= 0) close(outputs[2].pipe);
    outputs[2].pipe = -1;
    reporter = report_ended = 0;
    say("report %d", WIFEXITED(report_status) ? WEXITSTATUS(report_status) : 255);
}

static void reap(void) {
    struct signalfd_siginfo received[4];
    int status;
    pid_t pid;
    while (read(signals, received, sizeof received) > 0) { }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == reporter) {
            report_ended = 1;
            report_status = status;
        }
        if (pid != workload) continue;
        ended = 1;
        end_status = status;
        if (condition == ON_EXIT && WIFEXITED(status) && WEXITSTATUS(status) == 0) say_ready();
    }
}

/* ---- from the host ---- */

static const char *take_condition(char *value) {
    if (!strcmp(value, "exit")) {
        condition = ON_EXIT;
    } else if (!strncmp(value, "output:", 7) && value[7]) {
        condition = ON_OUTPUT;
        pattern = value + 7;
        prepare_search();
    } else if (!strncmp(value, "tcp:", 4) && (port = atoi(value + 4)) > 0 && port < 65536) {
        condition = ON_TCP;
    } else {
        return "an unknown condition for ready";
    }
    return NULL;
}

/* UID:GID[,GROUP…]; the kernel keeps groups in order. */
static const char *take_user(const char *value) {
    int length = 0;
    if (sscanf(value, "%u:%u%n", &uid, &gid, &length) < 2) return "no user";
    if (uid == -1u || gid == -1u) return "no user"; /* to the kernel that is: as before */
    for (value += length; *value == ',' && group_count < GROUPS_MAX; value += length)
        if (sscanf(value, ",%u%n", &groups[group_count++], &length) < 1) return "no group";
    has_user = 1;
    return *value ? "too many groups" : NULL;
}

#define IS(key) (length == sizeof key - 1 && !memcmp(record, key, length))

static const char *parse_spec(char *bytes, size_t size) {
    int word_count = 0, variable_count = 0, has_path = 0;
    const char *problem = NULL;
    for (char *record = bytes; record < bytes + size && !problem; record += strlen(record) + 1) {
        char *value = strchr(record, '=');
        if (!value) return "a record without =";
        size_t length = (size_t)(value++ - record);
        if (IS("arg") && word_count < WORDS_MAX) words[word_count++] = value;
        else if (IS("env") && variable_count < WORDS_MAX - 1) environment[variable_count++] = value;
        else if (IS("cwd")) directory = value;
        else if (IS("user")) problem = take_user(value);
        else if (IS("ready")) problem = take_condition(value);
        else if (IS("address")) address = value;
        else if (IS("gateway")) gateway = value;
        else if (IS("hostname")) hostname = value;
        else if (IS("mac")) mac = value;
        else if (IS("challenge")) challenge = value;
        else if (IS("pids")) pids = value;
        else problem = "an unknown or too frequent record";
        has_path |= !strncmp(record, "env=PATH=", 9);
    }
    if (!has_path) environment[variable_count] = DEFAULT_PATH;
    return problem ? problem : word_count ? NULL : "no command";
}

static void answer_memory(void) {
    char text[4096];
    unsigned long long total = 0, available = 0;
    read_file("/proc/meminfo", text, sizeof text);
    const char *line = strstr(text, "MemTotal:");
    if (line) sscanf(line, "MemTotal: %llu", &total);
    line = strstr(text, "MemAvailable:");
    if (line) sscanf(line, "MemAvailable: %llu", &available);
    say("memory %llu %llu", total * 1024, available * 1024);
}

/* The limit as the guest's kernel has it. */
static void answer_pids(void) {
    char text[64] = "";
    if (pids) read_file(pids_file, text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    say("pids %s", text[0] ? text : "none");
}

static void begin_stop(void) {
    if (stopping) return;
    stopping = 1;
    kill_time = now() + GRACE_NS;
    if (workload > 0) kill(-workload, SIGTERM);
}

static void finish_stop(void) {
    if (workload > 0) kill(-workload, SIGKILL);
    say("bye");
    leave(0);
}

static void begin_workload(size_t size) {
    const char *problem = parse_spec(spec, size);
    if (challenge) say("alive %s", challenge);
    if (!problem && (guest || machine)) problem = configure_guest(hostname, address, gateway, mac);
    if (!problem && pids && (guest || machine)) problem = limit_pids(pids, machine);
    if (problem) say("fail spec: %s", problem);
    else start_workload();
}

static void take_line(const char *line, size_t *spec_left) {
    size_t size;
    if (sscanf(line, "spec %zu", &size) == 1) {
        if (size == 0 || size >= sizeof spec) say("fail spec: %zu bytes", size);
        else *spec_left = size;
    }
    else if (!strcmp(line, "ping")) say("pong");
    else if (!strcmp(line, "memory")) answer_memory();
    else if (!strcmp(line, "pids")) answer_pids();
    else if (!strcmp(line, "report")) begin_report();
    else if (!strcmp(line, "stop")) begin_stop();
}

static void take_bytes(const char *bytes, size_t size) {
    static char line[256];
    static size_t used, spec_used, spec_left;
    for (size_t i = 0; i < size; i++) {
        if (spec_left > 0) {
            spec[spec_used++] = bytes[i];
            if (--spec_left == 0) begin_workload(spec_used);
        } else if (bytes[i] == '\n') {
            line[used] = 0;
            used = 0;
            take_line(line, &spec_left);
        } else if (used < sizeof line - 1) {
            line[used++] = bytes[i];
        }
    }
}

static void read_channel(void) {
    char bytes[4096];
    ssize_t size = read(channel, bytes, sizeof bytes);
    if (size > 0) take_bytes(bytes, (size_t)size);
    else if (size == 0 || (errno != EAGAIN && errno != EINTR)) finish_stop(); /* the host is gone */
}

/* ---- the loop ---- */

static int is_device(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISCHR(info.st_mode);
}

static void connect_channel(const char *path) {
    struct sockaddr_un target = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof target.sun_path) exit(2);
    strcpy(target.sun_path, path);
    channel = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(channel, (struct sockaddr *)&target, sizeof target) < 0) {
        fprintf(stderr, "agent: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    say("init");
    fcntl(channel, F_SETFL, O_NONBLOCK);
}

/* A service of a guest: the port is a device, and the network is still to be set up. */
static void open_machine(const char *path) {
    machine = 1;
    listen_for_devices();
    channel = open_port(path);
    say("init");
}

static struct timespec *find_timeout(struct timespec *room) {
    long long when = stopping ? kill_time : -1;
    if (condition == ON_TCP && !ready && !ended && workload > 0 && probe < 0)
        when = when < 0 || next_probe < when ? next_probe : when;
    if (when < 0) return NULL;
    long long left = when - now();
    if (left < 0) left = 0;
    *room = (struct timespec){left / 1000000000, left % 1000000000};
    return room;
}

static void step(void) {
    struct pollfd polls[] = {
        {.fd = channel, .events = POLLIN},
        {.fd = signals, .events = POLLIN},
        {.fd = probe, .events = POLLOUT},
        {.fd = frame.end == 0 ? outputs[0].pipe : -1, .events = POLLIN},
        {.fd = frame.end == 0 ? outputs[1].pipe : -1, .events = POLLIN},
        {.fd = frame.end == 0 ? outputs[2].pipe : -1, .events = POLLIN},
    };
    struct timespec room;
    if (frame.end > 0 || lines.end > 0) polls[0].events |= POLLOUT;
    if (ppoll(polls, 6, find_timeout(&room), NULL) < 0) return;
    if (polls[1].revents) reap();
    step_probe();
    if (polls[0].revents & POLLOUT) flush();
    if (polls[0].revents & ~POLLOUT) read_channel();
    for (int i = 0; i < 3; i++)
        if (polls[3 + i].revents && frame.end == 0) forward(&outputs[i]);
    if (ended && !end_reported) report_end();
    if (report_ended) finish_report();
    if (stopping && (workload <= 0 || ended || now() >= kill_time)) finish_stop();
}

int main(int count, char **arguments) {
    /* The kernel hands PID 1 words of its command line that it does not know; a path is ours. */
    if (count > 1 && !strcmp(arguments[1], "--list")) return list_tree(count - 2, arguments + 2);
    if (count > 1 && !strcmp(arguments[1], "--probe")) return probe_instance(count - 2, arguments + 2);
    if (count > 1 && !strcmp(arguments[1], "--hog")) return run_hogs(count - 2, arguments + 2);
    guest = getpid() == 1 && (count < 2 || arguments[1][0] != '/');
    if (count == 3 && !strncmp(arguments[2], "--root=", 7)) root = arguments[2] + 7;
    if (guest) channel = enter_guest();
    else if (count < 2) return 2;
    else if (is_device(arguments[1])) open_machine(arguments[1]);
    else connect_channel(arguments[1]);

    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    signal(SIGPIPE, SIG_IGN);
    signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (;;) step();
}
