/*
 * probe.h: what an instance can see and do, asked from inside (`agent --probe`, PROTOCOL.md).
 *
 * Every record is raw evidence: what the kernel answered, without a rating. Nothing is changed: what
 * could hurt is not tried, and is listed with the reason.
 */
#ifndef HARNESS_PROBE_H
#define HARNESS_PROBE_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOWN_MOST 200
#define REACH_MS 1000

/* ---- names and records ---- */

static const char *name_error(int error) {
    static char number[16];
    static const struct { int error; const char *name; } names[] = {
        {0, "ok"}, {EPERM, "EPERM"}, {EACCES, "EACCES"}, {ENOSYS, "ENOSYS"}, {ENOENT, "ENOENT"},
        {EROFS, "EROFS"}, {ENXIO, "ENXIO"}, {ENODEV, "ENODEV"}, {EBUSY, "EBUSY"}, {EIO, "EIO"},
        {ENOMEM, "ENOMEM"}, {EAGAIN, "EAGAIN"}, {ENOSPC, "ENOSPC"}, {EDQUOT, "EDQUOT"},
        {ECONNREFUSED, "ECONNREFUSED"}, {ENETUNREACH, "ENETUNREACH"}, {ETIMEDOUT, "ETIMEDOUT"},
        {EHOSTUNREACH, "EHOSTUNREACH"}, {EINVAL, "EINVAL"}, {EAFNOSUPPORT, "EAFNOSUPPORT"},
        {EADDRNOTAVAIL, "EADDRNOTAVAIL"}, {EMFILE, "EMFILE"}, {EFBIG, "EFBIG"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].error == error) return names[i].name;
    snprintf(number, sizeof number, "errno-%d", error);
    return number;
}

/* A word of a record; valid until the next but one. */
static const char *as_word(const char *text) {
    static struct text words[2];
    static int turn;
    struct text *word = &words[turn ^= 1];
    word->used = 0;
    append(word, "", 0);
    append_escaped(word, *text ? text : "-");
    return word->bytes;
}

static size_t read_probe_file(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t count = file < 0 ? -1 : read(file, text, size - 1);
    text[count > 0 ? count : 0] = 0;
    if (file >= 0) close(file);
    return count > 0 ? (size_t)count : 0;
}

/* ---- the kernel and the process ---- */

static void probe_kernel(void) {
    struct utsname system;
    char text[128];
    if (uname(&system) == 0) {
        printf("kernel release %s\n", as_word(system.release));
        printf("kernel version %s\n", as_word(system.version));
    }
    read_probe_file("/proc/sys/kernel/random/boot_id", text, sizeof text);
    text[strcspn(text, "\n")] = 0;
    printf("kernel boot %s\n", as_word(text));
    /* 3 reads the whole ring buffer and leaves it as it is (syslog(2)). */
    static char log[65536];
    int size = klogctl(3, log, sizeof log);
    printf("kernel log %s %d\n", name_error(size < 0 ? errno : 0), size < 0 ? 0 : size);
}

static void probe_namespaces(void) {
    static const char *kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    char path[64], link[64];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        ssize_t size = readlink(path, link, sizeof link - 1);
        link[size > 0 ? size : 0] = 0;
        printf("namespace %s %s\n", kinds[i], size < 0 ? name_error(errno) : as_word(link));
    }
}

static void probe_status(void) {
    static const char *kept[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
                                 "Seccomp", "Seccomp_filters", "Uid"};
    static char text[8192];
    char *rest = text;
    read_probe_file("/proc/self/status", text, sizeof text);
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *value = strchr(line, ':');
        if (!value) continue;
        *value++ = 0;
        value += strspn(value, " \t");
        value[strcspn(value, " \t")] = 0;
        for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
            if (!strcmp(line, kept[i])) printf("status %s %s\n", line, as_word(value));
    }
}

static void probe_processes(void) {
    char path[300], name[64];
    int count = 0;
    DIR *folder = opendir("/proc");
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
        if (count++ >= SHOWN_MOST) continue;
        snprintf(path, sizeof path, "/proc/%s/comm", entry->d_name);
        read_probe_file(path, name, sizeof name);
        name[strcspn(name, "\n")] = 0;
        printf("process %s %s\n", entry->d_name, as_word(name));
    }
    if (folder) closedir(folder);
    printf("processes %d %s\n", count, folder ? "ok" : name_error(errno));
}

/* ---- walks: sysctls, devices, sockets ---- */

static int sysctl_count, sysctl_writable, socket_count;

/* Opening to write changes nothing here: only a write does (proc_sys_open). */
static void look_at_sysctl(const char *path, const struct stat *info) {
    if (!S_ISREG(info->st_mode)) return;
    sysctl_count++;
    if (!(info->st_mode & 0222)) return;
    int file = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return;
    close(file);
    if (sysctl_writable++ < SHOWN_MOST) printf("sysctl %s\n", as_word(path + 10));
}

/* Opening a watchdog arms it, a tape rewinds, a port is the channel itself. */
static const char *find_device_danger(const char *name) {
    if (!strncmp(name, "watchdog", 8)) return "arms-a-watchdog";
    if (!strncmp(name, "st", 2) || !strncmp(name, "nst", 3)) return "may-move-a-tape";
    if (!strncmp(name, "vport", 5)) return "is-the-channel";
    return NULL;
}

static void look_at_device(const char *path, const struct stat *info) {
    if (!S_ISCHR(info->st_mode) && !S_ISBLK(info->st_mode)) return;
    const char *slash = strrchr(path, '/'), *danger = find_device_danger(slash + 1);
    const char *outcome = danger ? danger : "ok";
    int file = danger ? -1 : open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (!danger && file < 0) outcome = name_error(errno);
    printf("device %s %c %u:%u %s\n", as_word(path), S_ISCHR(info->st_mode) ? 'c' : 'b',
           major(info->st_rdev), minor(info->st_rdev), outcome);
    if (file >= 0) close(file);
}

static void look_at_socket(const char *path, const struct stat *info) {
    if (S_ISSOCK(info->st_mode) && socket_count++ < SHOWN_MOST)
        printf("socket %s\n", as_word(path));
}

static void walk(const char *path, int depth, void (*look)(const char *, const struct stat *)) {
    char inner[4096];
    struct stat info;
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        int size = snprintf(inner, sizeof inner, "%s/%s", strcmp(path, "/") ? path : "", entry->d_name);
        if (size >= (int)sizeof inner || !strcmp(inner, "/proc") || !strcmp(inner, "/sys")) continue;
        if (lstat(inner, &info) < 0) continue;
        if (S_ISDIR(info.st_mode) && depth > 0) walk(inner, depth - 1, look);
        else look(inner, &info);
    }
    if (folder) closedir(folder);
}

static void probe_files(void) {
    walk("/proc/sys", 8, look_at_sysctl);
    printf("sysctls %d %d\n", sysctl_writable, sysctl_count);
    walk("/dev", 4, look_at_device);
    walk("/", 16, look_at_socket);
    printf("sockets %d\n", socket_count);
}

/* Target, kind and whether it can be written: neither the mount nor its file system is `ro`. */
static void probe_mounts(void) {
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && getline(&line, &room, file) > 0) {
        char target[1024] = "", options[1024] = "", kind[64] = "", super[4096] = "";
        char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %*s %*s %1023s %1023s", target, options) < 2) continue;
        sscanf(rest, " - %63s %*s %4095s", kind, super);
        int fixed = !strncmp(options, "ro", 2) || !strcmp(super, "ro") || !strncmp(super, "ro,", 3);
        printf("mount %s %s %s\n", target, kind, fixed ? "ro" : "rw");
    }
    if (file) fclose(file);
    else printf("mount-table %s\n", name_error(errno));
    free(line);
}

/* ---- the network ---- */

static void probe_network(void) {
    char *line = NULL, name[64], to[16], via[16], mask[16];
    size_t room = 0;
    struct if_nameindex *all = if_nameindex();
    for (struct if_nameindex *each = all; each && each->if_name; each++)
        printf("interface %s\n", as_word(each->if_name));
    if (all) if_freenameindex(all);
    FILE *file = fopen("/proc/net/route", "re");
    while (file && getline(&line, &room, file) > 0)
        if (sscanf(line, "%63s %15s %15s %*s %*s %*s %*s %15s", name, to, via, mask) == 4 &&
            strcmp(name, "Iface")) printf("route %s %s %s %s\n", name, to, via, mask);
    if (file) fclose(file);
    int seen = 0, abstract = 0;
    file = fopen("/proc/net/unix", "re");
    while (file && getline(&line, &room, file) > 0) {
        seen++;
        if (strstr(line, " @")) abstract++;
    }
    printf("unix-sockets %d %d\n", seen > 0 ? seen - 1 : 0, abstract);
    if (file) fclose(file);
    free(line);
}

/* The listener on the host says a word; to have read it is the proof that it was reached. */
static void hear(const char *target, int end, int error) {
    char word[65] = "";
    struct pollfd state = {.fd = end, .events = POLLOUT};
    socklen_t size = sizeof error;
    if (error == EINPROGRESS) {
        error = ETIMEDOUT;
        if (poll(&state, 1, REACH_MS) > 0) getsockopt(end, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    state.events = POLLIN;
    ssize_t count = !error && poll(&state, 1, REACH_MS) > 0 ? read(end, word, sizeof word - 1) : 0;
    word[count > 0 ? count : 0] = 0;
    printf("reach %s %s %s\n", target, error ? name_error(error) : count > 0 ? "ok" : "silent",
           as_word(word));
    close(end);
}

/* tcp:ADDRESS:PORT, abstract:NAME or path:PATH. */
static void probe_reach(const char *target) {
    char address[64] = "";
    int port = 0;
    struct sockaddr_in inet = {.sin_family = AF_INET};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    const struct sockaddr *where = (struct sockaddr *)&local;
    socklen_t size = sizeof local;
    const char *name = strchr(target, ':') + 1;
    if (sscanf(target, "tcp:%63[0-9.]:%d", address, &port) == 2) {
        inet.sin_addr.s_addr = inet_addr(address);
        inet.sin_port = htons((uint16_t)port);
        where = (struct sockaddr *)&inet;
        size = sizeof inet;
    } else {
        int abstract = !strncmp(target, "abstract:", 9);
        snprintf(local.sun_path + abstract, sizeof local.sun_path - 1, "%s", name);
        size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract + strlen(name));
    }
    int end = socket(where->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (end < 0) printf("reach %s %s -\n", target, name_error(errno));
    else hear(target, end, connect(end, where, size) < 0 ? errno : 0);
}

/* ---- system calls ---- */

/* Numbers of x86-64; those after the last one are not asked. */
#define CALL_LAST 461
enum { NOT_ASKED, ANSWERED, REFUSED, DENIED, UNKNOWN, WAITED, KILLED, LEFT_OUT };

static const struct { long number; const char *name, *reason; } left_out_calls[] = {
    {SYS_rt_sigreturn, "rt_sigreturn", "returns-from-no-signal"},
    {SYS_pause, "pause", "waits-for-ever"},
    {SYS_alarm, "alarm", "would-undo-the-time-limit"},
    {SYS_clone, "clone", "makes-a-process"},
    {SYS_fork, "fork", "makes-a-process"},
    {SYS_vfork, "vfork", "makes-a-process"},
    {SYS_clone3, "clone3", "makes-a-process"},
    {SYS_exit, "exit", "ends-the-asker"},
    {SYS_exit_group, "exit_group", "ends-the-asker"},
    {SYS_kill, "kill", "could-signal-others"},
    {SYS_tkill, "tkill", "could-signal-others"},
    {SYS_vhangup, "vhangup", "hangs-up-a-terminal"},
    {SYS_sync, "sync", "writes-back-the-whole-host"},
    {SYS_acct, "acct", "would-change-accounting"},
    {SYS_swapon, "swapon", "would-change-swap"},
    {SYS_swapoff, "swapoff", "would-change-swap"},
    {SYS_reboot, "reboot", "could-stop-the-host"},
    {SYS_kexec_load, "kexec_load", "could-replace-the-kernel"},
    {SYS_kexec_file_load, "kexec_file_load", "could-replace-the-kernel"},
};

static unsigned char *answers; /* shared with the asker: [0] to [CALL_LAST], then the one in work */

/* Arguments that no call takes, but for the few that would then say ENOSYS or make something. */
static long call(long number) {
    static int word;
    if (number == SYS_futex) return syscall(number, &word, 1, 0, 0, 0, 0);
    if (number == SYS_modify_ldt) return syscall(number, 0, &word, 0);
    if (number == SYS_msgget) return syscall(number, 1, 0);
    if (number == SYS_semget || number == SYS_shmget) return syscall(number, 1, 0, 0);
    return syscall(number, -1l, -1l, -1l, -1l, -1l, -1l);
}

static _Noreturn void ask_from(long number, volatile int *current) {
    signal(SIGALRM, SIG_DFL);
    signal(SIGSYS, SIG_DFL);
    for (; number <= CALL_LAST; number++) {
        if (answers[number] != NOT_ASKED) continue;
        *current = (int)number;
        alarm(1);
        errno = 0;
        long value = call(number);
        int error = value < 0 ? errno : 0;
        answers[number] = error == EPERM ? REFUSED : error == EACCES ? DENIED
                        : error == ENOSYS ? UNKNOWN : ANSWERED;
    }
    _exit(0);
}

static void print_calls(const char *word, int kind) {
    int count = 0;
    for (int i = 0; i <= CALL_LAST; i++) count += answers[i] == kind;
    printf("calls %s %d ", word, count);
    for (int i = 0, begun = 0; i <= CALL_LAST; i++) {
        if (answers[i] != kind) continue;
        int last = i;
        while (last < CALL_LAST && answers[last + 1] == kind) last++;
        printf(last > i ? "%s%d-%d" : "%s%d", begun++ ? "," : "", i, last);
        i = last;
    }
    printf(count ? "\n" : "-\n");
}

/* One asker after the other: what a call did to it ends with it. */
static void probe_calls(void) {
    const size_t size = 4096;
    answers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (answers == MAP_FAILED) stop_listing("memory");
    volatile int *current = (int *)(answers + 2048);
    for (size_t i = 0; i < sizeof left_out_calls / sizeof *left_out_calls; i++) {
        answers[left_out_calls[i].number] = LEFT_OUT;
        printf("call-left-out %ld %s %s\n", left_out_calls[i].number, left_out_calls[i].name,
               left_out_calls[i].reason);
    }
    fflush(stdout);
    for (int i = 335; i <= 423; i++) answers[i] = LEFT_OUT; /* no call has these numbers */
    for (*current = -1; *current < CALL_LAST;) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) ask_from(*current + 1, current);
        if (child < 0 || waitpid(child, &status, 0) < 0) stop_listing("fork");
        if (WIFEXITED(status)) break;
        int how = WTERMSIG(status);
        answers[*current] = how == SIGSYS ? KILLED : how == SIGALRM ? WAITED : ANSWERED;
    }
    print_calls("answered", ANSWERED);
    print_calls("EPERM", REFUSED);
    print_calls("EACCES", DENIED);
    print_calls("ENOSYS", UNKNOWN);
    print_calls("waited", WAITED);
    print_calls("killed", KILLED);
}

/* `agent --probe [tcp:ADDRESS:PORT | abstract:NAME | path:PATH]…`; the last record is `end`. */
static int probe_instance(int count, char **targets) {
    signal(SIGPIPE, SIG_IGN);
    probe_kernel();
    probe_namespaces();
    probe_status();
    probe_processes();
    probe_files();
    probe_mounts();
    probe_network();
    for (int i = 0; i < count; i++)
        if (strchr(targets[i], ':')) probe_reach(targets[i]);
    probe_calls();
    puts("end");
    return fflush(stdout) == 0 ? 0 : 1;
}

#endif
