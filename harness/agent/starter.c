/*
 * starter: the lean host-side helper of one instance.
 *
 * It listens on the instance's channel and console sockets, stamps what arrives with
 * CLOCK_MONOTONIC and passes it to Python; and it starts containers, so that no large process is
 * forked inside the timed window. Protocol with the agent: PROTOCOL.md. Protocol with Python:
 *
 *   argv[1] is the number of an inherited SOCK_SEQPACKET socket. A request is NUL-terminated "key=value" records, the
 *   first being "verb=...":
 *     listen   channel=PATH [console=PATH] [log=PATH] [when=init]; the next packet is the agent's
 *              spec, raw: sent at the connection, or when the agent has said `init`
 *     prepare  mode=chroot|namespace|command, lower= upper= work= merged= run= [cgroup=DIR...] arg=...
 *              [hostname=] [gain=] [bridge= veth= address= gateway=]; for a command also [env=NAME=VALUE...]
 *              [output=PATH] for what it prints, [status=PATH] as its descriptor 3
 *     watch    name=MILESTONE path=PATH: an event NAME as soon as the file is there and not empty;
 *              one component of the path may be `*`, which stands for the first folder
 *     go       [due=NS] start what was prepared; an event "request" has the stamp of its arrival, or
 *              of the moment NS (CLOCK_MONOTONIC) at which it is to be made
 *     send     line=TEXT to the agent
 *     ping     count=N echo round trips
 *   An event is "STAMP SOURCE TEXT" (output events: a newline and the bytes follow).
 *
 * When Python's end closes, everything started is killed, mounts are undone, and it exits.
 *
 * `starter link BRIDGE VETH ADDRESS [GATEWAY]` is a hook for OCI runtimes: it connects the container
 * whose state (JSON with its "pid") stands on stdin to the bridge, as the namespace platform does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX (128 * 1024)
#define LINE_MAX_BYTES 4096
#define MANY 192

struct request {
    const char *verb, *mode, *channel, *console, *log, *lower, *upper, *work, *merged, *run;
    const char *hostname, *bridge, *veth, *address, *gateway, *line, *count;
    const char *output, *status, *name, *path, *gain, *due, *when;
    const char *cgroups[MANY];
    char *args[MANY + 1], *env[MANY + 1];
    int cgroup_count, arg_count, env_count;
};

static char request_buffer[PACKET_MAX], packet[PACKET_MAX];
static struct request prepared;
static int control = -1;
static pid_t launcher;
static int go_pipe = -1, network_pipe[2] = {-1, -1};
static char *spec;
static size_t spec_size;
static int spec_waits; /* for the agent's `init`: a guest's firmware may read what comes before */

/* ---- events ---- */

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void emit_bytes(uint64_t stamp, const char *head, const char *bytes, size_t size) {
    static char event[PACKET_MAX + 128];
    int length = snprintf(event, 128, "%llu %s", (unsigned long long)stamp, head);
    memcpy(event + length, bytes, size);
    while (send(control, event, (size_t)length + size, MSG_NOSIGNAL) < 0 && errno == EINTR) { }
}

static void emit(uint64_t stamp, const char *source, const char *format, ...) {
    char text[LINE_MAX_BYTES + 64], head[32];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(head, sizeof head, "%s ", source);
    emit_bytes(stamp, head, text, strlen(text));
}

static _Noreturn void die(const char *what) {
    if (control >= 0) emit(now(), "launch", "fail %s: %s", what, strerror(errno));
    else dprintf(2, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

#define TRY(call, what) do { if ((call) < 0) die(what); } while (0)

#include "container.h"

/* ---- requests ---- */

static void parse_request(struct request *request, char *bytes, size_t size) {
    struct { const char *key; const char **value; } table[] = {
        {"verb", &request->verb}, {"mode", &request->mode}, {"channel", &request->channel},
        {"console", &request->console}, {"log", &request->log}, {"lower", &request->lower},
        {"upper", &request->upper}, {"work", &request->work}, {"merged", &request->merged},
        {"run", &request->run}, {"hostname", &request->hostname}, {"bridge", &request->bridge},
        {"veth", &request->veth}, {"address", &request->address}, {"line", &request->line},
        {"gateway", &request->gateway}, {"count", &request->count}, {"output", &request->output},
        {"status", &request->status}, {"name", &request->name}, {"path", &request->path},
        {"gain", &request->gain}, {"due", &request->due}, {"when", &request->when},
    };
    memset(request, 0, sizeof *request);
    for (char *record = bytes; record < bytes + size; record += strlen(record) + 1) {
        char *value = strchr(record, '=');
        if (!value) continue;
        size_t length = (size_t)(value++ - record);
        if (length == 3 && !strncmp(record, "arg", 3) && request->arg_count < MANY)
            request->args[request->arg_count++] = value;
        else if (length == 3 && !strncmp(record, "env", 3) && request->env_count < MANY)
            request->env[request->env_count++] = value;
        else if (length == 6 && !strncmp(record, "cgroup", 6) && request->cgroup_count < MANY)
            request->cgroups[request->cgroup_count++] = value;
        else
            for (size_t i = 0; i < sizeof table / sizeof *table; i++)
                if (strlen(table[i].key) == length && !strncmp(record, table[i].key, length))
                    *table[i].value = value;
    }
}

/* ---- small things ---- */

static int write_file(const char *folder, const char *name, const char *text) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return -1;
    ssize_t written = write(file, text, strlen(text));
    close(file);
    return written < 0 ? -1 : 0;
}

/* A socket's path has little room (unix(7)): its folder goes by the number of a descriptor. */
static int listen_on(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char folder[4096];
    const char *name = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", name ? (int)(name - path) : 0, path);
    int place = open(folder[0] ? folder : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    TRY(place, folder);
    int size = snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", place,
                        name ? name + 1 : path);
    if (size >= (int)sizeof address.sun_path) { errno = ENAMETOOLONG; die(path); }
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    TRY(listener, "socket");
    TRY(bind(listener, (struct sockaddr *)&address, sizeof address), path);
    close(place);
    chmod(path, 0666);
    TRY(listen(listener, 1), path);
    return listener;
}

static void write_all(int file, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(file, bytes, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;
        bytes += written;
        size -= (size_t)written;
    }
}

/* ---- starting ---- */

static _Noreturn void execute(char **args, char **environment) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(args[0], args, environment);
    die(args[0]);
}

static void mount_root(void) {
    mount_overlay(prepared.lower, prepared.upper, prepared.work, prepared.merged);
    TRY(mount(prepared.run, below(prepared.merged, "/.harness/run"), NULL, MS_BIND, NULL), "channel");
}

static char *own_environment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};

static void become_container(void) {
    TRY(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
    mount_root();
    populate_root(prepared.merged);
    change_root(prepared.merged);
    if (prepared.hostname) TRY(sethostname(prepared.hostname, strlen(prepared.hostname)), "hostname");
    if (prepared.bridge) {
        char byte;
        close(network_pipe[1]);
        if (read(network_pipe[0], &byte, 1) != 1) _exit(1); /* the launcher has told why */
    }
    configure_network(prepared.bridge ? prepared.address : NULL, prepared.gateway);
    drop_privileges(prepared.gain != NULL);
    execute(prepared.args, own_environment);
}

/* clone3 with no stack of its own acts as fork; stdio of an instance is /dev/null. */
static pid_t clone_instance(uint64_t flags) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

/*
 * The launcher lives in the instance's cgroup before the clock starts (joining one waits for an
 * RCU grace period), clones the instance into it, and ends; the instance is then the starter's.
 */
static void open_as(int descriptor, const char *path, int flags) {
    int file = open(path, flags | O_APPEND, 0644);
    TRY(file, path);
    if (file != descriptor) TRY(dup2(file, descriptor), path);
}

/* An engine's command: the launcher itself becomes it. Its root's overlay is mounted in the timed
 * window, as the namespace platform does it. */
static _Noreturn void run_command(void) {
    if (prepared.lower) mount_overlay(prepared.lower, prepared.upper, prepared.work, prepared.merged);
    if (prepared.status) {
        if (control == 3) control = -1;
        open_as(3, prepared.status, O_CREAT | O_WRONLY);
    }
    execute(prepared.args, prepared.env);
}

static _Noreturn void launch(int go) {
    int isolated = !strcmp(prepared.mode, "namespace"), command = !strcmp(prepared.mode, "command");
    char byte;
    if (!isolated && !command) {
        mount_root();
        TRY(mount("/proc", below(prepared.merged, "/proc"), NULL, MS_BIND, NULL), "/proc");
        TRY(mount("/sys", below(prepared.merged, "/sys"), NULL, MS_BIND | MS_REC, NULL), "/sys");
        TRY(mount("/dev", below(prepared.merged, "/dev"), NULL, MS_BIND | MS_REC, NULL), "/dev");
    }
    for (int i = 0; i < prepared.cgroup_count; i++)
        TRY(write_file(prepared.cgroups[i], "cgroup.procs", "0"), prepared.cgroups[i]);
    if (prepared.output) {
        open_as(1, prepared.output, O_CREAT | O_WRONLY);
        TRY(dup2(1, 2), prepared.output);
    }
    emit(now(), "launch", "prepared");
    if (read(go, &byte, 1) != 1) _exit(0);
    if (command) run_command();
    pid_t pid = clone_instance(isolated ? CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC |
                                              CLONE_NEWNET | CLONE_NEWCGROUP
                                        : 0);
    if (pid == 0 && isolated) become_container();
    if (pid == 0) {
        TRY(chroot(prepared.merged), "chroot");
        TRY(chdir("/"), "/");
        execute(prepared.args, own_environment);
    }
    uint64_t stamp = now();
    TRY(pid, "clone");
    emit(stamp, "launch", "created %d", pid);
    if (isolated && prepared.bridge) {
        add_veth(prepared.bridge, prepared.veth, pid);
        write_all(network_pipe[1], "g", 1);
    }
    _exit(0);
}

static void prepare(void) {
    int pipe_ends[2];
    static char kept[PACKET_MAX];
    ptrdiff_t shift = kept - request_buffer;
    memcpy(kept, request_buffer, sizeof kept);
    const char **texts = (const char **)&prepared; /* every member before cgroup_count is a pointer */
    for (size_t i = 0; i < offsetof(struct request, cgroup_count) / sizeof *texts; i++)
        if (texts[i]) texts[i] += shift;
    TRY(pipe2(pipe_ends, O_CLOEXEC), "pipe");
    TRY(pipe2(network_pipe, O_CLOEXEC), "pipe");
    launcher = fork();
    TRY(launcher, "fork");
    if (launcher == 0) {
        close(pipe_ends[1]);
        launch(pipe_ends[0]);
    }
    close(pipe_ends[0]);
    close(network_pipe[0]);
    close(network_pipe[1]);
    go_pipe = pipe_ends[1];
}

/* ---- files that engines write: the appearance of one is a milestone ---- */

struct watch {
    char name[32], path[1024];
    int done;
};

static struct watch watches[4];
static int watch_count, notifier = -1;

/* The first folder in `folder`, for a component whose name the engine makes up. */
static int find_folder(const char *folder, char *name, size_t size) {
    struct dirent *entry;
    DIR *listing = opendir(folder);
    if (!listing) return 0;
    while ((entry = readdir(listing)) && (entry->d_name[0] == '.' || entry->d_type != DT_DIR)) { }
    if (entry) snprintf(name, size, "%s", entry->d_name);
    closedir(listing);
    return entry != NULL;
}

/*
 * Whether the file is there with something in it; else the deepest folder on the way to it that
 * exists is watched. A folder that appears between the look and the watch is found in the next
 * round, since the watch is set before the look.
 */
static int look_for(const char *path) {
    char where[2048] = "", name[256];
    struct stat info;
    while (*path) {
        size_t length = strcspn(++path, "/");
        const uint32_t events = IN_CREATE | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ONLYDIR;
        if (inotify_add_watch(notifier, where[0] ? where : "/", events) < 0) return 0;
        snprintf(name, sizeof name, "%.*s", (int)length, path);
        if (!strcmp(name, "*") && !find_folder(where, name, sizeof name)) return 0;
        strncat(where, "/", sizeof where - strlen(where) - 1);
        strncat(where, name, sizeof where - strlen(where) - 1);
        if (stat(where, &info) < 0) return 0;
        path += length;
    }
    return S_ISREG(info.st_mode) && info.st_size > 0;
}

static void look_for_all(void) {
    for (int i = 0; i < watch_count; i++) {
        if (watches[i].done) continue;
        uint64_t stamp = now();
        if (!look_for(watches[i].path)) continue;
        watches[i].done = 1;
        emit(stamp, "launch", "%s", watches[i].name);
    }
}

static void add_watch(const char *name, const char *path) {
    if (!name || !path || watch_count == (int)(sizeof watches / sizeof *watches)) return;
    if (notifier < 0) notifier = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    struct watch *added = &watches[watch_count++];
    snprintf(added->name, sizeof added->name, "%s", name);
    snprintf(added->path, sizeof added->path, "%s", path);
    look_for_all();
}

static void read_notifier(void) {
    while (read(notifier, packet, sizeof packet) > 0) { }
    look_for_all();
}

/* ---- what arrives from the instance ---- */

struct stream {
    int listener, connection;
    char line[LINE_MAX_BYTES];
    size_t used;      /* of line */
    size_t raw_left;  /* bytes of an "out" frame still to come */
    int raw_fd, seen;
};

static struct stream channel = {.listener = -1, .connection = -1};
static struct stream console = {.listener = -1, .connection = -1};
static int log_file = -1;
static int pings_left;
static uint64_t ping_sent;

static void send_ping(void) {
    ping_sent = now();
    write_all(channel.connection, "ping\n", 5);
}

static void send_spec(void) {
    char head[32];
    if (spec_size == 0 || channel.connection < 0) return;
    int length = snprintf(head, sizeof head, "spec %zu\n", spec_size);
    write_all(channel.connection, head, (size_t)length);
    write_all(channel.connection, spec, spec_size);
    spec_size = 0;
}

/* Either comes first: the agent's word on the console, or QEMU's or libvirt's end of the channel. */
static void take_init(void) {
    spec_waits = 0;
    send_spec();
}

static void take_channel_line(uint64_t stamp, const char *line) {
    unsigned long size;
    if (!strcmp(line, "pong") && pings_left > 0) {
        emit(stamp, "launch", "rtt %llu", (unsigned long long)(stamp - ping_sent));
        if (--pings_left > 0) send_ping();
    } else if (sscanf(line, "out %d %lu", &channel.raw_fd, &size) == 2) {
        channel.raw_left = size;
    } else {
        if (!strcmp(line, "init")) take_init();
        emit(stamp, "channel", "%s", line);
    }
}

static void take_console_line(uint64_t stamp, const char *line) {
    const char *own = strstr(line, "@harness ");
    if (own && !strcmp(own, "@harness boot")) console.seen = 0; /* what comes next is the kernel's */
    if (own && !strcmp(own, "@harness init")) take_init();
    if (own) emit(stamp, "console", "%s", own + strlen("@harness "));
    else if (strstr(line, "Kernel panic")) emit(stamp, "console", "panic %s", line);
}

static size_t take_raw(uint64_t stamp, const char *bytes, size_t size) {
    char head[32];
    size_t part = size < channel.raw_left ? size : channel.raw_left;
    snprintf(head, sizeof head, "output %d\n", channel.raw_fd);
    emit_bytes(stamp, head, bytes, part);
    channel.raw_left -= part;
    return part;
}

static void take_bytes(struct stream *stream, uint64_t stamp, const char *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (stream == &channel && stream->raw_left > 0) {
            i += take_raw(stamp, bytes + i, size - i) - 1;
            continue;
        }
        char byte = bytes[i];
        if (stream == &console && !stream->seen && byte != '\n' && byte != '\r') {
            stream->seen = 1; /* a boot loader may still end its line after its last word */
            emit(stamp, "console", "first");
        }
        if (byte != '\n' && byte != '\r' && stream->used < sizeof stream->line - 1) {
            stream->line[stream->used++] = byte;
        } else if (stream->used > 0) {
            stream->line[stream->used] = 0;
            stream->used = 0;
            if (stream == &channel) take_channel_line(stamp, stream->line);
            else take_console_line(stamp, stream->line);
        }
    }
}

static void read_stream(struct stream *stream) {
    uint64_t stamp = now();
    ssize_t size = read(stream->connection, packet, sizeof packet / 2);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (size <= 0) {
        emit(stamp, stream == &channel ? "channel" : "console", "closed");
        close(stream->connection);
        stream->connection = -1;
        return;
    }
    if (stream == &console) {
        if (log_file >= 0) write_all(log_file, packet, (size_t)size);
    }
    take_bytes(stream, stamp, packet, (size_t)size);
}

static void accept_stream(struct stream *stream) {
    stream->connection = accept4(stream->listener, NULL, NULL, SOCK_CLOEXEC);
    if (stream->connection < 0) return;
    close(stream->listener);
    stream->listener = -1;
    if (stream == &channel && !spec_waits) send_spec();
}

/* ---- what Python asks ---- */

static void start_listening(const struct request *request) {
    if (request->log) {
        log_file = open(request->log, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
        TRY(log_file, request->log);
    }
    if (request->console) console.listener = listen_on(request->console);
    channel.listener = listen_on(request->channel);
    ssize_t size = recv(control, packet, sizeof packet, 0);
    if (size < 0) die("spec");
    spec_waits = request->when != NULL;
    spec_size = (size_t)size;
    spec = malloc(spec_size + 1);
    if (!spec) die("spec");
    memcpy(spec, packet, spec_size);
    emit(now(), "launch", "listening");
}

/* Wait for a moment on the clock of `now`; false if Python has something to say before it: then it
 * has gone. A start among many is so made in time, whatever Python is doing for the others. */
static int wait_until(uint64_t due) {
    struct pollfd python = {.fd = control, .events = POLLIN};
    for (uint64_t time; (time = now()) < due;) {
        struct timespec left = {.tv_sec = (time_t)((due - time) / 1000000000u),
                                .tv_nsec = (long)((due - time) % 1000000000u)};
        if (ppoll(&python, 1, &left, NULL) > 0) return 0;
    }
    return 1;
}

static int serve_request(void) {
    ssize_t size = recv(control, request_buffer, sizeof request_buffer - 1, 0);
    if (size <= 0) return 0;
    struct request request;
    request_buffer[size] = 0;
    parse_request(&request, request_buffer, (size_t)size);
    if (!request.verb) return 1;
    if (!strcmp(request.verb, "go")) {
        if (request.due && !wait_until(strtoull(request.due, NULL, 10))) return 1;
        uint64_t stamp = now(); /* the way from Python to here is the harness's, not the platform's */
        write_all(go_pipe, "g", 1);
        emit(stamp, "launch", "request");
        if (!strcmp(prepared.mode, "command")) emit(now(), "launch", "running %d", launcher);
    } else if (!strcmp(request.verb, "watch")) {
        add_watch(request.name, request.path);
    } else if (!strcmp(request.verb, "listen")) {
        start_listening(&request);
    } else if (!strcmp(request.verb, "prepare")) {
        prepared = request;
        prepare();
    } else if (!strcmp(request.verb, "send") && channel.connection >= 0) {
        write_all(channel.connection, request.line, strlen(request.line));
        write_all(channel.connection, "\n", 1);
    } else if (!strcmp(request.verb, "ping") && channel.connection >= 0) {
        pings_left = atoi(request.count);
        if (pings_left > 0) send_ping();
    }
    return 1;
}

static void reap_children(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == launcher && WIFSIGNALED(status) && strcmp(prepared.mode, "command"))
            emit(now(), "launch", "fail its launcher was ended by signal %d", WTERMSIG(status));
        if (WIFSIGNALED(status)) emit(now(), "launch", "ended %d signal %d", pid, WTERMSIG(status));
        else emit(now(), "launch", "ended %d code %d", pid, WEXITSTATUS(status));
    }
}

static void kill_children(void) {
    char path[64], pids[4096];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    for (int round = 0; round < 1000; round++) {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t size = file < 0 ? 0 : read(file, pids, sizeof pids - 1);
        if (file >= 0) close(file);
        if (size <= 0) return;
        pids[size] = 0;
        for (char *next = pids, *end; *next; next = end) {
            long pid = strtol(next, &end, 10);
            if (end == next) break;
            kill((pid_t)pid, SIGKILL);
        }
        waitpid(-1, NULL, 0);
    }
}

static void add_poll(struct pollfd *polls, struct stream **streams, int *count, struct stream *stream) {
    int descriptor = stream->connection >= 0 ? stream->connection : stream->listener;
    if (descriptor < 0) return;
    polls[*count] = (struct pollfd){.fd = descriptor, .events = POLLIN};
    streams[(*count)++] = stream;
}

/*
 * A stamp is true only if the starter runs as soon as a line arrives, also when the scheduler would
 * let the instance go on first on the same CPU. It works for microseconds at a time; its children
 * are ordinary again (SCHED_RESET_ON_FORK). Where the host forbids it, the stamps are a bit later.
 */
static void become_prompt(void) {
    struct sched_param lowest = {.sched_priority = 1};
    if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) < 0)
        (void)!nice(-20);
}

/* As a hook of an OCI runtime: the state on stdin names the container's first process. */
static int link_container(int count, char **arguments) {
    char state[8192];
    ssize_t size = 0, part;
    while ((part = read(0, state + size, sizeof state - 1 - (size_t)size)) > 0) size += part;
    state[size] = 0;
    const char *found = strstr(state, "\"pid\"");
    int pid = 0;
    if (!found || sscanf(found + 5, " : %d", &pid) != 1 || pid <= 0) {
        errno = ESRCH;
        die("the runtime's state names no process");
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/net", pid);
    int space = open(path, O_RDONLY | O_CLOEXEC);
    TRY(space, path);
    add_veth(arguments[0], arguments[1], pid);
    TRY(setns(space, CLONE_NEWNET), path);
    configure_network(arguments[2], count > 3 ? arguments[3] : NULL);
    return 0;
}

int main(int count_of_arguments, char **arguments) {
    if (count_of_arguments > 4 && !strcmp(arguments[1], "link"))
        return link_container(count_of_arguments - 2, arguments + 2);
    if (count_of_arguments != 2) return 2;
    control = atoi(arguments[1]);
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    signal(SIGPIPE, SIG_IGN);
    umask(022); /* an instance has this from its starter: the user's own is no part of it */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    become_prompt();
    fcntl(control, F_SETFD, FD_CLOEXEC);
    int reaper = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
    for (;;) {
        struct pollfd polls[5] = {{.fd = control, .events = POLLIN},
                                  {.fd = reaper, .events = POLLIN},
                                  {.fd = notifier, .events = POLLIN}};
        struct stream *streams[5] = {0};
        int count = 3;
        add_poll(polls, streams, &count, &channel);
        add_poll(polls, streams, &count, &console);
        if (poll(polls, (nfds_t)count, -1) < 0 && errno != EINTR) break;
        if (polls[2].revents) read_notifier();
        for (int i = 3; i < count; i++) {
            if (!polls[i].revents) continue;
            if (streams[i]->connection >= 0) read_stream(streams[i]);
            else accept_stream(streams[i]);
        }
        if (polls[1].revents) {
            struct signalfd_siginfo signals[8];
            while (read(reaper, signals, sizeof signals) > 0) { }
            reap_children();
        }
        if (polls[0].revents && !serve_request()) break;
    }
    kill_children();
    if (prepared.merged && strcmp(prepared.mode, "namespace")) umount2(prepared.merged, MNT_DETACH);
    return 0;
}
