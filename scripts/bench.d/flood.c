/* Sends UDP packets of one size as fast as one core can, or counts those that arrive: iperf3 needs a core for itself
 * long before a good translator does.
 *
 *   flood send ADDRESS SIZE MILLISECONDS [FLOWS]
 *                                           in turns to as many addresses from this one on, at most 65536
 *   flood count MILLISECONDS                thousand packets a second, from the first that comes
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netdb.h>
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
	} else if (argc == 3 && !strcmp(argv[1], "count")) {
		prepare(LARGEST);
		count_for(open_socket(NULL), strtod(argv[2], NULL) / 1000);
	} else {
		errx(1, "usage: flood send ADDRESS SIZE MILLISECONDS [FLOWS] | flood count MILLISECONDS");
	}
	return 0;
}
