/*
 * container.h: what makes a process a container, in the order in which starter.c does it: overlay
 * and special file systems, pivot_root, network, capabilities. Each step ends the process with its
 * reason when it fails. Included by starter.c only, which gives `die` and `TRY`.
 */
#ifndef HARNESS_CONTAINER_H
#define HARNESS_CONTAINER_H

/* The capabilities that container engines leave to root by default. */
static const uint64_t KEPT_CAPABILITIES =
    1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID |
    1ull << CAP_KILL | 1ull << CAP_SETGID | 1ull << CAP_SETUID | 1ull << CAP_SETPCAP |
    1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_NET_RAW | 1ull << CAP_SYS_CHROOT |
    1ull << CAP_MKNOD | 1ull << CAP_AUDIT_WRITE | 1ull << CAP_SETFCAP;

static const char *below(const char *root, const char *path) {
    static char buffers[4][4096];
    static int turn;
    char *buffer = buffers[turn++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s%s", root, path);
    return buffer;
}

/* ---- network: one veth pair, made with its far end already inside the container ---- */

static struct rtattr *add_attribute(struct nlmsghdr *message, int type, const void *data, size_t size) {
    struct rtattr *attribute = (struct rtattr *)((char *)message + NLMSG_ALIGN(message->nlmsg_len));
    attribute->rta_type = (unsigned short)type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    if (size) memcpy(RTA_DATA(attribute), data, size);
    message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len) + RTA_ALIGN(attribute->rta_len);
    return attribute;
}

static void end_attribute(struct nlmsghdr *message, struct rtattr *attribute) {
    attribute->rta_len = (unsigned short)((char *)message + message->nlmsg_len - (char *)attribute);
}

static void add_veth(const char *bridge, const char *name, pid_t peer) {
    struct { struct nlmsghdr header; struct ifinfomsg link; char room[1024]; } message = {
        .header = {.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)), .nlmsg_type = RTM_NEWLINK,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK},
        .link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP},
    };
    struct nlmsghdr *header = &message.header;
    uint32_t master = if_nametoindex(bridge);
    if (!master) die(bridge);
    add_attribute(header, IFLA_IFNAME, name, strlen(name) + 1);
    add_attribute(header, IFLA_MASTER, &master, sizeof master);
    struct rtattr *info = add_attribute(header, IFLA_LINKINFO, NULL, 0);
    add_attribute(header, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *data = add_attribute(header, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *far = add_attribute(header, VETH_INFO_PEER, NULL, 0);
    header->nlmsg_len += sizeof(struct ifinfomsg); /* of the peer, all zero */
    uint32_t pid = (uint32_t)peer;
    add_attribute(header, IFLA_IFNAME, "eth0", 5);
    add_attribute(header, IFLA_NET_NS_PID, &pid, sizeof pid);
    end_attribute(header, far);
    end_attribute(header, data);
    end_attribute(header, info);

    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    TRY(netlink, "netlink");
    TRY(send(netlink, &message, header->nlmsg_len, 0), "netlink");
    struct { struct nlmsghdr header; struct nlmsgerr error; char room[1024]; } answer;
    TRY(recv(netlink, &answer, sizeof answer, 0), "netlink");
    close(netlink);
    if (answer.header.nlmsg_type == NLMSG_ERROR && answer.error.error) {
        errno = -answer.error.error;
        die("veth");
    }
}

static void set_up_interface(int inet, const char *name) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    TRY(ioctl(inet, SIOCSIFFLAGS, &request), name);
}

static void set_address(int inet, const char *name, unsigned long code, in_addr_t address) {
    struct ifreq request = {0};
    struct sockaddr_in *where = (struct sockaddr_in *)&request.ifr_addr;
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    where->sin_family = AF_INET;
    where->sin_addr.s_addr = address;
    TRY(ioctl(inet, code, &request), name);
}

static void configure_network(const char *address, const char *gateway) {
    int inet = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    TRY(inet, "socket");
    set_up_interface(inet, "lo");
    if (address) {
        char text[64];
        snprintf(text, sizeof text, "%s", address);
        char *slash = strchr(text, '/');
        int prefix = slash ? atoi(slash + 1) : 24;
        if (slash) *slash = 0;
        set_address(inet, "eth0", SIOCSIFADDR, inet_addr(text));
        set_address(inet, "eth0", SIOCSIFNETMASK, htonl(~0u << (32 - prefix)));
        set_up_interface(inet, "eth0");
    }
    if (address && gateway) {
        struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
        ((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
        ((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
        struct sockaddr_in *via = (struct sockaddr_in *)&route.rt_gateway;
        via->sin_family = AF_INET;
        via->sin_addr.s_addr = inet_addr(gateway);
        TRY(ioctl(inet, SIOCADDRT, &route), "route");
    }
    close(inet);
}

/* ---- file systems of an instance ---- */

static void mount_overlay(const char *lower, const char *upper, const char *work,
                          const char *merged) {
    char options[3 * 4096];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work);
    TRY(mount("overlay", merged, "overlay", 0, options), "overlay");
}

static void make_device(const char *root, const char *path, unsigned major, unsigned minor) {
    const char *target = below(root, path);
    if (mknod(target, S_IFCHR | 0666, makedev(major, minor)) == 0) {
        chmod(target, 0666);
        return;
    }
    int file = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0666); /* in a user namespace */
    if (file >= 0) close(file);
    TRY(mount(path, target, NULL, MS_BIND, NULL), path);
}

static void make_read_only(const char *path) {
    if (access(path, F_OK) < 0) return; /* not every kernel has every file */
    TRY(mount(path, path, NULL, MS_BIND | MS_REC, NULL), path);
    TRY(mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
              NULL), path);
}

static void populate_root(const char *root) {
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    TRY(mount("proc", below(root, "/proc"), "proc", quiet, NULL), "/proc");
    make_read_only(below(root, "/proc/sys"));
    make_read_only(below(root, "/proc/sysrq-trigger"));
    TRY(mount("sysfs", below(root, "/sys"), "sysfs", quiet | MS_RDONLY, NULL), "/sys");
    TRY(mount("tmpfs", below(root, "/dev"), "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "/dev");
    make_device(root, "/dev/null", 1, 3);
    make_device(root, "/dev/zero", 1, 5);
    make_device(root, "/dev/full", 1, 7);
    make_device(root, "/dev/random", 1, 8);
    make_device(root, "/dev/urandom", 1, 9);
    make_device(root, "/dev/tty", 5, 0);
    mkdir(below(root, "/dev/pts"), 0755);
    mkdir(below(root, "/dev/shm"), 01777);
    TRY(mount("devpts", below(root, "/dev/pts"), "devpts", MS_NOSUID | MS_NOEXEC,
              "newinstance,ptmxmode=0666,mode=0620"), "/dev/pts");
    TRY(mount("tmpfs", below(root, "/dev/shm"), "tmpfs", quiet, "mode=1777,size=65536k"), "/dev/shm");
    symlink("pts/ptmx", below(root, "/dev/ptmx"));
    symlink("/proc/self/fd", below(root, "/dev/fd"));
    symlink("/proc/self/fd/0", below(root, "/dev/stdin"));
    symlink("/proc/self/fd/1", below(root, "/dev/stdout"));
    symlink("/proc/self/fd/2", below(root, "/dev/stderr"));
}

static void change_root(const char *root) {
    TRY(chdir(root), root);
    TRY((int)syscall(SYS_pivot_root, ".", "."), "pivot_root");
    TRY(umount2(".", MNT_DETACH), "umount");
    TRY(chdir("/"), "/");
}

/* With `gain`, setuid programs and file capabilities have their effect, as engines leave it. */
static void drop_privileges(int gain) {
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!(KEPT_CAPABILITIES >> capability & 1)) prctl(PR_CAPBSET_DROP, capability);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2];
    for (int half = 0; half < 2; half++) {
        uint32_t kept = (uint32_t)(KEPT_CAPABILITIES >> (32 * half));
        sets[half] = (struct __user_cap_data_struct){kept, kept, 0};
    }
    TRY((int)syscall(SYS_capset, &header, sets), "capset");
    if (!gain) TRY(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

#endif
