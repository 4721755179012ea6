/*
 * The yardstick for `namespace`: one C program that does the same clone, mounts, pivot_root,
 * capability drop and exec, waits for the command to end, and does nothing else.
 *
 *   reference_container LOWER UPPER WORK MERGED RUN COMMAND [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <net/route.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    _exit(1);
}

#define TRY(call, what) do { if ((call) < 0) die(what); } while (0)

#include "container.h"

int main(int count, char **arguments) {
    if (count < 7) return 2;
    struct clone_args clone = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
                 CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    pid_t pid = (pid_t)syscall(SYS_clone3, &clone, sizeof clone);
    TRY(pid, "clone");
    if (pid == 0) {
        static char *environment[] = {"PATH=/usr/bin:/bin", NULL};
        TRY(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private mounts");
        mount_overlay(arguments[1], arguments[2], arguments[3], arguments[4]);
        TRY(mount(arguments[5], below(arguments[4], "/.harness/run"), NULL, MS_BIND, NULL), "run");
        populate_root(arguments[4]);
        change_root(arguments[4]);
        TRY(sethostname("reference", 9), "hostname");
        configure_network(NULL, NULL);
        drop_privileges(0);
        execve(arguments[6], arguments + 6, environment);
        die(arguments[6]);
    }
    int status;
    TRY(waitpid(pid, &status, 0), "wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
