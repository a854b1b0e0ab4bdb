/* A link between two network namespaces: what one TUN device sends comes out of the other, after the time that a line
   of this rate takes for it and for what is before it, and a delay. Dropped is what finds the queue before the line
   full, and beyond that a random share. Both directions are alike.

       link NAMESPACE DEVICE NAMESPACE DEVICE BITS_PER_SECOND DELAY_US QUEUE_BYTES LOSS SEED

   Namespaces are paths, LOSS is a share of packets. It says "up" once it forwards. At SIGTERM it says as JSON how many
   packets of the second device went through, were lost, and found the queue full, and how late it was at the most,
   in microseconds.

   The kernel hands over what TCP sends at a time, up to 64 kB, as it does to a network card that cuts that into packets
   by itself; and takes it like that, too. Rate, queue and loss are those of the packets; those in a row that arrive are
   given out together when the last one is due. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { WAITING = 1 << 14, BYTES = 1 << 16, TICK_NS = 100000, FIN_PSH = 0x09, CWR = 0x80 };

struct burst { /* packets in a row, as the kernel takes them */
    int64_t due;
    int size;
    struct virtio_net_hdr head;
    unsigned char data[];
};

struct way {
    int in, out;
    int64_t line_free; /* when the line has sent all that it was given */
    unsigned first, count;
    long passed, lost, overflowed;
    struct burst *ring[WAITING];
};

static volatile sig_atomic_t is_over;

static void end(int signal) {
    (void)signal;
    is_over = 1;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static int open_device(const char *namespace, const char *name) {
    int place = open(namespace, O_RDONLY);
    if (place < 0 || setns(place, CLONE_NEWNET)) fail(namespace);
    close(place);
    int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (device < 0 || ioctl(device, TUNSETIFF, &request)) fail(name);
    if (ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) fail(name);
    return device;
}

static uint64_t state;

static double draw(void) { /* xorshift64*, in [0, 1) */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 2685821657736338717ULL >> 11) * 0x1p-53;
}

static double ns_per_byte, loss;
static int64_t delay, queue_ns, latest;

static uint16_t load(const unsigned char *at) { return at[0] << 8 | at[1]; }

static void store(unsigned char *at, unsigned value) {
    at[0] = value >> 8;
    at[1] = value;
}

/* Put into the queue what TCP sent, of which the payload from start to stop arrives at a time. */
static void keep(struct way *way, const struct virtio_net_hdr *head, const unsigned char *data, int headers, int start,
                 int stop, int end, int64_t due) {
    struct burst *burst = malloc(sizeof(struct burst) + headers + stop - start);
    if (!burst) fail("memory");
    burst->due = due;
    burst->head = *head;
    burst->size = headers + stop - start;
    memcpy(burst->data, data, headers);
    memcpy(burst->data + headers, data + headers + start, stop - start);
    if (start || stop < end) { /* a part: with headers of its own */
        int ip = (data[0] & 15) * 4;
        unsigned char *tcp = burst->data + ip;
        uint32_t number = htonl((load(tcp + 4) << 16 | load(tcp + 6)) + (uint32_t)start), sum = 0;
        memcpy(tcp + 4, &number, 4);
        if (start) tcp[13] &= ~CWR;
        if (stop < end) tcp[13] &= ~FIN_PSH;
        if (stop - start <= head->gso_size) burst->head.gso_type = burst->head.gso_size = 0;
        store(burst->data + 2, burst->size);
        store(burst->data + 10, 0);
        for (int i = 0; i < ip; i += 2) sum += load(burst->data + i);
        sum = (sum & 0xffff) + (sum >> 16);
        store(burst->data + 10, ~(sum + (sum >> 16)));
    }
    way->ring[(way->first + way->count++) % WAITING] = burst;
}

/* One packet on the line; whether it arrives. */
static int send_packet(struct way *way, int64_t time, int size) {
    if (way->line_free < time) way->line_free = time;
    if (way->line_free - time > queue_ns) {
        way->overflowed++;
        return 0;
    }
    way->line_free += size * ns_per_byte;
    if (draw() < loss) { /* on the line: it has taken its time there */
        way->lost++;
        return 0;
    }
    way->passed++;
    return 1;
}

static void take_in(struct way *way) {
    static struct {
        struct virtio_net_hdr head;
        unsigned char data[BYTES];
    } in;
    while (way->count < WAITING - 64) { /* a burst has fewer packets than that; what has no place waits in the device */
        ssize_t size = read(way->in, &in, sizeof in) - sizeof in.head;
        if (size < 20) return;
        int64_t time = now();
        int is_cut = in.head.gso_type != VIRTIO_NET_HDR_GSO_NONE, ip = (in.data[0] & 15) * 4;
        int headers = is_cut ? ip + (in.data[ip + 12] >> 4) * 4 : size;
        int end = size - headers, step = is_cut ? in.head.gso_size : 1, start = 0, stop = 0;
        do { /* start to stop is what arrives of it so far, and is not queued yet */
            int more = stop + step < end ? step : end - stop;
            if (send_packet(way, time, headers + more)) {
                stop += more;
                if (stop < end) continue;
                keep(way, &in.head, in.data, headers, start, stop, end, way->line_free + delay);
            } else {
                if (start < stop) keep(way, &in.head, in.data, headers, start, stop, end, way->line_free + delay);
                start = stop += more;
            }
        } while (stop < end);
    }
}

static void give_out(struct way *way) {
    int64_t time = now();
    while (way->count && way->ring[way->first]->due <= time) {
        struct burst *burst = way->ring[way->first];
        if (write(way->out, &burst->head, sizeof burst->head + burst->size) < 0) fail("a device");
        if (time - burst->due > latest) latest = time - burst->due;
        free(burst);
        way->first = (way->first + 1) % WAITING;
        way->count--;
    }
}

int main(int count, char **words) {
    if (count != 10) return 2;
    int near = open_device(words[1], words[2]), far = open_device(words[3], words[4]);
    ns_per_byte = 8e9 / atof(words[5]);
    delay = atoll(words[6]) * 1000;
    queue_ns = atoll(words[7]) * ns_per_byte;
    loss = atof(words[8]);
    state = atoll(words[9]) * 2 + 1;
    static struct way ways[2];
    ways[0].in = ways[1].out = near;
    ways[1].in = ways[0].out = far;
    struct sigaction action = {.sa_handler = end};
    sigaction(SIGTERM, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1);
    puts("up");
    fflush(stdout);
    struct pollfd both[] = {{.fd = near, .events = POLLIN}, {.fd = far, .events = POLLIN}};
    const struct timespec tick = {.tv_nsec = TICK_NS};
    while (!is_over) {
        for (int i = 0; i < 2; i++) {
            take_in(&ways[i]);
            give_out(&ways[i]);
        }
        if (ways[0].count || ways[1].count)
            nanosleep(&tick, NULL);
        else
            poll(both, 2, 100);
    }
    printf("{\"passed\": %ld, \"lost\": %ld, \"overflowed\": %ld, \"latest_us\": %ld}\n", ways[1].passed, ways[1].lost,
           ways[1].overflowed, (long)(latest / 1000));
    return 0;
}
