"""Single packets on one uplink, each judged by what is seen on the other side: the uplink's wire, or the host's sockets."""

import json

from lab import HERE, SERVER, WELL_KNOWN, run, wait
from scenarios import Bed


def packets(options, kind):
    with Bed(options, kind, [[WELL_KNOWN]]) as bed:
        lab = bed.lab
        bed.launch()
        bed.healthy()
        wait(5, bed.all_work)
        clat4 = bed.contender.addresses()[0]

        def probe(*words):
            """Sends from the host, and says how it looks on the wire of the uplink, or the other way round."""
            return json.loads(run(["python3", HERE / "probe.py", lab.name, *map(str, words)]))

        clat6 = probe("address", clat4)["address"]
        for row, words in OUT.items():
            bed[f"out: {row}"] = probe("out", clat4, clat6, *words)["says"]
        for row, words in IN.items():
            bed[f"in: {row}"] = probe("in", clat4, clat6, *words)["says"]
        for row, command in PROGRAMS.items():
            ran = lab.host(command, check=False)
            bed[row] = ran.strip().replace("\n", "; ") or "no answer"
        return bed.rows, {}


NET = HERE.parent / "lab-net.py"
PING = "sed -n 's/.*transmitted, \\([0-9]*\\) received.*/\\1 of 3 answered/p'"
PROGRAMS = {
    "UDP echo of 3000 bytes": f"python3 {NET} udp {SERVER} 3000 | sed 's/.*: //'",
    "UDP echo without checksum": f"python3 {NET} udp --no-checksum {SERVER} 100 | sed 's/.*: //'",
    "`ping -s 3000`": f"ping -n -c 3 -i 0.3 -W 1 -s 3000 {SERVER} | {PING}",
    "MTU of the default route": "ip -4 route show default | grep -o 'mtu [0-9]*' | head -n 1",
    "`traceroute -n`: hops": f"traceroute -n -q 1 -w 1 -m 6 {SERVER} | awk 'NR > 1 {{ printf \"%s%s\", sep, $2; sep = \", \" }}'",
    "UDP to a closed port": f"python3 {HERE}/probe.py refused {SERVER}",
}

OUT = {
    "UDP": ["udp"],
    "TTL 64 becomes hop limit": ["udp", "--show", "hops"],
    "TOS 0xff becomes traffic class": ["udp", "--tos", 255, "--show", "tclass"],
    "IPv4 options (NOP)": ["udp", "--options", "01010100"],
    "1400 bytes with DF clear": ["udp", "--size", 1372, "--df", 0],
    "UDP without checksum": ["udp", "--no-checksum"],
    "UDP in three fragments": ["udp", "--size", 3000, "--fragments"],
    "UDP without checksum in fragments": ["udp", "--size", 3000, "--fragments", "--no-checksum"],
    "echo request in fragments": ["echo", "--size", 3000, "--fragments"],
    "SCTP (132)": ["other", "--protocol", 132],
    "ESP (50)": ["other", "--protocol", 50],
    "UDP-Lite (136)": ["other", "--protocol", 136],
    "port unreachable, its inner packet": ["unreachable"],
    "TTL 1": ["udp", "--ttl", 1],
}
IN = {
    "UDP": ["udp"],
    "hop limit 60 becomes TTL": ["udp", "--ttl", 60, "--show", "hops"],
    "traffic class 0xff becomes TOS": ["udp", "--tos", 255, "--show", "tclass"],
    "100 bytes: DF": ["udp", "--show", "df"],
    "1400 bytes: DF": ["udp", "--size", 1372, "--show", "df"],
    "UDP in fragments": ["udp", "--size", 3000, "--fragments"],
    "echo reply in fragments": ["echo", "--size", 3000, "--fragments"],
    "behind a destination options header": ["udp", "--extension"],
    "port unreachable, its inner packet": ["unreachable"],
    "time exceeded from a router outside the prefix": ["exceeded"],
    "packet too big (1400) from a router outside the prefix": ["too-big"],
    "SCTP (132)": ["other", "--protocol", 132],
    "ESP (50)": ["other", "--protocol", 50],
    "UDP-Lite (136)": ["other", "--protocol", 136],
    "hop limit 1": ["udp", "--ttl", 1],
}
