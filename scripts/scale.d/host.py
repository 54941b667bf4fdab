"""A host with uplinks, and whatever makes it large."""

import ipaddress
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
PROTOCOL = "bird"


class Host:
    def __init__(self, uplinks, routes6, routes4, rules, elements):
        self.uplinks, self.sizes = uplinks, (routes6, routes4, rules, elements)
        self.name = f"clatscale-{os.getpid()}"
        self.children = []

    def __enter__(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix=self.name))
        try:
            self.raise_links()
            self.fill()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.terminate()
            child.wait()
        for node in ("host", "isp"):
            subprocess.run(["ip", "netns", "del", f"{self.name}-{node}"], stderr=subprocess.DEVNULL)
        shutil.rmtree(f"/etc/netns/{self.name}-host", ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def command(self, node, *words):
        return ["ip", "netns", "exec", f"{self.name}-{node}", *map(str, words)]

    def run(self, node, *words, text=None):
        ran = subprocess.run(self.command(node, *words), input=text, text=True, capture_output=True)
        if ran.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {ran.stderr[:2000]}")
        return ran.stdout

    def start(self, node, *words, **options):
        child = subprocess.Popen(self.command(node, *words), **options)
        self.children.append(child)
        return child

    def stop(self, child):
        child.terminate()
        child.wait()
        self.children.remove(child)

    def batch(self, lines, *options):
        self.run("host", "ip", *options, "-batch", "-", text="".join(f"{line}\n" for line in lines))

    def raise_links(self):
        for node in ("host", "isp"):
            subprocess.run(["ip", "netns", "add", f"{self.name}-{node}"], check=True)
        # No server of this machine's own is asked.
        resolver = pathlib.Path(f"/etc/netns/{self.name}-host")
        resolver.mkdir(parents=True)
        (resolver / "resolv.conf").write_text("nameserver ::1\n")
        for node in ("host", "isp"):
            self.run(node, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
            self.run(node, "ip", "link", "set", "lo", "up")
        lines = []
        for k in range(self.uplinks):
            lines += [
                f"link add up{k} type veth peer name isp{k} netns {self.name}-isp",
                f"link set up{k} up",
            ]
        self.batch(lines)
        up = [f"link set isp{k} up" for k in range(self.uplinks)]
        # The same router everywhere, so that routes can be made before it is heard.
        up += [f"addr add fe80::1/64 dev isp{k} nodad" for k in range(self.uplinks)]
        self.run("isp", "ip", "-batch", "-", text="\n".join(up))

    def advertise(self, interval):
        """A router on every uplink, until it is stopped; `interval` 0 = it only answers."""
        routers = ["python3", HERE / "router.py", self.uplinks, interval]
        child = self.start("isp", *routers, stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        return child

    def fill(self):
        routes6, routes4, rules, elements = self.sizes
        if routes6:
            first = int(ipaddress.IPv6Address("2a00::"))
            networks = (ipaddress.IPv6Address(first + (n << 80)) for n in range(routes6))
            self.batch(
                (f"route add {network}/48 via fe80::1 dev up0 proto {PROTOCOL}" for network in networks), "-6"
            )
        if routes4:
            self.run("host", "ip", "addr", "add", "192.0.2.2/24", "dev", "up0")
            first = int(ipaddress.IPv4Address("16.0.0.0"))
            networks = (ipaddress.IPv4Address(first + (n << 8)) for n in range(routes4))
            self.batch(
                (f"route add {network}/24 via 192.0.2.1 dev up0 proto {PROTOCOL}" for network in networks), "-4"
            )
        if rules:
            self.run("host", "nft", "-f", "-", text=ruleset(rules, elements))


def ruleset(rules, elements):
    addresses = (str(ipaddress.IPv4Address((10 << 24) + n)) for n in range(elements))
    chains = (f"  tcp dport {n % 65535 + 1} counter comment \"rule {n}\"" for n in range(rules))
    return "\n".join(
        itertools.chain(
            ["table inet large {", " set s { type ipv4_addr; elements = {"],
            [",".join(addresses)],
            ["} }", " chain forward { type filter hook forward priority 0; policy accept;", "  ip daddr @s counter"],
            chains,
            [" }", "}", ""],
        )
    )


