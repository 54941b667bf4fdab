"""router.py UPLINKS INTERVAL: advertises on isp0, isp1, ... at once, when it is asked, and every INTERVAL seconds.

Every advertisement says the same (RFC 4861, RFC 8781): router for 30 minutes, a prefix, PREF64 64:ff9b::/96.
"""

import ipaddress
import select
import socket
import struct
import sys
import time

ALL_NODES, ALL_ROUTERS = "ff02::1", "ff02::2"
SOLICITATION, ADVERTISEMENT = 133, 134


def advertisement(k):
    prefix = ipaddress.IPv6Address("3fff::") + (k << 64)
    lifetime = 1800
    return b"".join(
        [
            struct.pack("!BBHBBHII", ADVERTISEMENT, 0, 0, 64, 0, lifetime, 0, 0),
            # Prefix information: on-link and autonomous.
            struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + prefix.packed,
            # PREF64 with a /96: the code is 0, the lifetime in the upper 13 bits.
            struct.pack("!BBH", 38, 2, lifetime // 8 << 3) + ipaddress.IPv6Address("64:ff9b::").packed[:12],
        ]
    )


def main():
    uplinks, interval = int(sys.argv[1]), float(sys.argv[2])
    sockets = {}
    for k in range(uplinks):
        index = socket.if_nametoindex(f"isp{k}")
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"isp{k}".encode())
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
        # ICMP6_FILTER (1): everything is blocked but solicitations.
        blocked = [0xFFFFFFFF] * 8
        blocked[SOLICITATION >> 5] &= ~(1 << (SOLICITATION & 31))
        raw.setsockopt(socket.IPPROTO_ICMPV6, 1, struct.pack("=8I", *blocked))
        group = ipaddress.IPv6Address(ALL_ROUTERS).packed + struct.pack("=I", index)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
        raw.bind(("fe80::1", 0, 0, index))
        sockets[raw] = (k, index)

    def send(raw):
        k, index = sockets[raw]
        raw.sendto(advertisement(k), (ALL_NODES, 0, 0, index))

    poll = select.poll()
    numbers = {raw.fileno(): raw for raw in sockets}
    for number in numbers:
        poll.register(number, select.POLLIN)
    for raw in sockets:
        send(raw)
    print("ready", flush=True)
    due = time.monotonic() + (interval or 1e9)
    while True:
        for number, _ in poll.poll(max(due - time.monotonic(), 0) * 1000 + 1 if interval else None):
            raw = numbers[number]
            raw.recv(1500)
            send(raw)
        if time.monotonic() >= due:
            for raw in sockets:
                send(raw)
            due += interval


main()
