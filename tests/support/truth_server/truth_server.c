/* A streaming server that knows the truth: truth_server TTFT_NS ITL_NS TOKENS TRUTH_FILE
 *
 * Answers POST /generate as SGLang does, POST /v1/completions and /v1/chat/completions as vLLM does (streams
 * only, usage in every chunk), and any GET with a list of one model, "m". One write per token, on an absolute schedule counted from the kernel's
 * receive time of the request. Prints its port, then, at SIGTERM, writes for every request to TRUTH_FILE:
 * int64 serial, received_ns, count, then `count` send times, all CLOCK_MONOTONIC nanoseconds.
 * The serial of a request is the `prompt_tokens` of its answer. One thread, epoll, SCHED_FIFO if permitted.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL
#define CAPACITY (1 << 20)

struct answer {
    int64_t serial, received_ns, count;
    int64_t *sent_ns;
};
struct peer {
    int fd, place;          /* place in the heap, -1 when nothing is due */
    int wire;               /* of the request under way */
    int64_t due_ns, step;
    size_t size, used, body_at, body_bytes;
    char *input;
    struct answer *answer;
};

enum { GENERATE, COMPLETIONS, CHAT };

static int64_t ttft_ns, itl_ns, tokens, realtime_offset_ns;
static struct answer *answers[CAPACITY];
static int64_t answered;
static struct peer *heap[65536];
static int due_count;
static volatile sig_atomic_t is_over;

static void stop(int number) { (void)number; is_over = 1; }

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * NS + now.tv_nsec;
}

static void measure_offset(void) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 1000; i++) {
        int64_t before = clock_ns(CLOCK_MONOTONIC), real = clock_ns(CLOCK_REALTIME);
        int64_t after = clock_ns(CLOCK_MONOTONIC);
        if (after - before < best) {
            best = after - before;
            realtime_offset_ns = real - (before + after) / 2;
        }
    }
}

/* --- the heap of peers that have something due --- */

static void put(int place, struct peer *peer) { heap[place] = peer; peer->place = place; }

static void sift_up(int place) {
    struct peer *peer = heap[place];
    for (int up; place && heap[up = (place - 1) / 2]->due_ns > peer->due_ns; place = up) put(place, heap[up]);
    put(place, peer);
}

static void sift_down(int place) {
    struct peer *peer = heap[place];
    for (int down; (down = 2 * place + 1) < due_count; place = down) {
        if (down + 1 < due_count && heap[down + 1]->due_ns < heap[down]->due_ns) down++;
        if (heap[down]->due_ns >= peer->due_ns) break;
        put(place, heap[down]);
    }
    put(place, peer);
}

static void schedule(struct peer *peer, int64_t due_ns) {
    peer->due_ns = due_ns;
    if (peer->place < 0) {
        heap[due_count] = peer;
        sift_up(due_count++);
    } else {
        sift_down(peer->place);
    }
}

static void forget(struct peer *peer) {
    if (peer->place < 0) return;
    int place = peer->place;
    peer->place = -1;
    struct peer *last = heap[--due_count];
    if (last == peer) return;
    put(place, last);
    sift_up(place);
    sift_down(last->place);
}

/* --- requests --- */

static void hang_up(struct peer *peer) {
    forget(peer);
    close(peer->fd);
    free(peer->input);
    free(peer);
}

static int64_t asked_tokens(const char *body) {
    static const char *names[] = {"\"max_new_tokens\":", "\"max_tokens\":", "\"max_completion_tokens\":"};
    for (int i = 0; i < 3; i++) {
        const char *found = strstr(body, names[i]);
        int64_t asked = found ? atoll(found + strlen(names[i])) : 0;
        if (asked > 0) return asked;
    }
    return tokens;
}

static void answer_get(struct peer *peer) {
    static const char body[] = "{\"object\": \"list\", \"data\": [{\"id\": \"m\", \"object\": \"model\", "
                               "\"max_model_len\": 131072}]}";
    char whole[512];
    int size = snprintf(whole, sizeof whole, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                        "content-length: %d\r\n\r\n%s", (int)sizeof body - 1, body);
    peer->used = peer->body_at = 0;
    if (send(peer->fd, whole, size, MSG_NOSIGNAL) < 0) return;
}

static void begin_answer(struct peer *peer, int64_t received_ns) {
    static const char head[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    struct answer *answer = malloc(sizeof *answer);
    answer->serial = answered + 1;
    answer->received_ns = received_ns;
    answer->count = asked_tokens(peer->input + peer->body_at);
    peer->wire = strncmp(peer->input, "POST /v1/chat", 13) ? strncmp(peer->input, "POST /v1/", 9) ? GENERATE
                 : COMPLETIONS : CHAT;
    answer->sent_ns = calloc(answer->count, sizeof(int64_t));
    if (answered < CAPACITY) answers[answered] = answer;
    answered++;
    peer->answer = answer;
    peer->step = 0;
    peer->used = peer->body_at = 0;
    if (send(peer->fd, head, sizeof head - 1, MSG_NOSIGNAL) < 0) return;
    schedule(peer, received_ns + ttft_ns);
}

static void take_request(struct peer *peer, int64_t received_ns) {
    peer->input[peer->used] = 0;
    if (!peer->body_at) {
        char *end = strstr(peer->input, "\r\n\r\n"), *length = strcasestr(peer->input, "content-length:");
        if (!end) return;
        peer->body_at = end + 4 - peer->input;
        peer->body_bytes = length ? strtoul(length + 15, NULL, 10) : 0;
    }
    if (peer->used < peer->body_at + peer->body_bytes) return;
    if (!strncmp(peer->input, "POST ", 5)) begin_answer(peer, received_ns);
    else answer_get(peer);
}

static void readable(struct peer *peer) {
    char control[64];
    if (peer->size - peer->used < 65536) peer->input = realloc(peer->input, (peer->size += 65536) + 1);
    struct iovec into = {peer->input + peer->used, peer->size - peer->used};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t got = recvmsg(peer->fd, &message, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { hang_up(peer); return; }
    int64_t at_ns = clock_ns(CLOCK_MONOTONIC);
    struct cmsghdr *about = CMSG_FIRSTHDR(&message);
    if (about && about->cmsg_type == SO_TIMESTAMPNS) {
        struct timespec stamp;
        memcpy(&stamp, CMSG_DATA(about), sizeof stamp);
        if (stamp.tv_sec) at_ns = stamp.tv_sec * NS + stamp.tv_nsec - realtime_offset_ns;
    }
    peer->used += got;
    take_request(peer, at_ns);
}

static int write_openai_event(char *event, size_t most, struct peer *peer, long total, int is_last) {
    int is_chat = peer->wire == CHAT;
    long serial = peer->answer->serial;
    return snprintf(event, most,
        "data: {\"id\": \"cmpl-0123456789abcdef0123456789abcdef\", \"object\": \"%s\", \"created\": 1700000000, "
        "\"model\": \"m\", \"choices\": [{\"index\": 0, %s, \"logprobs\": null, \"finish_reason\": %s}], "
        "\"usage\": {\"prompt_tokens\": %ld, \"total_tokens\": %ld, \"completion_tokens\": %ld}}\n\n",
        is_chat ? "chat.completion.chunk" : "text_completion",
        is_chat ? "\"delta\": {\"content\": \" a piece\"}" : "\"text\": \" a piece\"",
        is_last ? "\"length\"" : "null", serial, serial + total, total);
}

static int write_generate_event(char *event, size_t most, struct peer *peer, long total, int is_last) {
    char finish[64] = "null";
    if (is_last) snprintf(finish, sizeof finish, "{\"type\": \"length\", \"length\": %ld}", total);
    return snprintf(event, most,
        "data: {\"text\": \" a piece of text\", \"output_ids\": [%ld], \"meta_info\": {\"id\": "
        "\"0123456789abcdef0123456789abcdef\", \"finish_reason\": %s, \"prompt_tokens\": %ld, "
        "\"weight_version\": \"default\", \"completion_tokens\": %ld, \"cached_tokens\": 0, "
        "\"e2e_latency\": 0.123}}\n\n",
        1000 + total, finish, (long)peer->answer->serial, total);
}

static void send_token(struct peer *peer) {
    static char event[1024], chunk[1100];
    struct answer *answer = peer->answer;
    int64_t total = ++peer->step;
    int is_last = total == answer->count;
    int size = (peer->wire == GENERATE ? write_generate_event : write_openai_event)(
        event, sizeof event, peer, total, is_last);
    int bytes = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", size, event);
    answer->sent_ns[total - 1] = clock_ns(CLOCK_MONOTONIC);
    ssize_t sent = send(peer->fd, chunk, bytes, MSG_NOSIGNAL);
    if (sent != bytes) { forget(peer); shutdown(peer->fd, SHUT_RDWR); return; }
    if (!is_last) { schedule(peer, peer->due_ns + itl_ns); return; }
    forget(peer);
    static const char end[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
    send(peer->fd, end, sizeof end - 1, MSG_NOSIGNAL);
}

static void send_what_is_due(int timer) {
    while (due_count && heap[0]->due_ns <= clock_ns(CLOCK_MONOTONIC)) send_token(heap[0]);
    struct itimerspec at = {0};
    if (due_count) {
        at.it_value.tv_sec = heap[0]->due_ns / NS;
        at.it_value.tv_nsec = heap[0]->due_ns % NS;
    }
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void accept_all(int listener, int epoll) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
        struct peer *peer = calloc(1, sizeof *peer);
        peer->fd = fd;
        peer->place = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_somewhere(void) {
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) exit(1);
    getsockname(listener, (void *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void write_truth(const char *path) {
    FILE *file = fopen(path, "wb");
    for (int64_t i = 0; file && i < answered && i < CAPACITY; i++) {
        fwrite(answers[i], sizeof(int64_t), 3, file);
        fwrite(answers[i]->sent_ns, sizeof(int64_t), answers[i]->count, file);
    }
    if (file) fclose(file);
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    ttft_ns = atoll(arguments[1]);
    itl_ns = atoll(arguments[2]);
    tokens = atoll(arguments[3]);
    struct sched_param priority = {.sched_priority = 50};
    fprintf(stderr, "fifo %s\n", sched_setscheduler(0, SCHED_FIFO, &priority) ? "refused" : "granted");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    measure_offset();
    struct sigaction ending = {.sa_handler = stop};
    sigaction(SIGTERM, &ending, NULL);
    int listener = listen_somewhere(), epoll = epoll_create1(0);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event first = {.events = EPOLLIN, .data.ptr = &listener}, second = first, events[256];
    second.data.ptr = &timer;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &first);
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &second);
    while (!is_over) {
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            uint64_t expired;
            if (who == &listener) accept_all(listener, epoll);
            else if (who == &timer) { if (read(timer, &expired, sizeof expired) < 0) continue; }
            else readable(who);
        }
        send_what_is_due(timer);
    }
    write_truth(arguments[4]);
    return 0;
}
