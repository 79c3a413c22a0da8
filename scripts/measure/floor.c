/*
 * The floor: a WebSocket server that does what no server can leave out, and nothing else. What the others may cost
 * beyond it is theirs. It reads a message from Redis and calls send() for every member's socket; with `join`, all that
 * one read of Redis brought for a channel goes out in one send() for each socket.
 *
 *     floor PORT REDIS_PORT [join]
 *
 * Not for use: channels are named ch0, ch1, ..., the client's key must be RFC 6455's example, client frames must come
 * whole, and a client that reads too slowly ends it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHANNELS = 1 << 16, SOCKETS = 1 << 17, EVENTS = 256 };

struct channel { int *members, size, room, used, space; char *frames; };

static struct channel channels[CHANNELS];
static int channel_of[SOCKETS]; /* by descriptor; 0 before the upgrade, else one more than the number */
static int waiting[CHANNELS], waiting_count; /* channels whose frames are not yet sent */
static int subscriber, publisher;
static char commands[1 << 18]; /* PUBLISHes of one turn */
static size_t commands_size;
static bool join;

static void send_all(int fd, const char *bytes, size_t length) {
    ssize_t sent = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET)) return; /* it left; its socket will say so */
    if (sent != (ssize_t)length) errx(1, "a client reads too slowly");
}

static size_t write_head(char *frame, int opcode, size_t length) {
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(length < 126 ? length : 126);
    if (length < 126) return 2;
    frame[2] = (char)(length >> 8);
    frame[3] = (char)length;
    return 4;
}

static int read_channel(const char *name) {
    int number = atoi(name + 2);
    if (strncmp(name, "ch", 2) || number < 0 || number >= CHANNELS) errx(1, "expected ch0 to ch%d", CHANNELS - 1);
    return number;
}

static void send_frames(struct channel *channel) {
    for (int i = 0; i < channel->size; i++) send_all(channel->members[i], channel->frames, (size_t)channel->used);
    channel->used = 0;
}

static void deliver(int number, const char *message, int length) {
    struct channel *channel = &channels[number];
    if (channel->used + length + 4 > channel->space) {
        channel->space = 2 * (channel->used + length + 4);
        channel->frames = realloc(channel->frames, (size_t)channel->space);
    }
    if (!channel->used) waiting[waiting_count++] = number;
    char *frame = channel->frames + channel->used;
    size_t head = write_head(frame, 1, (size_t)length);
    memcpy(frame + head, message, (size_t)length);
    channel->used += (int)head + length;
    if (!join) send_frames(&channels[waiting[--waiting_count]]);
}

/* Reads `$LENGTH\r\n...\r\n`; returns what follows it, or NULL when it is not all there. */
static char *read_bulk(char *at, char *end, char **text, int *length) {
    char *line = memchr(at, '\n', (size_t)(end - at));
    if (!line) return NULL;
    *length = atoi(at + 1);
    *text = line + 1;
    return end - *text < *length + 2 ? NULL : *text + *length + 2;
}

/* Reads one `*4` of pmessage, pattern, topic and message; returns what follows it. */
static char *read_message(char *at, char *end) {
    char *text[4], *line = memchr(at, '\n', (size_t)(end - at));
    int length[4];
    at = line ? line + 1 : NULL;
    for (int i = 0; i < 4 && at; i++) at = read_bulk(at, end, &text[i], &length[i]);
    if (at) deliver(read_channel(text[2] + strlen("gateway:channel:")), text[3], length[3]);
    return at;
}

static void on_redis(void) {
    static char buffer[1 << 20];
    static size_t kept;
    ssize_t got = recv(subscriber, buffer + kept, sizeof buffer - kept, MSG_DONTWAIT);
    if (got <= 0) errx(1, "Redis is gone");
    char *end = buffer + kept + got, *at = buffer, *next = at;
    while (at < end && (next = read_message(at, end))) at = next;
    while (waiting_count) send_frames(&channels[waiting[--waiting_count]]);
    kept = (size_t)(end - at);
    memmove(buffer, at, kept);
}

static void upgrade(int fd, char *request) {
    static const char response[] =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x12{\"cmd\":\"$welcome\"}";
    char *name = strstr(request, "?ch=");
    if (!name || !strstr(request, "\r\n\r\n")) errx(1, "expected a whole request with ?ch=");
    int number = read_channel(name + 4);
    struct channel *channel = &channels[number];
    if (channel->size == channel->room) {
        channel->room = channel->room ? 2 * channel->room : 8;
        channel->members = realloc(channel->members, (size_t)channel->room * sizeof *channel->members);
    }
    channel->members[channel->size++] = fd;
    channel_of[fd] = number + 1;
    send_all(fd, response, sizeof response - 1);
}

/* Passes {"channel":"chN",...} on to the channel it names. */
static void publish(char *message, int length) {
    char topic[64], *name = memmem(message, (size_t)length, "\"channel\":\"", 11);
    if (!name || commands_size + (size_t)length + 256 > sizeof commands) errx(1, "expected a channel, and less of it");
    int size = snprintf(topic, sizeof topic, "gateway:channel:ch%d", read_channel(name + 11));
    commands_size += (size_t)sprintf(commands + commands_size, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%.*s\r\n",
                                     size, topic, length, length, message);
}

static void on_frame(int fd, int opcode, char *payload, size_t length) {
    char pong[256];
    if (opcode == 1) {
        publish(payload, (int)length);
    } else if (opcode == 9) {
        size_t head = write_head(pong, 10, length);
        memcpy(pong + head, payload, length);
        send_all(fd, pong, head + length);
    }
}

static void remove_member(int fd) {
    struct channel *channel = channel_of[fd] ? &channels[channel_of[fd] - 1] : NULL;
    for (int i = 0; channel && i < channel->size; i++)
        if (channel->members[i] == fd) channel->members[i] = channel->members[--channel->size];
    channel_of[fd] = 0;
    close(fd);
}

static void on_client(int fd) {
    static char buffer[1 << 17];
    ssize_t got = recv(fd, buffer, sizeof buffer - 1, MSG_DONTWAIT);
    if (got <= 0) {
        remove_member(fd);
        return;
    }
    buffer[got] = 0;
    if (!channel_of[fd]) {
        upgrade(fd, buffer);
        return;
    }
    for (unsigned char *at = (unsigned char *)buffer, *end = at + got; end - at >= 6;) {
        size_t head = (at[1] & 127) == 126 ? 4 : 2, length = head == 4 ? (size_t)at[2] << 8 | at[3] : at[1] & 127;
        unsigned char *mask = at + head, *payload = mask + 4;
        if (payload + length > end) errx(1, "expected whole frames");
        for (size_t i = 0; i < length; i++) payload[i] ^= mask[i & 3];
        on_frame(fd, at[0] & 15, (char *)payload, length);
        at = payload + length;
    }
}

/* Listens there, or connects to it. */
static int open_port(const char *port, bool listening) {
    struct sockaddr_in address = {AF_INET, htons((unsigned short)atoi(port)), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* who is accepted inherits it */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    bool done = listening ? !bind(fd, (struct sockaddr *)&address, sizeof address) && !listen(fd, 4096)
                          : !connect(fd, (struct sockaddr *)&address, sizeof address);
    if (!done) err(1, "port %s", port);
    return fd;
}

static void watch(int epoll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd < 0 || fd >= SOCKETS || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) err(1, "socket %d", fd);
}

static void on_event(int epoll, int listener, int fd) {
    static char replies[1 << 16];
    if (fd == listener) watch(epoll, accept4(listener, NULL, NULL, SOCK_NONBLOCK));
    else if (fd == subscriber) on_redis();
    else if (fd != publisher) on_client(fd);
    else if (recv(publisher, replies, sizeof replies, MSG_DONTWAIT) == 0) errx(1, "Redis is gone");
}

int main(int count, char **arguments) {
    static const char subscribe[] = "*2\r\n$10\r\nPSUBSCRIBE\r\n$19\r\ngateway:channel:ch*\r\n";
    struct epoll_event events[EVENTS];
    if (count < 3) errx(1, "usage: floor PORT REDIS_PORT [join]");
    join = count > 3;
    subscriber = open_port(arguments[2], false);
    publisher = open_port(arguments[2], false);
    send_all(subscriber, subscribe, sizeof subscribe - 1);
    if (recv(subscriber, commands, sizeof commands, 0) <= 0 || *commands != '*') errx(1, "Redis is gone");
    int epoll = epoll_create1(0), listener = open_port(arguments[1], true);
    watch(epoll, listener);
    watch(epoll, subscriber);
    watch(epoll, publisher);
    for (;;) {
        int found = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < found; i++) on_event(epoll, listener, events[i].data.fd);
        if (commands_size) send_all(publisher, commands, commands_size);
        commands_size = 0;
    }
}
