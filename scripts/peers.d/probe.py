"""One packet, and how it looks on the other side of the CLAT. Prints JSON; packets are written here by hand, byte by byte.

  probe.py LAB address CLAT4                        the CLAT's IPv6 address, by a packet of it
  probe.py LAB out|in CLAT4 CLAT6 KIND [OPTIONS]    KIND is udp, echo, other, unreachable, exceeded or too-big
  probe.py refused ADDRESS                          what a UDP program is told of a closed port
"""

import argparse
import ctypes
import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time

SERVER4, SERVER6, ROUTER6 = "192.88.99.10", "64:ff9b::c058:630a", "2001:db8:99::1"
# Fragments that fit a route MTU of 1260.
PART = 1232
LIBC = ctypes.CDLL(None, use_errno=True)


def four(text):
    return ipaddress.IPv4Address(text).packed


def six(text):
    return ipaddress.IPv6Address(text).packed


def total(data):
    data += b"\0" * (len(data) % 2)
    result = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while result >> 16:
        result = (result & 0xFFFF) + (result >> 16)
    return result


def pseudo(source, destination, length, protocol):
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!II", length, protocol)


def summed(data, at, source, destination, protocol, covered=None):
    """`data` with its checksum at this place; sources of ICMPv4 are None."""
    part = data if covered is None else data[:covered]
    head = pseudo(source, destination, len(data), protocol) if source else b""
    value = ~total(head + part[:at] + b"\0\0" + part[at + 2 :]) & 0xFFFF
    return data[:at] + struct.pack("!H", value or 0xFFFF) + data[at + 2 :]


def ipv4(source, destination, protocol, payload, ttl=64, tos=0, df=1, number=0, offset=0, more=0, options=b""):
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, tos, 20 + len(options) + len(payload), number,
                       (df << 14) | (more << 13) | (offset // 8), ttl, protocol, 0) + source + destination + options
    return head[:10] + struct.pack("!H", ~total(head) & 0xFFFF) + head[12:] + payload


def ipv6(source, destination, protocol, payload, ttl=64, tos=0):
    return struct.pack("!IHBB", (6 << 28) | (tos << 20), len(payload), protocol, ttl) + source + destination + payload


def in_namespace(name):
    handle = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if LIBC.setns(handle, 0x40000000):
        raise OSError(ctypes.get_errno(), f"namespace {name}")
    os.close(handle)


def message(options, source, destination, inner):
    """Protocol and content of what is sent, by kind, between addresses of either family."""
    version = len(source)
    data = bytes(range(256)) * 12
    if options.kind == "udp":
        body = struct.pack("!HHHH", 40000, 40001, options.size + 8, 0) + data[: options.size]
        return 17, body if options.no_checksum else summed(body, 6, source, destination, 17)
    if options.kind == "echo":
        body = struct.pack("!BBHHH", (8 if version == 4 else 129), 0, 0, 77, 1) + data[: options.size]
        return (1, summed(body, 2, None, None, 1)) if version == 4 else (58, summed(body, 2, source, destination, 58))
    if options.kind == "other":
        body = struct.pack("!HHI", 40000, 40001, 0) + data[:64]
        if options.protocol == 136:
            body = struct.pack("!HHHH", 40000, 40001, 8, 0) + data[:64]
            body = summed(body, 6, source, destination, 136, covered=8)
        return options.protocol, body
    kinds = {"unreachable": ((3, 3), (1, 4)), "exceeded": ((11, 0), (3, 0)), "too-big": ((3, 4), (2, 0))}
    kind, code = kinds[options.kind][version == 16]
    extra = 1400 if options.kind == "too-big" else 0
    body = struct.pack("!BBHI", kind, code, 0, extra) + inner
    return (1, summed(body, 2, None, None, 1)) if version == 4 else (58, summed(body, 2, source, destination, 58))


def parse6(packet):
    """(next header, content, facts) of an IPv6 packet; fragments are told by facts["fragment"]."""
    word, _, following, hops = struct.unpack("!IHBB", packet[:8])
    facts = {"source": packet[8:24], "destination": packet[24:40], "tclass": word >> 20 & 255, "hops": hops}
    content = packet[40:]
    if following == 44:
        following, _, where, number = struct.unpack("!BBHI", content[:8])
        facts["fragment"] = (number, where & 0xFFF8, where & 1)
        content = content[8:]
    return following, content, facts


def reassembled(packets):
    parts = sorted((facts["fragment"][1], content) for _, content, facts in packets)
    whole = b"".join(content for _, content in parts)
    complete = all(at == sum(len(content) for _, content in parts[:i]) for i, (at, content) in enumerate(parts))
    ended = any(not facts["fragment"][2] for _, _, facts in packets)
    return whole if complete and ended else None


def verdict(protocol, content, facts, options):
    """What is to be said of a packet that came through."""
    source, destination = facts["source"], facts["destination"]
    extra = []
    if protocol in (17, 136):
        if content[6:8] == b"\0\0":
            extra.append("without checksum" if len(source) == 4 else "**with checksum 0, which IPv6 forbids**")
        else:
            covered = content[:8] if protocol == 136 else content
            right = total(pseudo(source, destination, len(content), protocol) + covered) == 0xFFFF
            extra += [] if right else ["**checksum wrong**"]
            extra += ["checksum computed"] if right and options.no_checksum else []
    if protocol in (1, 58):
        head = b"" if protocol == 1 else pseudo(source, destination, len(content), 58)
        extra += [] if total(head + content) == 0xFFFF else ["**checksum wrong**"]
    if options.show:
        return ", ".join([str(facts[options.show]), *extra])
    return ", ".join(["passes", *extra])


def inner_verdict(content, kind, code, inner):
    """What is to be said of an error that came through."""
    if (content[0], content[1]) != (kind, code):
        return f"as type {content[0]} code {content[1]}"
    if not content[8:].startswith(inner):
        return "**passes, inner packet not translated**"
    return "passes, translated"


def sender_fragments(options, content):
    parts = [(at, content[at : at + PART]) for at in range(0, len(content), PART)] if options.fragments else [(0, content)]
    return [(at, part, at + len(part) < len(content)) for at, part in parts]


def collect(sockets, seconds):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        for ready in select.select(sockets, [], [], left)[0]:
            yield ready, ready.recv(1 << 16)


def out(options):
    clat4, clat6 = four(options.clat4), six(options.clat6 or "::")
    in_namespace(f"{options.lab}-isp0")
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    wire.bind(("cust", 0x86DD))
    in_namespace(f"{options.lab}-host")
    told = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    # The packet in error is one that came in.
    inner = ipv4(four(SERVER4), clat4, 17, summed(struct.pack("!HHHH", 7, 40000, 16, 0) + b"12345678", 6, four(SERVER4), clat4, 17), df=0)
    protocol, content = message(options, clat4, four(SERVER4), inner)
    for at, part, more in sender_fragments(options, content):
        packet = ipv4(clat4, four(SERVER4), protocol, part, ttl=options.ttl, tos=options.tos, df=0 if options.fragments else options.df,
                      number=4711 if options.fragments or not options.df else 0, offset=at, more=more, options=bytes.fromhex(options.options))
        raw.sendto(packet, (SERVER4, 0))
    seen, errors = [], []
    for ready, packet in collect([wire, told], 1.0):
        if ready is wire and packet[24:40] == six(SERVER6) and (packet[6] != 58 or options.kind != "udp"):
            seen.append(parse6(packet))
        if ready is told and packet[20] in (3, 11):
            errors.append(f"the sender is told: ICMP {packet[20]}/{packet[21]} from {socket.inet_ntoa(packet[12:16])}")
    if options.direction == "address":
        return {"address": str(ipaddress.IPv6Address(seen[0][2]["source"]))}
    if not seen:
        return {"says": "**dropped**" if not errors else errors[0]}
    pieces = [one for one in seen if "fragment" in one[2]]
    following, content, facts = seen[0]
    if pieces:
        content = reassembled(pieces)
        if content is None:
            return {"says": "**the first fragment is dropped**"}
    if options.kind == "unreachable":
        inner6 = ipv6(six(SERVER6), clat6, 17, b"")[8:]
        return {"says": inner_verdict(content[:8] + content[16:], 1, 4, inner6)}
    return {"says": verdict(following, content, facts, options) + (f", {len(pieces)} fragments" if pieces else "")}


def flow(clat4, options):
    """The packet to which what comes in is an answer or about which it is an error: some let nothing else in."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    about = options.kind in ("unreachable", "exceeded", "too-big")
    ports = struct.pack("!HH", *((40000, 7) if about else (40001, 40000)))
    for protocol in (17, options.protocol) if options.protocol else (17,):
        body = ports + struct.pack("!HH", 8 + 8, 0) + b"12345678"
        body = summed(body, 6, clat4, four(SERVER4), protocol, covered=8 if protocol == 136 else None)
        raw.sendto(ipv4(clat4, four(SERVER4), protocol, body), (SERVER4, 0))
    if options.kind == "echo":
        body = summed(struct.pack("!BBHHH", 8, 0, 0, 77, 1) + b"12345678", 2, None, None, 1)
        raw.sendto(ipv4(clat4, four(SERVER4), 1, body), (SERVER4, 0))
    # What the real server answers is not what is looked for.
    time.sleep(0.5)


def inward(options):
    clat4, clat6 = four(options.clat4), six(options.clat6)
    in_namespace(f"{options.lab}-host")
    protocol4 = {"udp": 17, "other": options.protocol}.get(options.kind, 1)
    flow(clat4, options)
    hear = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol4)
    in_namespace(f"{options.lab}-isp0")
    told = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
    wire.bind(("cust", 0x86DD))
    raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    source = six(ROUTER6 if options.kind in ("exceeded", "too-big") else SERVER6)
    inner = ipv6(clat6, six(SERVER6), 17, summed(struct.pack("!HHHH", 40000, 7, 1008, 0) + b"x" * 1000, 6, clat6, six(SERVER6), 17))
    protocol, content = message(options, source, clat6, inner)
    for at, part, more in sender_fragments(options, content):
        following = protocol
        if options.fragments:
            part, following = struct.pack("!BBHI", protocol, 0, at | more, 4711) + part, 44
        if options.extension:
            part, following = struct.pack("!BB6s", following, 0, b"\x01\x04\0\0\0\0") + part, 60
        raw.sendto(ipv6(source, clat6, following, part, ttl=options.ttl, tos=options.tos), (str(ipaddress.IPv6Address(clat6)), 0))
    errors = []
    for ready, packet in collect([hear, wire], 1.0):
        if ready is wire and packet[6] == 58 and packet[40] in (1, 3) and packet[24:40] == source:
            errors.append(f"the sender is told: ICMPv6 {packet[40]}/{packet[41]}")
        if ready is not hear or packet[16:20] != clat4:
            continue
        length = (packet[0] & 15) * 4
        content = packet[length:]
        came = {"source": packet[12:16], "destination": packet[16:20], "tclass": packet[1], "hops": packet[8],
                "df": "set" if packet[6] & 0x40 else "clear"}
        if options.kind in ("unreachable", "exceeded", "too-big"):
            kind, code = {"unreachable": (3, 3), "exceeded": (11, 0), "too-big": (3, 4)}[options.kind]
            right = content[8:][12:20] == clat4 + four(SERVER4)
            text = "translated" if right and (content[0], content[1]) == (kind, code) else "**wrong**"
            mtu = f", MTU {struct.unpack('!H', content[6:8])[0]}" if options.kind == "too-big" else ""
            return {"says": f"passes, {text}, from {socket.inet_ntoa(packet[12:16])}{mtu}"}
        if packet[12:16] == four(SERVER4):
            return {"says": verdict(packet[9], content, came, options)}
    return {"says": errors[0] if errors else "**dropped**"}


def refused(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1.5)
        client.connect((address, 9))
        try:
            client.send(b"x")
            client.recv(64)
        except OSError as error:
            print("connection refused" if isinstance(error, ConnectionRefusedError) else "**nothing is told**")


def main():
    if sys.argv[1] == "refused":
        refused(sys.argv[2])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("lab")
    parser.add_argument("direction", choices=["address", "out", "in"])
    parser.add_argument("clat4")
    parser.add_argument("clat6", nargs="?")
    parser.add_argument("kind", nargs="?", default="udp")
    parser.add_argument("--size", type=int, default=72)
    parser.add_argument("--ttl", type=int, default=64)
    parser.add_argument("--tos", type=int, default=0)
    parser.add_argument("--df", type=int, default=1)
    parser.add_argument("--protocol", type=int, default=0)
    parser.add_argument("--options", default="")
    parser.add_argument("--show")
    for flag in ("no-checksum", "fragments", "extension"):
        parser.add_argument(f"--{flag}", action="store_true")
    options = parser.parse_args()
    print(json.dumps(inward(options) if options.direction == "in" else out(options)))


main()
