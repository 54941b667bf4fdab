/* Loaded before clatd (LD_PRELOAD): a kernel that refuses what $REFUSED names of TUN devices, as older ones do.
   Each refusal leaves the file $REFUSALS. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Since Linux 6.2. */
#define USO (0x20 | 0x40)

static int refused(const char *what)
{
	const char *all = getenv("REFUSED");
	return all && strstr(all, what);
}

int ioctl(int fd, unsigned long request, ...)
{
	static int queues;
	int (*real)(int, unsigned long, void *) = dlsym(RTLD_NEXT, "ioctl");
	va_list arguments;
	va_start(arguments, request);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);

	int no = 0;
	if (request == TUNSETIFF) {
		short flags = ((struct ifreq *)argument)->ifr_flags;
		no = (refused("multi-queue") && flags & IFF_MULTI_QUEUE) || (refused("headers") && flags & IFF_VNET_HDR) ||
		     (refused("second-queue") && queues);
		queues += !no;
	} else if (request == TUNSETOFFLOAD) {
		no = (refused("offloads") && argument) || (refused("uso") && (unsigned long)argument & USO);
	}
	if (no) {
		int mark = open(getenv("REFUSALS"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		if (mark >= 0)
			close(mark);
		errno = EINVAL;
		return -1;
	}
	return real(fd, request, argument);
}
