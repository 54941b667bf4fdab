/* Sends UDP packets of one size as fast as one core can, or counts those that arrive: iperf3 needs a core for itself
 * long before a good translator does.
 *
 *   flood send ADDRESS SIZE MILLISECONDS [FLOWS]
 *                                           in turns to as many addresses from this one on, at most 65536
 *   flood count MILLISECONDS                thousand packets a second, from the first that comes
 *   flood fragments ADDRESS MILLISECONDS    datagrams of 4000 octets in four fragments each, which nobody cuts here:
 *                                           that would take longer than to translate them
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netdb.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

enum { BATCH = 32, LARGEST = 4096, MOST_FLOWS = 65536 };
static const char PORT[] = "5999";

static char data[BATCH][LARGEST];
static struct iovec pieces[BATCH];
static struct mmsghdr messages[BATCH];
static struct sockaddr_storage targets[BATCH];

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* A connected socket, or a bound one where there is no address. */
static int open_socket(const char *address)
{
	struct addrinfo hints = { .ai_family = address ? AF_UNSPEC : AF_INET6,
				  .ai_socktype = SOCK_DGRAM,
				  .ai_flags = AI_NUMERICHOST | AI_PASSIVE };
	struct addrinfo *found;
	int error = getaddrinfo(address, PORT, &hints, &found);
	if (error)
		errx(1, "%s: %s", address, gai_strerror(error));
	int s = socket(found->ai_family, found->ai_socktype, 0);
	if (s < 0)
		err(1, "socket");
	if (address ? connect(s, found->ai_addr, found->ai_addrlen) : bind(s, found->ai_addr, found->ai_addrlen))
		err(1, address ? "connect" : "bind");
	freeaddrinfo(found);
	return s;
}

static void prepare(size_t size)
{
	for (int i = 0; i < BATCH; i++) {
		pieces[i] = (struct iovec){ data[i], size };
		messages[i].msg_hdr.msg_iov = &pieces[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
}

/* The last two octets of the address of a message. */
static unsigned char *low_octets(int message)
{
	struct sockaddr_storage *target = &targets[message];
	return target->ss_family == AF_INET6 ? ((struct sockaddr_in6 *)target)->sin6_addr.s6_addr + 14 :
					       (unsigned char *)&((struct sockaddr_in *)target)->sin_addr + 2;
}

/* The messages of a batch go to the next addresses, in turns, all from the first one on. */
static void spread(int flows)
{
	static unsigned first, next;
	unsigned char *low;
	if (!next)
		low = low_octets(0), first = low[0] << 8 | low[1];
	for (int i = 0; i < BATCH; i++, next++) {
		unsigned address = first + next % flows;
		low = low_octets(i);
		low[0] = address >> 8;
		low[1] = address;
	}
}

/* Lets the socket send anywhere, at first to where it is connected. */
static void disconnect(int s)
{
	struct sockaddr_storage peer;
	socklen_t length = sizeof peer;
	if (getpeername(s, (struct sockaddr *)&peer, &length))
		err(1, "getpeername");
	if (connect(s, &(struct sockaddr){ .sa_family = AF_UNSPEC }, sizeof(struct sockaddr)))
		err(1, "disconnect");
	for (int i = 0; i < BATCH; i++) {
		targets[i] = peer;
		messages[i].msg_hdr.msg_name = &targets[i];
		messages[i].msg_hdr.msg_namelen = length;
	}
}

static void send_for(int s, double seconds, int flows)
{
	/* A full queue or an unreachable port now and then is part of the game. */
	for (double end = now() + seconds; now() < end;) {
		if (flows > 1)
			spread(flows);
		sendmmsg(s, messages, BATCH, 0);
	}
}

static void count_for(int s, double seconds)
{
	struct timeval patience = { .tv_sec = 5 };
	int space = 4 << 20;
	long packets = 0;
	setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &space, sizeof space);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (recvmmsg(s, messages, 1, 0, NULL) < 1)
		errx(1, "no packet came");
	double begin = now(), last = begin;
	/* When the stream ends early, the silence counts too. */
	patience = (struct timeval){ .tv_usec = 100000 };
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	while ((last = now()) < begin + seconds) {
		int n = recvmmsg(s, messages, BATCH, MSG_WAITFORONE, NULL);
		if (n > 0)
			packets += n;
	}
	printf("%.1f\n", packets / (last - begin) / 1000);
}

/* What a fragment of IPv4 or IPv6 begins with, for a raw socket, which fills in length, checksum and, of IPv4, source. */
struct head {
	size_t length;
	union {
		struct iphdr four;
		struct {
			struct ip6_hdr six;
			struct ip6_frag fragment;
		};
	};
};

static struct head head_of(const struct sockaddr_storage *from, const struct sockaddr_storage *to, size_t payload,
			   size_t offset, int more)
{
	if (to->ss_family == AF_INET) {
		struct head head = { .length = sizeof head.four };
		head.four = (struct iphdr){ .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP };
		head.four.frag_off = htons(offset / 8 | (more ? IP_MF : 0));
		head.four.daddr = ((struct sockaddr_in *)to)->sin_addr.s_addr;
		return head;
	}
	struct head head = { .length = sizeof head.six + sizeof head.fragment };
	head.six.ip6_vfc = 6 << 4;
	head.six.ip6_plen = htons(sizeof head.fragment + payload);
	head.six.ip6_nxt = IPPROTO_FRAGMENT;
	head.six.ip6_hlim = 64;
	head.six.ip6_src = ((struct sockaddr_in6 *)from)->sin6_addr;
	head.six.ip6_dst = ((struct sockaddr_in6 *)to)->sin6_addr;
	head.fragment.ip6f_nxt = IPPROTO_UDP;
	head.fragment.ip6f_offlg = htons(offset | more);
	return head;
}

/* No translator cuts the parts to the smallest MTU of IPv6. */
static void send_fragments(const char *address, double seconds)
{
	enum { PART = 1200, PARTS = 4 };
	struct sockaddr_storage from, to;
	socklen_t length = sizeof to;
	int udp = open_socket(address);
	if (getpeername(udp, (struct sockaddr *)&to, &length) || getsockname(udp, (struct sockaddr *)&from, &length))
		err(1, "addresses");
	/* With such a socket a port makes no sense. */
	((struct sockaddr_in *)&to)->sin_port = 0;
	int s = socket(to.ss_family, SOCK_RAW, IPPROTO_RAW);
	if (s < 0 || connect(s, (struct sockaddr *)&to, length))
		err(1, "raw socket");
	static struct head heads[BATCH / PARTS * PARTS];
	static struct iovec parts[BATCH][2];
	for (int i = 0; i < BATCH / PARTS * PARTS; i++) {
		size_t payload = i % PARTS < PARTS - 1 ? PART : 4008 - (PARTS - 1) * PART;
		heads[i] = head_of(&from, &to, payload, i % PARTS * PART, i % PARTS < PARTS - 1);
		parts[i][0] = (struct iovec){ &heads[i].four, heads[i].length };
		parts[i][1] = (struct iovec){ data[i % PARTS], payload };
		messages[i].msg_hdr.msg_iov = parts[i];
		messages[i].msg_hdr.msg_iovlen = 2;
	}
	/* The first part begins with the header of UDP: any ports and checksum, and the length. */
	memset(data[0], 1, 8);
	*(unsigned short *)&data[0][4] = htons(4008);
	unsigned datagram = 0;
	for (double end = now() + seconds; now() < end;) {
		for (int i = 0; i < BATCH / PARTS * PARTS; i++) {
			datagram += i % PARTS == 0;
			if (to.ss_family == AF_INET)
				heads[i].four.id = htons(datagram % 0xffff + 1);
			else
				heads[i].fragment.ip6f_ident = htonl(datagram);
		}
		sendmmsg(s, messages, BATCH / PARTS * PARTS, 0);
	}
}

int main(int argc, char **argv)
{
	if ((argc == 5 || argc == 6) && !strcmp(argv[1], "send")) {
		size_t size = strtoul(argv[3], NULL, 10);
		int flows = argc == 6 ? atoi(argv[5]) : 1, s = open_socket(argv[2]);
		if (size > LARGEST)
			errx(1, "at most %d octets", LARGEST);
		if (flows < 1 || flows > MOST_FLOWS)
			errx(1, "1 to %d flows", MOST_FLOWS);
		prepare(size);
		if (flows > 1)
			disconnect(s);
		send_for(s, strtod(argv[4], NULL) / 1000, flows);
	} else if (argc == 4 && !strcmp(argv[1], "fragments")) {
		send_fragments(argv[2], strtod(argv[3], NULL) / 1000);
	} else if (argc == 3 && !strcmp(argv[1], "count")) {
		prepare(LARGEST);
		count_for(open_socket(NULL), strtod(argv[2], NULL) / 1000);
	} else {
		errx(1, "usage: flood send ADDRESS SIZE MILLISECONDS [FLOWS] | flood count MILLISECONDS | "
			"flood fragments ADDRESS MILLISECONDS");
	}
	return 0;
}
