#!/usr/bin/env python3
"""The IPv4-only internet of the lab, and the one client that no packaged program offers.

  lab-net.py serve ADDRESS             HTTP on 80, TCP and UDP echo on 7, until killed
  lab-net.py udp ADDRESS SIZE...       UDP echo of SIZE bytes of payload each; exit 1 if an answer is missing or differs
                                       (--source ADDRESS, --device NAME, --tries N, --no-checksum)

  lab-net.py advertise DEVICE          one router advertisement (RFC 4861) to all nodes, as no packaged router sends it;
                                       prints when (--pref64 PREFIX=LIFETIME, --prefix PREFIX=VALID,PREFERRED,
                                       --rdnss ADDRESS=LIFETIME, --router-lifetime N, --when-told: says "ready", and
                                       waits for a line)
  lab-net.py neighbour DEVICE          a node that claims addresses of others, on a device without IPv6:
                                       --advertise ADDRESS --times N advertises it N times (0: for ever), a second apart;
                                       --take PREFIX --spare ADDRESS claims every address that anybody asks for,
                                       --delay SECONDS later; says "ready" when it listens
  lab-net.py outage ADDRESS            UDP echo every 10 ms: prints each time at which answers begin or end, and the longest
                                       time between two, until killed

HTTP: GET /blob?size=N    N bytes, never the same block twice; header X-SHA256 tells their hash
      PUT /upload         answers the SHA-256 of the body
      GET /whoami         answers the address the request came from
"""

import argparse
import contextlib
import functools
import hashlib
import ipaddress
import os
import random
import socket
import socketserver
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

BLOCK = random.Random(464).randbytes(1 << 20)


def blob(size):
    """Yields `size` bytes: one random block after another, each begun with its number."""
    for number in range(0, (size + len(BLOCK) - 1) // len(BLOCK)):
        block = number.to_bytes(8, "big") + BLOCK[8:]
        yield block[: size - number * len(BLOCK)]


@functools.lru_cache(maxsize=8)
def blob_hash(size):
    digest = hashlib.sha256()
    for block in blob(size):
        digest.update(block)
    return digest.hexdigest()


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, text):
        body = (text + "\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        url = urlparse(self.path)
        if url.path == "/whoami":
            self.answer(self.client_address[0])
        elif url.path == "/blob":
            size = int(parse_qs(url.query).get("size", ["1000000"])[0])
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("X-SHA256", blob_hash(size))
            self.end_headers()
            for block in blob(size):
                self.wfile.write(block)
        else:
            self.send_error(404)

    def do_PUT(self):
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left > 0:
            block = self.rfile.read(min(left, 1 << 20))
            if not block:
                return
            digest.update(block)
            left -= len(block)
        self.answer(digest.hexdigest())


class TcpEcho(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(1 << 16):
            self.request.sendall(data)


def serve(address):
    ThreadingHTTPServer.request_queue_size = 64
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    web = ThreadingHTTPServer((address, 80), Web)
    echo = socketserver.ThreadingTCPServer((address, 7), TcpEcho)
    echo.daemon_threads = True
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, 7))
    # A server does not care for the path MTU: its answers may be fragmented on the way.
    udp.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER = IP_PMTUDISC_DONT
    threading.Thread(target=web.serve_forever, daemon=True).start()
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    while True:
        data, peer = udp.recvfrom(1 << 16)
        udp.sendto(data, peer)


def udp_client(options):
    failed = False
    for size in options.sizes:
        payload = os.urandom(size)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1.0)
            if options.device:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode())
            if options.no_checksum:
                client.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
            if options.source:
                client.bind((options.source, 0))
            client.connect((options.address, 7))
            for attempt in range(options.tries):
                try:
                    client.send(payload)
                    verdict = "ok" if client.recv(1 << 16) == payload else "differs"
                    break
                except OSError as error:
                    # Too long for a path MTU learned just now, or lost: once more.
                    verdict = f"no answer ({error})"
            print(f"udp {size} bytes: {verdict}")
            failed |= verdict != "ok"
    sys.exit(failed)


def advertise(arguments):
    """Sends one router advertisement with PREF64 (RFC 8781) and RDNSS (RFC 8106) options from the device's own address."""
    lengths = {96: 0, 64: 1, 56: 2, 48: 3, 40: 4, 32: 5}
    packet = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, arguments.router_lifetime, 0, 0)
    for option in arguments.pref64:
        text, lifetime = option.rsplit("=", 1)
        prefix = ipaddress.IPv6Network(text)
        scaled = (int(lifetime) + 7) // 8
        packet += struct.pack("!BBH", 38, 2, scaled << 3 | lengths[prefix.prefixlen]) + prefix.network_address.packed[:12]
    for option in arguments.prefix:
        text, lifetimes = option.rsplit("=", 1)
        prefix = ipaddress.IPv6Network(text)
        valid, preferred = (int(lifetime) for lifetime in lifetimes.split(","))
        packet += struct.pack("!BBBBIII", 3, 4, prefix.prefixlen, 0xC0, valid, preferred, 0) + prefix.network_address.packed
    for option in arguments.rdnss:
        text, lifetime = option.rsplit("=", 1)
        packet += struct.pack("!BBHI", 25, 3, 0, int(lifetime)) + ipaddress.IPv6Address(text).packed
    index = socket.if_nametoindex(arguments.device)
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        if arguments.when_told:
            print("ready", flush=True)
            sys.stdin.readline()
        raw.sendto(packet, ("ff02::1", 0, 0, index))
    print(f"{time.time():.6f}")


def neighbour(arguments):
    """Advertises addresses as its own (RFC 4861), as no decent program does."""
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
    link.bind((arguments.device, 0x86DD))
    mac = link.getsockname()[4]
    link.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex(arguments.device), 2, 0, b""))  # PACKET_MR_ALLMULTI

    def claim(target):
        everybody = ipaddress.IPv6Address("ff02::1").packed
        message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + target + b"\x02\x01" + mac
        pseudo = target + everybody + struct.pack("!II", len(message), 58) + message
        total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        message = message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]
        header = struct.pack("!IHBB", 6 << 28, len(message), 58, 255) + target + everybody
        link.send(b"\x33\x33\x00\x00\x00\x01" + mac + b"\x86\xdd" + header + message)

    print("ready", flush=True)
    claimed = [ipaddress.IPv6Address(text).packed for text in arguments.advertise]
    spared = [ipaddress.IPv6Address(text).packed for text in arguments.spare]
    prefix = ipaddress.IPv6Network(arguments.take) if arguments.take else None
    times, due = arguments.times, time.monotonic()
    while times != 1 or due > time.monotonic():
        if time.monotonic() >= due:
            due, times = due + 1, times - 1
            for target in claimed:
                claim(target)
        link.settimeout(max(0.001, due - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            frame = link.recv(2048)
            target = frame[62:78]
            solicited = len(frame) >= 78 and frame[20] == 58 and frame[54] == 135 and frame[6:12] != mac
            if prefix and solicited and ipaddress.IPv6Address(target) in prefix and target not in spared:
                time.sleep(arguments.delay)
                claim(target)
                if target not in claimed:
                    claimed.append(target)
                    print("claimed", ipaddress.IPv6Address(target), flush=True)
    for target in claimed:
        claim(target)


def outage(arguments):
    """Whether the echo answers: a line `up TIME` or `down TIME` for each change, TIME of the first or last answer."""
    up, last, number, longest = False, time.time(), 0, 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.01)
        print("begun", flush=True)
        while True:
            number += 1
            begun = time.time()
            with contextlib.suppress(OSError):
                client.sendto(number.to_bytes(8, "big"), (arguments.address, 7))
            with contextlib.suppress(OSError):
                client.recv(1 << 16)
                gap, last = time.time() - last, time.time()
                if up and gap > longest:
                    longest = gap
                    print(f"gap {gap:.6f}", flush=True)
                if not up:
                    up = True
                    print(f"up {last:.6f}", flush=True)
            if up and time.time() - last > arguments.limit:
                up = False
                print(f"down {last:.6f}", flush=True)
            time.sleep(max(0.0, begun + 0.01 - time.time()))


def main():
    parser = argparse.ArgumentParser()
    modes = parser.add_subparsers(dest="mode", required=True)
    router = modes.add_parser("advertise")
    router.add_argument("device")
    router.add_argument("--pref64", action="append", default=[])
    router.add_argument("--prefix", action="append", default=[])
    router.add_argument("--rdnss", action="append", default=[])
    router.add_argument("--router-lifetime", type=int, default=1800)
    router.add_argument("--when-told", action="store_true")
    hostile = modes.add_parser("neighbour")
    hostile.add_argument("device")
    hostile.add_argument("--advertise", action="append", default=[])
    hostile.add_argument("--times", type=int, default=0)
    hostile.add_argument("--take")
    hostile.add_argument("--spare", action="append", default=[])
    hostile.add_argument("--delay", type=float, default=0)
    watcher = modes.add_parser("outage")
    watcher.add_argument("address")
    watcher.add_argument("--limit", type=float, default=0.1)
    server = modes.add_parser("serve")
    server.add_argument("address")
    client = modes.add_parser("udp")
    client.add_argument("address")
    client.add_argument("sizes", type=int, nargs="+")
    client.add_argument("--source")
    client.add_argument("--device")
    client.add_argument("--no-checksum", action="store_true")
    client.add_argument("--tries", type=int, default=3)
    options = parser.parse_args()
    if options.mode == "serve":
        serve(options.address)
    elif options.mode == "advertise":
        advertise(options)
    elif options.mode == "neighbour":
        neighbour(options)
    elif options.mode == "outage":
        outage(options)
    else:
        udp_client(options)


main()
