"""Packets that no kernel sends, out of one device by a packet socket: what soak.rs throws at the translator.

damage.py noise DEVICE MAC SOURCE DESTINATION SEED SECONDS    all kinds of packets, most of them damaged, out of order
damage.py pieces DEVICE MAC SOURCE DESTINATION SEED PORT COUNT    datagrams cut into fragments that come in any order,
                                                                   some of them twice; each begins with its number.
                                                                   Each seed has identifications of its own.
MAC is of the next hop, or "-" where the device has none. The addresses tell the IP version. The same seed makes the
same packets. Prints how many packets were sent.
"""

import random
import socket
import struct
import sys
import time
from ipaddress import ip_address

UDP, TCP, ICMP, ICMP6, FRAGMENT = 17, 6, 1, 58, 44


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


class Maker:
    def __init__(self, source, destination, rng):
        self.source, self.destination, self.rng = source.packed, destination.packed, rng
        self.v6 = source.version == 6

    def ip(self, protocol, payload, offset=0, more=False, number=0):
        """A packet; `offset` in octets. A fragment if it has an offset or more is to come."""
        fragment = offset or more
        # Fragments whose ECN bits differ are not put together (RFC 3168 section 5.3).
        tos = 0 if fragment else self.rng.getrandbits(8)
        if self.v6:
            if fragment:
                payload = struct.pack("!BBHI", protocol, 0, offset | more, number) + payload
                protocol = FRAGMENT
            return struct.pack("!IHBB", 6 << 28 | tos << 20 | self.rng.getrandbits(20), len(payload), protocol, 64) + self.source + self.destination + payload
        word = offset // 8 | more << 13 | (0 if fragment else 0x4000)
        head = struct.pack("!BBHHHBBH4s4s", 0x45, tos, 20 + len(payload), number & 0xFFFF, word, 64, protocol, 0, self.source, self.destination)
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload

    def summed(self, protocol, data, at):
        """`data` with its checksum at this place."""
        pseudo = self.source + self.destination + struct.pack("!II", len(data), protocol)
        if protocol == ICMP:
            pseudo = b""
        return data[:at] + struct.pack("!H", checksum(pseudo + data) or 0xFFFF) + data[at + 2 :]

    def udp(self, ports, payload):
        return self.summed(UDP, struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload, 6)

    def any(self):
        rng = self.rng
        # Below the ports that the kernel hands out: nobody's connection is meant.
        ports = (rng.randrange(1, 1024), rng.randrange(1, 1024))
        payload = rng.randbytes(rng.choice((0, 1, 8, 64, 500, 1200, 1400)))
        kind = rng.randrange(7)
        if kind == 0:
            return self.ip(UDP, self.udp(ports, payload))
        if kind == 1:
            return self.ip(TCP, self.summed(TCP, struct.pack("!HHIIBBHHH", *ports, rng.getrandbits(32), 0, 0x50, 2, 999, 0, 0) + payload, 16))
        if kind == 2:
            return self.ip(rng.randrange(256), payload)
        if kind == 3:
            return self.ip(UDP, payload[: len(payload) // 8 * 8], rng.randrange(0, 8000) * 8, rng.random() < 0.5, rng.getrandbits(32))
        message = struct.pack("!BBHI", rng.randrange(256), rng.randrange(18), 0, rng.getrandbits(32))
        if kind == 4 and self.v6:
            # One extension header before the payload.
            extension = bytes((UDP, 0)) + rng.randbytes(6)
            return self.ip(rng.choice((0, 43, 60, 51, 135)), extension + self.udp(ports, payload))
        # An ICMP error about a packet that came the other way, perhaps cut short.
        back = Maker(ip_address(self.destination), ip_address(self.source), rng)
        inner = back.ip(UDP, back.udp(ports, payload))[: rng.randrange(8, 600)]
        kinds = (1, 2, 3, 4) if self.v6 else (3, 11, 12)
        message = struct.pack("!B", rng.choice(kinds)) + message[1:]
        protocol = ICMP6 if self.v6 else ICMP
        return self.ip(protocol, self.summed(protocol, message + inner, 2))

    def damaged(self):
        packet = bytearray(self.any())
        if self.rng.random() < 0.2:
            return bytes(packet)
        for _ in range(self.rng.choice((1, 1, 2, 8))):
            # Headers more often than payload; the version stays, for the kernel's sake.
            at = self.rng.randrange(1, max(2, min(len(packet), self.rng.choice((20, 60, 1500)))))
            packet[at] = self.rng.getrandbits(8)
        if self.rng.random() < 0.2:
            del packet[self.rng.randrange(1, len(packet)) :]
        elif self.rng.random() < 0.1:
            packet += self.rng.randbytes(self.rng.randrange(64))
        return bytes(packet[:1500])


def pattern(number, length):
    return bytes((number * 7 + place) % 251 for place in range(length))


def pieces(maker, seed, port, count):
    for first in range(0, count, 4):
        held = []
        for number in range(first, min(first + 4, count)):
            data = struct.pack("!I", number) + pattern(number, maker.rng.randrange(3000))
            whole = maker.udp((999, port), data)
            at = 0
            while at < len(whole):
                length = maker.rng.randrange(8, 1200) // 8 * 8
                held.append(maker.ip(UDP, whole[at : at + length], at, at + length < len(whole), 1 + seed * count + number))
                at += length
        # Twice the same is no overlap (RFC 8200 section 4.5 lets it pass).
        held += maker.rng.sample(held, len(held) // 8)
        maker.rng.shuffle(held)
        yield from held


def main():
    what, device, mac, source, destination, seed, *rest = sys.argv[1:]
    maker = Maker(ip_address(source), ip_address(destination), random.Random(int(seed)))
    protocol = 0x86DD if maker.v6 else 0x0800
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    hardware = b"" if mac == "-" else bytes.fromhex(mac.replace(":", ""))
    sent = 0

    def send(packet):
        nonlocal sent
        try:
            sender.sendto(packet, (device, protocol, 0, 0, hardware))
            sent += 1
        except OSError as error:
            # A full queue may lose noise, but none of the pieces.
            if what == "pieces":
                raise SystemExit(f"{device}: {error}")

    if what == "noise":
        end = time.monotonic() + float(rest[0])
        while time.monotonic() < end:
            held = [maker.damaged() for _ in range(32)]
            maker.rng.shuffle(held)
            for packet in held:
                send(packet)
    else:
        for packet in pieces(maker, int(seed), int(rest[0]), int(rest[1])):
            send(packet)
            time.sleep(0.0002)
    print(sent)


main()
