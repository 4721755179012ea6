/*
 * listing.h: what a root file system looks like from inside, entry by entry (`agent --list`).
 *
 * Two platforms that were given the same image must print the same records; harness/parity.py
 * compares them. A record has no times and no sizes of folders: those are the file system's own.
 */
#ifndef HARNESS_LISTING_H
#define HARNESS_LISTING_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

/* ---- BLAKE2b with 32 bytes of digest (RFC 7693) ---- */

struct hash {
    uint64_t state[8], count;
    unsigned char block[128];
    size_t used;
};

static const uint64_t HASH_START[8] = {
    0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
    0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};

static const unsigned char HASH_ORDER[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};

static uint64_t rotate(uint64_t word, int bits) {
    return word >> bits | word << (64 - bits);
}

static void mix(uint64_t *v, int a, int b, int c, int d, uint64_t x, uint64_t y) {
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 63);
}

static void compress(struct hash *hash, int last) {
    uint64_t v[16], m[16];
    memcpy(v, hash->state, sizeof hash->state);
    memcpy(v + 8, HASH_START, sizeof HASH_START);
    memcpy(m, hash->block, sizeof m); /* both are little-endian */
    v[12] ^= hash->count;
    if (last) v[14] = ~v[14];
    for (int round = 0; round < 12; round++) {
        const unsigned char *s = HASH_ORDER[round % 10];
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]]);
        for (int i = 0; i < 4; i++)
            mix(v, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[s[8 + 2 * i]],
                m[s[9 + 2 * i]]);
    }
    for (int i = 0; i < 8; i++) hash->state[i] ^= v[i] ^ v[8 + i];
}

static void hash_begin(struct hash *hash) {
    memcpy(hash->state, HASH_START, sizeof HASH_START);
    hash->state[0] ^= 0x01010000 ^ 32;
    hash->count = hash->used = 0;
}

static void hash_add(struct hash *hash, const void *data, size_t size) {
    const unsigned char *bytes = data;
    while (size > 0) {
        if (hash->used == sizeof hash->block) { /* more follows, so it is not the last one */
            hash->count += hash->used;
            compress(hash, 0);
            hash->used = 0;
        }
        size_t part = sizeof hash->block - hash->used;
        if (part > size) part = size;
        memcpy(hash->block + hash->used, bytes, part);
        hash->used += part;
        bytes += part;
        size -= part;
    }
}

static void hash_end(struct hash *hash, char *text) {
    hash->count += hash->used;
    memset(hash->block + hash->used, 0, sizeof hash->block - hash->used);
    compress(hash, 1);
    for (int i = 0; i < 32; i++)
        sprintf(text + 2 * i, "%02x", (unsigned)(hash->state[i / 8] >> 8 * (i % 8) & 255));
}

/* ---- one record ---- */

struct text {
    char *bytes;
    size_t used, room;
};

/* A hard link's first path: files of the same inode are told by it, whatever their number is. */
struct first {
    dev_t device;
    ino_t inode;
    char *path;
};

static struct hash listing_hash;
static unsigned long long listed;
static int listing_brief;
static struct first *firsts;
static size_t first_count, first_room;
static char *mount_points;
static size_t mount_points_size;

static _Noreturn void stop_listing(const char *what) {
    fprintf(stderr, "agent: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void append(struct text *text, const void *bytes, size_t size) {
    if (text->used + size + 1 > text->room) {
        text->room = 2 * (text->used + size) + 256;
        text->bytes = realloc(text->bytes, text->room);
        if (!text->bytes) stop_listing("memory");
    }
    memcpy(text->bytes + text->used, bytes, size);
    text->used += size;
    text->bytes[text->used] = 0;
}

static void append_hex(struct text *text, const char *bytes, size_t size) {
    char pair[3];
    for (size_t i = 0; i < size; i++) {
        sprintf(pair, "%02x", (unsigned char)bytes[i]);
        append(text, pair, 2);
    }
}

/* Everything that is no plain character, blanks and backslashes too, becomes \xHH. */
static void append_escaped(struct text *text, const char *bytes) {
    char code[5];
    for (; *bytes; bytes++) {
        unsigned char byte = (unsigned char)*bytes;
        if (byte > ' ' && byte < 127 && byte != '\\') {
            append(text, bytes, 1);
        } else {
            sprintf(code, "\\x%02x", byte);
            append(text, code, 4);
        }
    }
}

static const char *find_first(const struct stat *info, const char *path) {
    size_t slot = (size_t)info->st_ino;
    if (2 * first_count >= first_room) {
        struct first *old = firsts;
        size_t old_room = first_room;
        first_room = first_room ? 2 * first_room : 1024;
        firsts = calloc(first_room, sizeof *firsts);
        if (!firsts) stop_listing("memory");
        for (size_t i = 0; i < old_room; i++) {
            if (!old[i].path) continue;
            size_t to = (size_t)old[i].inode % first_room;
            while (firsts[to].path) to = (to + 1) % first_room;
            firsts[to] = old[i];
        }
        free(old);
    }
    for (slot %= first_room; firsts[slot].path; slot = (slot + 1) % first_room)
        if (firsts[slot].inode == info->st_ino && firsts[slot].device == info->st_dev)
            return firsts[slot].path;
    first_count++;
    firsts[slot] = (struct first){info->st_dev, info->st_ino, strdup(path)};
    return path;
}

/* No system call more than it takes: an emulated guest pays dearly for each. */
static void append_content(struct text *record, const char *name, off_t left) {
    static char bytes[65536];
    char digest[65];
    struct hash hash;
    int file = left > 0 ? open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    if (left > 0 && file < 0) stop_listing(name);
    hash_begin(&hash);
    while (left > 0) {
        ssize_t size = read(file, bytes, sizeof bytes);
        if (size <= 0) stop_listing(name);
        hash_add(&hash, bytes, (size_t)size);
        left -= size;
    }
    if (file >= 0) close(file);
    hash_end(&hash, digest);
    append(record, digest, 64);
}

static int by_name(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* `trusted.*` is seen by some roots only, and a label is the host's policy: neither is compared. */
static int is_compared(const char *name) {
    return strncmp(name, "trusted.", 8) && strcmp(name, "security.selinux");
}

static void append_attributes(struct text *record, const char *name) {
    static char names[65536], value[65536];
    char *sorted[512];
    size_t count = 0;
    ssize_t size = llistxattr(name, names, sizeof names);
    for (char *each = names; size > 0 && each < names + size && count < 512; each += strlen(each) + 1)
        if (is_compared(each)) sorted[count++] = each;
    if (count == 0) append(record, "-", 1);
    qsort(sorted, count, sizeof *sorted, by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t length = lgetxattr(name, sorted[i], value, sizeof value);
        if (i > 0) append(record, ",", 1);
        append_escaped(record, sorted[i]);
        append(record, "=", 1);
        append_hex(record, value, length > 0 ? (size_t)length : 0);
    }
}

static void append_target(struct text *record, const char *name) {
    static char target[65536];
    ssize_t size = readlink(name, target, sizeof target - 1);
    if (size < 0) stop_listing(name);
    target[size] = 0;
    append_escaped(record, target);
}

static char find_type(mode_t mode) {
    switch (mode & S_IFMT) {
    case S_IFREG: return 'f';
    case S_IFDIR: return 'd';
    case S_IFLNK: return 'l';
    case S_IFCHR: return 'c';
    case S_IFBLK: return 'b';
    case S_IFIFO: return 'p';
    default: return 's';
    }
}

/* PATH TYPE MODE UID GID SIZE DEVICE LINKS FIRST TARGET DIGEST ATTRIBUTES; `-` where it has none. */
static void append_record(struct text *record, const char *path, const char *name,
                          const struct stat *info) {
    char part[160];
    char type = find_type(info->st_mode);
    append_escaped(record, path);
    append(record, part, (size_t)sprintf(part, " %c %04o %u %u ", type,
           (unsigned)(info->st_mode & 07777), (unsigned)info->st_uid, (unsigned)info->st_gid));
    if (type == 'f') append(record, part, (size_t)sprintf(part, "%lld ", (long long)info->st_size));
    else append(record, "- ", 2);
    if (type == 'c' || type == 'b')
        append(record, part, (size_t)sprintf(part, "%u:%u ", major(info->st_rdev), minor(info->st_rdev)));
    else append(record, "- ", 2);
    if (type != 'd' && info->st_nlink > 1) {
        append(record, part, (size_t)sprintf(part, "%lu ", (unsigned long)info->st_nlink));
        append_escaped(record, find_first(info, path));
        append(record, " ", 1);
    } else append(record, "- - ", 4);
    if (type == 'l') append_target(record, name);
    else append(record, "-", 1);
    append(record, " ", 1);
    if (type == 'f') append_content(record, name, info->st_size);
    else append(record, "-", 1);
    append(record, " ", 1);
    append_attributes(record, name);
    append(record, "\n", 1);
}

/* ---- the walk ---- */

/* The kernel's views and the harness's channel, which are each platform's own. */
static int is_left_out(const char *path) {
    static const char *left_out[] = {"/dev", "/proc", "/sys", "/lost+found", "/.harness/run"};
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (!strcmp(path, left_out[i])) return 1;
    return 0;
}

/* mountinfo writes blanks and the like as \ooo, as 5th word of a line. */
static void read_mount_points(void) {
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    struct text found = {0};
    while (file && getline(&line, &room, file) > 0) {
        char *word = line;
        for (int i = 0; i < 4 && word; i++) word = (word = strchr(word, ' ')) ? word + 1 : NULL;
        if (!word) continue;
        char *end = strchr(word, ' '), *to = word;
        for (char *from = word; end && from < end; from++) {
            int code = 0;
            if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1) from += 3;
            *to++ = code ? (char)code : *from;
        }
        *to = 0;
        append(&found, word, strlen(word) + 1);
    }
    if (file) fclose(file);
    free(line);
    mount_points = found.bytes;
    mount_points_size = found.used;
}

static int is_mount_point(const char *path) {
    for (char *each = mount_points; each < mount_points + mount_points_size; each += strlen(each) + 1)
        if (!strcmp(each, path)) return 1;
    return 0;
}

static char **read_names(size_t *count) {
    char **names = NULL;
    size_t room = 0;
    DIR *folder = opendir(".");
    if (!folder) return NULL;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (*count == room) names = realloc(names, (room = 2 * room + 16) * sizeof *names);
        if (!names || !(names[(*count)++] = strdup(entry->d_name))) stop_listing("memory");
    }
    closedir(folder);
    if (*count > 1) qsort(names, *count, sizeof *names, by_name);
    return names;
}

static void list_folder(struct text *path);

static void list_entry(struct text *path, const char *name) {
    static struct text record;
    struct stat info;
    size_t before = path->used;
    append(path, "/", 1);
    append(path, name, strlen(name));
    if (is_left_out(path->bytes)) {
        path->used = before;
        return;
    }
    record.used = 0;
    if (is_mount_point(path->bytes)) {
        append_escaped(&record, path->bytes);
        if (!listing_brief) printf("mount %s\n", record.bytes);
    } else if (lstat(name, &info) < 0) {
        stop_listing(path->bytes);
    } else {
        append_record(&record, path->bytes, name, &info);
        hash_add(&listing_hash, record.bytes, record.used);
        if (!listing_brief) fwrite(record.bytes, 1, record.used, stdout);
        listed++;
        if (S_ISDIR(info.st_mode)) {
            if (chdir(name) < 0) stop_listing(path->bytes);
            list_folder(path);
        }
    }
    path->used = before;
    path->bytes[before] = 0;
}

/* The folder is the current one, before and after; its parent is the current one in the end. */
static void list_folder(struct text *path) {
    size_t count = 0;
    char **names = read_names(&count);
    for (size_t i = 0; i < count; i++) {
        list_entry(path, names[i]);
        free(names[i]);
    }
    free(names);
    if (path->used > 0 && chdir("..") < 0) stop_listing(path->bytes);
}

/*
 * `agent --list [--brief] [FOLDER]`: the records of all entries by name, then one line
 * `total COUNT DIGEST` over them; --brief gives that line alone. A path where the platform has
 * mounted something of its own is named (`mount PATH`) and not compared.
 */
static int list_tree(int count, char **arguments) {
    struct text path = {0};
    char digest[65];
    append(&path, "", 0);
    listing_brief = count > 0 && !strcmp(arguments[0], "--brief");
    const char *root = count > listing_brief ? arguments[listing_brief] : "/";
    if (!strcmp(root, "/")) read_mount_points();
    if (chdir(root) < 0) stop_listing(root);
    hash_begin(&listing_hash);
    list_folder(&path);
    hash_end(&listing_hash, digest);
    printf("total %llu %s\n", listed, digest);
    return fflush(stdout) == 0 ? 0 : 1;
}

#endif
