/*
 * Load for one server on this machine: opens WebSockets, has messages written to their channels, and counts what
 * arrives. Prints one line of JSON and ends by itself.
 *
 * Connection i is in channel i % channels, all of equal size. It is ready with the first message it gets, so a
 * server says something once it has joined. Messages are PUBLISHed to Redis, or sent by the connections in turn.
 * Each carries "bench":[publisher,number,time], so each connection knows of each publisher in its channel what is
 * missing (lost), came twice (duplicates) or after a later one (reordered).
 *
 * With --bare 1 they are in no channel, for handshakes alone.
 * The first of --silent connections stop reading once they are ready: nothing is expected of them.
 *
 * With a window of W at most W messages are published and not yet delivered to everybody: nobody is credited for what
 * is only queued. With a rate messages go out at that pace instead. There is no way to give an address: it connects to
 * 127.0.0.1 only.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HANDSHAKES = 100, EVENTS = 64, STALL_SECONDS = 3, CONNECT_SECONDS = 120, PING_MS = 10, REMEMBERED = 64 };

/* Options, all numbers: --name VALUE. */
static double port, redis_port, server, connections = 100, channels = 1, size = 128, window = 1, rate, clients, aside, silent, bare;
static double warmup = 0.5, seconds = 2, hold;
static const struct { const char *name; double *value; } OPTIONS[] = {
    {"--port", &port}, {"--redis", &redis_port}, {"--server", &server}, {"--connections", &connections},
    {"--channels", &channels}, {"--size", &size}, {"--window", &window}, {"--rate", &rate}, {"--clients", &clients},
    {"--aside", &aside}, {"--silent", &silent}, {"--bare", &bare}, {"--warmup", &warmup}, {"--seconds", &seconds}, {"--hold", &hold},
};

enum { KNOWN = sizeof OPTIONS / sizeof *OPTIONS };

/* One WebSocket: what was read of an unfinished frame or of the response is kept in `rest`. */
struct connection { int fd, channel; bool upgraded, ready; char *rest; size_t rest_size; };
/* A moment, or the time between two. */
struct span { double seconds, server_cpu, load_cpu; };
/* What one connection had of one publisher: all numbers below `next` but those whose bit is not set. */
struct track { uint64_t next, bits; };
/* Times in microseconds, kept to 1.6 %: each microsecond below 128, then 64 steps for each power of two. */
struct times { uint64_t count, longest, steps[64 * 64]; };

static struct connection *sockets;
static struct track *tracks;
static uint64_t *numbers, published, expected, received, duplicates, reordered, disconnected;
static struct times latency, pings;
static int epoll, redis, total, ready, publishers;
static bool measuring, ping_sent;
static double progress, next_ping;
static clockid_t server_clock;

static double read_clock(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time)) errx(1, "the server is gone");
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double now(void) { return read_clock(CLOCK_MONOTONIC); }

static uint64_t microseconds(void) { return (uint64_t)(now() * 1e6); }

static struct span clocks(void) {
    return (struct span){now(), server ? read_clock(server_clock) : 0, read_clock(CLOCK_PROCESS_CPUTIME_ID)};
}

static struct span since(struct span from) {
    struct span to = clocks();
    return (struct span){to.seconds - from.seconds, to.server_cpu - from.server_cpu, to.load_cpu - from.load_cpu};
}

static void add_time(struct times *times, uint64_t value) {
    int power = value < 128 ? 0 : 57 - __builtin_clzll(value);
    times->steps[power * 64 + (int)(value >> power)]++;
    times->count++;
    if (value > times->longest) times->longest = value;
}

static double quantile(const struct times *times, double part) {
    uint64_t wanted = (uint64_t)(part * (double)times->count), seen = 0;
    for (int step = 0; step < 64 * 64; step++) {
        int power = step < 128 ? 0 : step / 64 - 1;
        seen += times->steps[step];
        if (seen > wanted) return (double)((uint64_t)(step - power * 64) << power) / 1e3;
    }
    return (double)times->longest / 1e3;
}

static int dial(int to) {
    struct sockaddr_in address = {AF_INET, htons((uint16_t)to), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) err(1, "port %d", to);
    /* Connections that are dropped at the end leave no ports that must wait. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void watch(int fd, uint32_t number) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
    if (fcntl(fd, F_SETFL, O_NONBLOCK) || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event)) err(1, NULL);
}

/* The key is RFC 6455's example, for servers that know only its answer. */
static void open_socket(int i) {
    char request[512];
    int channel = i == (int)connections ? (int)channels : i % (int)channels;
    char query[32] = "";
    if (!bare) snprintf(query, sizeof query, "?ch=ch%d", channel);
    int length = snprintf(request, sizeof request,
                          "GET /connect%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                          "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: gateway.v1.json\r\n\r\n",
                          query, (int)port);
    sockets[i] = (struct connection){.fd = dial((int)port), .channel = channel};
    if (send(sockets[i].fd, request, (size_t)length, MSG_NOSIGNAL) != length) errx(1, "a request was refused");
    watch(sockets[i].fd, (uint32_t)i);
}

/* What a client sends is small and the window bounds it: a full socket is a server that no longer reads. */
static void send_frame(struct connection *c, int opcode, const char *payload, size_t length) {
    static char frame[70000];
    const char mask[4] = {0x5a, 0x17, 0x6b, 0x33};
    size_t head = 2;
    frame[0] = (char)(0x80 | opcode);
    frame[1] = (char)(0x80 | (length < 126 ? length : 126));
    if (length >= 126) {
        frame[2] = (char)(length >> 8);
        frame[3] = (char)length;
        head = 4;
    }
    memcpy(frame + head, mask, 4);
    for (size_t i = 0; i < length; i++) frame[head + 4 + i] = payload[i] ^ mask[i & 3];
    ssize_t sent = send(c->fd, frame, head + 4 + length, MSG_NOSIGNAL);
    bool full = sent < 0 ? errno == EAGAIN : (size_t)sent < head + 4 + length;
    if (full) errx(1, "the server does not read");
}

/* What comes later than REMEMBERED others counts as a duplicate: nobody remembers whether it is one. */
static void count(struct connection *c, uint64_t publisher, uint64_t number, uint64_t sent_at, uint64_t at) {
    if (publisher >= (uint64_t)publishers) errx(1, "a message of publisher %lu, who does not exist", publisher);
    struct track *track = &tracks[(c - sockets) * publishers + (long)publisher];
    if (number >= track->next) {
        uint64_t step = number - track->next + 1;
        track->bits = (step < REMEMBERED ? track->bits << step : 0) | 1;
        track->next = number + 1;
    } else {
        uint64_t age = track->next - 1 - number, bit = 1ull << (age % REMEMBERED);
        if (age >= REMEMBERED || track->bits & bit) {
            duplicates++;
            return;
        }
        track->bits |= bit;
        reordered++;
    }
    received++;
    if (measuring) add_time(&latency, at - sent_at);
}

static const char *find_number(const char *text, const char *end, uint64_t *value) {
    while (text < end && (*text < '0' || *text > '9')) text++;
    for (*value = 0; text < end && *text >= '0' && *text <= '9'; text++) *value = *value * 10 + (uint64_t)(*text - '0');
    return text;
}

/* What is written to it from now on stays with the server, but for what the kernel takes. */
static void fall_silent(struct connection *c) {
    if (epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL)) err(1, NULL);
}

static void on_text(struct connection *c, const char *text, size_t length, uint64_t at) {
    uint64_t publisher, number, sent_at;
    const char *mark = memmem(text, length, "\"bench\"", 7), *end = text + length;
    if (!c->ready) {
        c->ready = true;
        ready++;
        if (c - sockets < (long)silent) fall_silent(c);
    }
    if (!mark || c - sockets < (long)silent) return;
    mark = find_number(find_number(mark + 7, end, &publisher), end, &number);
    find_number(mark, end, &sent_at);
    count(c, publisher, number, sent_at, at);
}

static void on_closed(struct connection *c) {
    close(c->fd);
    c->fd = -1;
    disconnected++;
}

static void on_frame(struct connection *c, int opcode, const char *payload, size_t length, uint64_t at) {
    uint64_t sent_at;
    if (opcode == 0x81) {
        on_text(c, payload, length, at);
    } else if (opcode == 0x89) {
        send_frame(c, 10, payload, length);
    } else if (opcode == 0x8a) {
        memcpy(&sent_at, payload, sizeof sent_at);
        if (measuring) add_time(&pings, at - sent_at);
        ping_sent = false;
    } else if (opcode == 0x88) {
        send_frame(c, 8, payload, length);
        on_closed(c);
    } else {
        errx(1, "a frame that begins with %#x: neither fragments nor compression were asked for", opcode);
    }
}

/* Returns how much of it was complete frames. */
static size_t read_frames(struct connection *c, const char *bytes, size_t length, uint64_t at) {
    size_t done = 0;
    while (length - done >= 2) {
        const unsigned char *frame = (const unsigned char *)bytes + done;
        size_t head = frame[1] == 126 ? 4 : 2, payload = frame[1];
        if (frame[1] > 126) errx(1, "a frame longer than 64 KiB");
        if (length - done < head) break;
        if (head == 4) payload = (size_t)frame[2] << 8 | frame[3];
        if (length - done < head + payload) break;
        on_frame(c, frame[0], (const char *)frame + head, payload, at);
        done += head + payload;
    }
    return done;
}

static size_t read_response(struct connection *c, const char *bytes, size_t length) {
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    if (!end) return 0;
    if (strncmp(bytes, "HTTP/1.1 101", 12)) errx(1, "refused: %.*s", (int)strcspn(bytes, "\r"), bytes);
    c->upgraded = true;
    return (size_t)(end + 4 - bytes);
}

static void on_readable(struct connection *c) {
    static char buffer[1 << 18];
    size_t done = 0;
    if (c->rest_size) memcpy(buffer, c->rest, c->rest_size);
    ssize_t got = recv(c->fd, buffer + c->rest_size, sizeof buffer - 1 - c->rest_size, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        on_closed(c);
        return;
    }
    size_t length = c->rest_size + (size_t)got;
    buffer[length] = 0;
    if (!c->upgraded) done = read_response(c, buffer, length);
    if (c->upgraded) done += read_frames(c, buffer + done, length - done, microseconds());
    c->rest_size = length - done;
    if (c->rest_size) {
        c->rest = realloc(c->rest, c->rest_size);
        memcpy(c->rest, buffer + done, c->rest_size);
    }
}

static void on_redis(void) {
    static char replies[1 << 16];
    ssize_t got = recv(redis, replies, sizeof replies - 1, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) errx(1, "Redis closed the connection");
    if (got > 0 && replies[0] == '-') errx(1, "Redis: %.*s", (int)strcspn(replies, "\r"), replies);
}

/* In turn: the channels, or the connections, of whom each writes to its channel. */
static void publish(void) {
    static char pad[65536], param[66000], text[66200], command[66400];
    int publisher = (int)(published % (uint64_t)(clients ? connections : channels));
    int channel = publisher % (int)channels, place = clients ? publisher / (int)channels : 0;
    if (!*pad) memset(pad, 'x', sizeof pad - 1);
    int used = snprintf(param, sizeof param, "{\"bench\":[%d,%lu,%lu],\"pad\":\"", place, numbers[publisher]++,
                        microseconds());
    int left = size > used + 2 ? (int)size - used - 2 : 0;
    snprintf(param + used, sizeof param - (size_t)used, "%.*s\"}", left, pad);
    if (clients) {
        int length = snprintf(text, sizeof text, "{\"channel\":\"ch%d\",\"cmd\":\"msg\",\"param\":%s}", channel, param);
        send_frame(&sockets[publisher], 1, text, (size_t)length);
    } else {
        char topic[64];
        int name = snprintf(topic, sizeof topic, "gateway:channel:ch%d", channel);
        int length = snprintf(text, sizeof text, "{\"cmd\":\"msg\",\"param\":%s}", param);
        length = snprintf(command, sizeof command, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", name, topic,
                          length, text);
        if (send(redis, command, (size_t)length, MSG_NOSIGNAL) != length) errx(1, "Redis does not read");
    }
    published++;
    expected += (uint64_t)((connections - silent) / channels);
}

static void publish_what_is_due(double began) {
    uint64_t members = (uint64_t)((connections - silent) / channels);
    if (rate)
        while ((double)published < (now() - began) * rate) publish();
    else
        while (expected - received + members <= (uint64_t)window * members) publish();
}

/* The pings of a connection in a channel of its own: how long a server makes others wait. */
static void ping(struct connection *c) {
    if (c->fd >= 0) on_readable(c);
    if (c->fd < 0 || ping_sent || now() < next_ping) return;
    uint64_t at = microseconds();
    next_ping = now() + PING_MS / 1e3;
    ping_sent = true;
    send_frame(c, 9, (const char *)&at, sizeof at);
}

/* Few events a turn, so that neither pings nor the next message wait long for us. */
static void turn(void) {
    struct epoll_event events[EVENTS];
    uint64_t before = received + (uint64_t)ready;
    int found = epoll_wait(epoll, events, EVENTS, 1);
    for (int i = 0; i < found; i++) {
        if (events[i].data.u32 == UINT32_MAX) on_redis();
        else if (sockets[events[i].data.u32].fd >= 0) on_readable(&sockets[events[i].data.u32]);
    }
    if (received + (uint64_t)ready != before) progress = now();
}

static void connect_all(void) {
    double deadline = now() + CONNECT_SECONDS;
    for (int opened = 0; ready < total; turn()) {
        while (opened < total && opened - ready < HANDSHAKES) open_socket(opened++);
        if (disconnected || now() > deadline)
            errx(1, "%d of %d connections are ready, %lu were closed by the server", ready, total, disconnected);
    }
}

/* Publishes until time is up and there is something to report, or nothing has come for so long that nothing will. */
static bool run_for(double length, double began) {
    for (double end = now() + length; now() < end || (measuring && !latency.count); turn()) {
        publish_what_is_due(began);
        if (aside) ping(&sockets[total - 1]);
        if (expected > received && now() - progress > STALL_SECONDS) return false;
    }
    return true;
}

static void print_report(struct span connect, struct span work) {
    printf("{\"connections\": %d, \"connect_seconds\": %.4f, \"connect_cpu\": %.4f, \"published\": %lu, "
           "\"expected\": %lu, \"received\": %lu, \"lost\": %lu, \"duplicates\": %lu, \"reordered\": %lu, "
           "\"disconnected\": %lu, \"deliveries\": %lu, \"seconds\": %.4f, \"server_cpu\": %.4f, \"load_cpu\": %.4f, "
           "\"latency_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"longest\": %.3f}, "
           "\"ping_ms\": {\"p50\": %.3f, \"p99\": %.3f, \"longest\": %.3f}}\n",
           total, connect.seconds, connect.server_cpu, published, expected, received, expected - received, duplicates,
           reordered, disconnected, latency.count, work.seconds, work.server_cpu, work.load_cpu,
           quantile(&latency, 0.5), quantile(&latency, 0.99), (double)latency.longest / 1e3, quantile(&pings, 0.5),
           quantile(&pings, 0.99), (double)pings.longest / 1e3);
    fflush(stdout);
}

static struct span measure(void) {
    double began = progress = now();
    bool alive = run_for(warmup, began);
    struct span from = clocks();
    measuring = true;
    if (alive) run_for(seconds, began);
    measuring = false;
    struct span work = since(from);
    while (expected > received && now() - progress < STALL_SECONDS) turn();
    for (double end = now() + 0.1; now() < end;) turn(); /* what comes twice comes last */
    return work;
}

static void read_options(int argc, char **arguments) {
    for (int i = 1; i < argc; i += 2) {
        size_t known = 0;
        while (known < KNOWN && strcmp(OPTIONS[known].name, arguments[i])) known++;
        if (known == KNOWN || i + 1 == argc) errx(1, "what is %s?", arguments[i]);
        *OPTIONS[known].value = strtod(arguments[i + 1], NULL);
    }
    if (!port || connections < 1 || channels < 1 || (int)connections % (int)channels || size > 60000)
        errx(1, "needs --port, and as many --connections in each of the --channels");
    if (silent && (channels > 1 || silent >= connections)) errx(1, "some of one channel must read");
    if (!hold && !clients && !redis_port) errx(1, "needs --redis, --clients 1 or --hold");
}

int main(int argc, char **arguments) {
    read_options(argc, arguments);
    total = (int)connections + (aside ? 1 : 0);
    publishers = clients ? (int)(connections / channels) : 1;
    alarm((unsigned)(CONNECT_SECONDS + hold + warmup + seconds + 4 * STALL_SECONDS));
    sockets = calloc((size_t)total, sizeof *sockets);
    tracks = calloc((size_t)total * (size_t)publishers, sizeof *tracks);
    numbers = calloc((size_t)total, sizeof *numbers);
    epoll = epoll_create1(0);
    if (server && clock_getcpuclockid((pid_t)server, &server_clock)) errx(1, "no process %d", (int)server);
    if (redis_port) watch(redis = dial((int)redis_port), UINT32_MAX);
    struct span from = clocks();
    connect_all();
    struct span connect = since(from), work = hold ? (struct span){0} : measure();
    print_report(connect, work);
    for (double end = now() + hold; now() < end;) turn();
    return 0;
}
