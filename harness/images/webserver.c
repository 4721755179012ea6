/* A web server in one small program: files of one folder, one request at a time.
 *
 *     webserver PORT FOLDER
 *
 * It needs nothing besides the kernel, so that the very same bytes run on an empty root file
 * system and on a whole distribution. Only GET; no path with ".." in it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { REQUEST_MOST = 4096, BACKLOG = 128, PATIENCE_S = 5 };

static void fail(const char *what)
{
    fprintf(stderr, "webserver: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int open_port(int port)
{
    struct sockaddr_in here = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)port),
        .sin_addr.s_addr = htonl(INADDR_ANY),
    };
    int on = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
        fail("socket");
    if (bind(server, (struct sockaddr *)&here, sizeof here) < 0 || listen(server, BACKLOG) < 0)
        fail("port");
    return server;
}

/* The whole head of a request, or 0 where the client sends none. */
static int read_request(int client, char *request)
{
    size_t length = 0;
    while (length < REQUEST_MOST - 1) {
        ssize_t got = read(client, request + length, REQUEST_MOST - 1 - length);
        if (got <= 0)
            return 0;
        length += (size_t)got;
        request[length] = '\0';
        if (strstr(request, "\r\n\r\n"))
            return 1;
    }
    return 0;
}

/* The file that a request asks for, open, or -1. */
static int open_asked(char *request, const char *folder, struct stat *info)
{
    char path[REQUEST_MOST + 256], *asked = request + 4;
    if (strncmp(request, "GET /", 5) != 0 || !strchr(asked, ' '))
        return -1;
    *strchr(asked, ' ') = '\0';
    if (strstr(asked, "..") || strlen(folder) > 200)
        return -1;
    const char *index = asked[strlen(asked) - 1] == '/' ? "index.html" : "";
    snprintf(path, sizeof path, "%s%s%s", folder, asked, index);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file >= 0 && (fstat(file, info) < 0 || !S_ISREG(info->st_mode))) {
        close(file);
        return -1;
    }
    return file;
}

static void answer(int client, const char *folder)
{
    char request[REQUEST_MOST], head[160];
    struct stat info = {0};
    if (!read_request(client, request))
        return;
    int file = open_asked(request, folder, &info);
    const char *status = file < 0 ? "404 Not Found" : "200 OK";
    int length = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %lld\r\n"
                          "Connection: close\r\n\r\n", status, (long long)info.st_size);
    if (write(client, head, (size_t)length) == length && file >= 0)
        while (sendfile(client, file, NULL, 1 << 20) > 0)
            ;
    if (file >= 0)
        close(file);
}

int main(int count, char **words)
{
    struct timeval patience = {.tv_sec = PATIENCE_S};
    if (count != 3 || atoi(words[1]) <= 0) {
        fputs("usage: webserver PORT FOLDER\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    int server = open_port(atoi(words[1]));
    for (;;) {
        int client = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        answer(client, words[2]);
        close(client);
    }
}
