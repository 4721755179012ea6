/*
 * What the agent does as PID 1 of a guest, before it is like every other first process.
 *
 * The initramfs holds /init and /modules (`order` names the files, one a line); nothing here waits
 * for a time, only for the kernel's own events: a device is there when its uevent says so.
 */
#ifndef HARNESS_GUEST_H
#define HARNESS_GUEST_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define DEVICE_WAIT_MS 20000
#define PORT_NAME "harness.channel"

static int stop_by_reset, hotplug = -1;
static char interface_name[IFNAMSIZ];

static size_t read_file(const char *path, char *text, size_t size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t part;
    while (file >= 0 && (part = read(file, text + used, size - 1 - used)) > 0) used += (size_t)part;
    if (file >= 0) close(file);
    text[used] = 0;
    return used;
}

static _Noreturn void end_guest(void) {
    sync();
    reboot(stop_by_reset ? RB_AUTOBOOT : RB_POWER_OFF);
    for (;;) pause();
}

/* Before there is a channel, a guest says on its console why it cannot go on. */
static _Noreturn void give_up(const char *what, const char *name, int error) {
    dprintf(1, "\n@harness fail %s %s: %s\n", what, name, strerror(error));
    tcdrain(1);
    end_guest();
}

/* ---- devices ---- */

static void listen_for_devices(void) {
    struct sockaddr_nl group = {.nl_family = AF_NETLINK, .nl_groups = 1};
    hotplug = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (hotplug < 0 || bind(hotplug, (struct sockaddr *)&group, sizeof group) < 0)
        give_up("cannot listen for", "devices", errno);
}

/* Looks first and then at every event, so that a device that came earlier is not missed. */
static void await(int (*is_there)(const char *), const char *name, const char *what) {
    char event[8192];
    while (!is_there(name)) {
        struct pollfd state = {.fd = hotplug, .events = POLLIN};
        if (poll(&state, 1, DEVICE_WAIT_MS) == 0) give_up(what, name, ETIMEDOUT);
        while (recv(hotplug, event, sizeof event, MSG_DONTWAIT) > 0) { }
    }
}

static int is_file(const char *path) {
    return access(path, F_OK) == 0;
}

static char port_path[300];

static int is_port(const char *wanted) {
    char path[300], name[64];
    int found = 0;
    DIR *folder = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        size_t size = entry->d_name[0] == '.' ? 0 : read_file(path, name, sizeof name);
        if (size > 0 && name[size - 1] == '\n') name[size - 1] = 0;
        found = size > 0 && !strcmp(name, wanted);
        if (found) snprintf(port_path, sizeof port_path, "/dev/%s", entry->d_name);
    }
    if (folder) closedir(folder);
    return found && is_file(port_path);
}

static int is_interface(const char *unused) {
    (void)unused;
    struct if_nameindex *all = if_nameindex();
    for (struct if_nameindex *each = all; each && each->if_index && !interface_name[0]; each++)
        if (strcmp(each->if_name, "lo")) snprintf(interface_name, IFNAMSIZ, "%s", each->if_name);
    if (all) if_freenameindex(all);
    return interface_name[0] != 0;
}

static void load_module(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "/modules/%s", name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) give_up("cannot open module", name, errno);
    long result = syscall(SYS_finit_module, file, "", 0);
    /* ENODEV: the module drives something that this machine does not have */
    if (result < 0 && errno != EEXIST && errno != ENODEV) give_up("cannot load module", name, errno);
    close(file);
    unlink(path); /* an initramfs is memory, and the guest's memory is measured */
}

static void load_modules(void) {
    static char order[16384];
    char *rest = NULL;
    read_file("/modules/order", order, sizeof order);
    for (char *name = strtok_r(order, "\n", &rest); name; name = strtok_r(NULL, "\n", &rest))
        load_module(name);
    unlink("/modules/order");
    rmdir("/modules");
}

/*
 * A port, once the host's end is connected: until then it reads as closed. A virtio port has no
 * uevent for that, but it sends SIGIO.
 */
static int open_port(const char *path) {
    sigset_t mask;
    struct signalfd_siginfo received;
    sigemptyset(&mask);
    sigaddset(&mask, SIGIO);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int news = signalfd(-1, &mask, SFD_CLOEXEC);
    int channel = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (channel < 0) give_up("cannot open", path, errno);
    fcntl(channel, F_SETOWN, getpid());
    fcntl(channel, F_SETFL, O_RDWR | O_NONBLOCK | O_ASYNC);
    struct pollfd state = {.fd = channel, .events = POLLOUT}, wake = {.fd = news, .events = POLLIN};
    while (poll(&state, 1, 0) < 0 || (state.revents & POLLHUP)) {
        if (poll(&wake, 1, DEVICE_WAIT_MS) == 0) give_up("nobody listens at", PORT_NAME, ETIMEDOUT);
        (void)!read(news, &received, sizeof received);
    }
    fcntl(channel, F_SETFL, O_RDWR | O_NONBLOCK);
    close(news);
    return channel;
}

/* ---- file systems ---- */

static void mount_or_give_up(const char *source, const char *target, const char *kind,
                             unsigned long flags, const char *options) {
    mkdir(target, 0755);
    if (mount(source, target, kind, flags, options) < 0) give_up("cannot mount", target, errno);
}

static void mount_kernel_views(void) {
    const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount_or_give_up("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
    mount_or_give_up("proc", "/proc", "proc", quiet, NULL);
    mount_or_give_up("sysfs", "/sys", "sysfs", quiet, NULL);
}

/* The same mounts and links as a container gets (container.h). */
static void complete_dev(void) {
    mount_or_give_up("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                     "newinstance,ptmxmode=0666,mode=0620");
    mount_or_give_up("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                     "mode=1777,size=65536k");
    (void)!symlink("/proc/self/fd", "/dev/fd");
    (void)!symlink("/proc/self/fd/0", "/dev/stdin");
    (void)!symlink("/proc/self/fd/1", "/dev/stdout");
    (void)!symlink("/proc/self/fd/2", "/dev/stderr");
}

/* The value of `name=` on the kernel's command line, or `fallback`; each in a place of its own. */
static const char *find_parameter(const char *line, const char *name, const char *fallback) {
    static char places[8][128];
    static size_t taken;
    const char *found = strstr(line, name);
    if (!found || taken == sizeof places / sizeof *places) return fallback;
    found += strlen(name);
    char *place = places[taken++];
    snprintf(place, sizeof places[0], "%.*s", (int)strcspn(found, " \n"), found);
    return place;
}

/*
 * With `harness.discard=1` a file system tells its disk what it no longer needs, with each commit of
 * its journal: deleted space comes back to the host by itself, whatever programs an image has.
 */
static const char *disk_options;

/*
 * The root is a file system that can be written, or a read-only one (`kind`; `source` is then its
 * device, or the tag of a shared folder) below a layer to write in: memory, or a disk of its own.
 */
static void mount_root(const char *source, const char *kind, const char *upper) {
    if (source[0] == '/') await(is_file, source, "no root device");
    if (!upper) {
        mount_or_give_up(source, "/newroot", kind, 0, disk_options);
        return;
    }
    mount_or_give_up(source, "/lower", kind, MS_RDONLY, NULL);
    if (upper[0] == '/') await(is_file, upper, "no disk for the upper layer");
    if (upper[0] == '/') mount_or_give_up(upper, "/layer", "ext4", 0, disk_options);
    else mount_or_give_up("tmpfs", "/layer", "tmpfs", 0, "mode=755,size=90%");
    mkdir("/layer/upper", 0755);
    mkdir("/layer/work", 0755);
    mount_or_give_up("overlay", "/newroot", "overlay", 0,
                     "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work");
}

static void switch_root(void) {
    static const char *moved[] = {"/dev", "/proc", "/sys"};
    char target[64];
    for (size_t i = 0; i < sizeof moved / sizeof *moved; i++) {
        snprintf(target, sizeof target, "/newroot%s", moved[i]);
        mount_or_give_up(moved[i], target, NULL, MS_MOVE, NULL);
    }
    unlink("/init"); /* still mapped, but no longer a second copy beside the pages in use */
    if (chdir("/newroot") < 0) give_up("cannot enter", "/newroot", errno);
    if (mount(".", "/", NULL, MS_MOVE, NULL) < 0) give_up("cannot move", "/newroot", errno);
    if (chroot(".") < 0 || chdir("/") < 0) give_up("cannot enter", "/newroot", errno);
}

/* Returns the channel. */
static int enter_guest(void) {
    static char line[4096];
    (void)!write(1, "@harness init\n", 14);
    mount_kernel_views();
    read_file("/proc/cmdline", line, sizeof line);
    stop_by_reset = !strcmp(find_parameter(line, "harness.stop=", "poweroff"), "reboot");
    if (find_parameter(line, "harness.discard=", NULL)) disk_options = "discard";
    listen_for_devices();
    load_modules();
    mount_root(find_parameter(line, "harness.root=", "/dev/vda"),
               find_parameter(line, "harness.fs=", "ext4"),
               find_parameter(line, "harness.upper=", NULL));
    switch_root();
    complete_dev();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) dup2(null, 0);
    await(is_port, PORT_NAME, "no virtio port");
    return open_port(port_path);
}

/* ---- what the spec says about a guest ---- */

static int set_up(int inet, const char *name) {
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    return ioctl(inet, SIOCSIFFLAGS, &request);
}

static int set_ip(int inet, unsigned long code, in_addr_t value) {
    struct ifreq request = {0};
    struct sockaddr_in *where = (struct sockaddr_in *)&request.ifr_addr;
    snprintf(request.ifr_name, IFNAMSIZ, "%s", interface_name);
    where->sin_family = AF_INET;
    where->sin_addr.s_addr = value;
    return ioctl(inet, (int)code, &request);
}

static int add_default_route(int inet, const char *gateway) {
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    ((struct sockaddr_in *)&route.rt_dst)->sin_family = AF_INET;
    ((struct sockaddr_in *)&route.rt_genmask)->sin_family = AF_INET;
    struct sockaddr_in *via = (struct sockaddr_in *)&route.rt_gateway;
    via->sin_family = AF_INET;
    via->sin_addr.s_addr = inet_addr(gateway);
    return ioctl(inet, SIOCADDRT, &route);
}

/* A guest that was restored shares its snapshot's address with every other one. */
static int set_mac(int inet, const char *mac) {
    struct ifreq request = {.ifr_hwaddr.sa_family = 1}; /* ARPHRD_ETHER */
    unsigned char *bytes = (unsigned char *)request.ifr_hwaddr.sa_data;
    snprintf(request.ifr_name, IFNAMSIZ, "%s", interface_name);
    if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", bytes, bytes + 1, bytes + 2, bytes + 3,
               bytes + 4, bytes + 5) != 6) return -1;
    return ioctl(inet, SIOCSIFHWADDR, &request);
}

/* ---- a limit inside ---- */

static char pids_file[4160];

static int write_file(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t written = file < 0 ? -1 : write(file, text, strlen(text));
    if (file >= 0) close(file);
    return written < 0 ? -1 : 0;
}

/* The group that a service's manager has put this process into. */
static const char *find_own_group(void) {
    char text[4096];
    read_file("/proc/self/cgroup", text, sizeof text);
    char *path = strstr(text, "0::");
    if (!path) return "group";
    path[strcspn(path, "\n")] = 0;
    snprintf(pids_file, sizeof pids_file, "/sys/fs/cgroup%s/pids.max", path + 3);
    return NULL;
}

/* A group of its own: with the first process in it, as a container's has. */
static const char *make_own_group(void) {
    if (mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return "control groups";
    if (write_file("/sys/fs/cgroup/cgroup.subtree_control", "+pids") < 0) return "pids controller";
    if (mkdir("/sys/fs/cgroup/instance", 0755) < 0) return "group";
    if (write_file("/sys/fs/cgroup/instance/cgroup.procs", "0") < 0) return "group";
    snprintf(pids_file, sizeof pids_file, "/sys/fs/cgroup/instance/pids.max");
    return NULL;
}

/* How many processes and threads this and the workload may have; NULL or what went wrong. */
static const char *limit_pids(const char *most, int has_manager) {
    const char *problem = has_manager ? find_own_group() : make_own_group();
    if (problem) return problem;
    return write_file(pids_file, most) < 0 ? "pids" : NULL;
}

/* Hostname and network; NULL or what went wrong. */
static const char *configure_guest(const char *hostname, const char *address, const char *gateway,
                                   const char *mac) {
    int prefix = 24;
    char ip[32] = "";
    int inet = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (hostname && sethostname(hostname, strlen(hostname)) < 0) return "hostname";
    if (set_up(inet, "lo") < 0) return "loopback";
    if (address) {
        if (sscanf(address, "%31[0-9.]/%d", ip, &prefix) < 1 || prefix < 1 || prefix > 32)
            return "address";
        await(is_interface, "interface", "no network");
        if (mac && set_mac(inet, mac) < 0) return "mac";
        if (set_ip(inet, SIOCSIFADDR, inet_addr(ip)) < 0) return "address";
        if (set_ip(inet, SIOCSIFNETMASK, htonl(~0u << (32 - prefix))) < 0) return "netmask";
        if (set_up(inet, interface_name) < 0) return "interface";
        if (gateway && add_default_route(inet, gateway) < 0) return "gateway";
    }
    close(inet);
    close(hotplug);
    return NULL;
}

#endif
