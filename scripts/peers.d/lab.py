"""The lab, as scripts/lab raises it, with routers that advertise PREF64 (Debian's newer radvd, in the peers' root)."""

import itertools
import os
import pathlib
import re
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
LAB = HERE.parent / "lab"
SERVER = "192.88.99.10"
WELL_KNOWN = "64:ff9b::/96"
COUNT = itertools.count()


def run(words, check=True, timeout=60):
    ran = subprocess.run(words, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and ran.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: exit {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def wait(seconds, condition, step=0.05):
    """The first true value of the condition; something false after this time."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(step)
    return value


class Lab:
    def __init__(self, root, plats):
        """One uplink for each list of PLAT prefixes; the first of a list is the one that is announced."""
        self.root, self.name, self.plats = root, f"clatpeers-{os.getpid()}-{next(COUNT)}", plats
        self.files = pathlib.Path(f"/run/clatd-lab/{self.name}")
        self.state = self.files / "peer"
        self.routers, self.children = {}, []
        try:
            for k, prefixes in enumerate(plats):
                options = [word for prefix in prefixes for word in ("--plat", prefix)]
                where = ["up"] if k == 0 else ["add", str(k)]
                run([LAB, "-n", self.name, *where, *options, "--silent-router"])
            for k, prefixes in enumerate(plats):
                self.isp(k, "sysctl -qw net.ipv6.conf.cust.keep_addr_on_down=1")
                self.advertise(k, [(f"3fff:{k + 1:x}:0:1::/64", 86400, 14400)], [(prefixes[0], 3600)])
            self.state.mkdir()
        except BaseException:
            self.down()
            raise

    def down(self):
        for child in self.children:
            child.kill()
            child.wait()
        run([LAB, "-n", self.name, "down"])

    def command(self, node, words):
        return ["ip", "netns", "exec", f"{self.name}-{node}", *map(str, words)]

    def inside(self, node, words):
        """A command in the peers' root."""
        state = self.state if node == "host" else self.files / f"{node}-root"
        return self.command(node, [HERE / "inside", self.root, state, *words])

    def host(self, line, **options):
        return run(self.command("host", ["sh", "-c", line]), **options)

    def isp(self, k, line, **options):
        return run(self.command(f"isp{k}", ["sh", "-c", line]), **options)

    def start(self, words, log, **options):
        with open(self.files / log, "ab") as output:
            child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options)
        self.children.append(child)
        return child

    def log(self, name):
        path = self.files / name
        return path.read_text(errors="replace") if path.exists() else ""

    # Routers

    def advertise(self, k, prefixes, pref64s, rdnss=True):
        """(Re)starts the router of uplink k with these (prefix, valid, preferred) and (PLAT prefix, lifetime)."""
        h = f"{k + 1:x}"
        lines = [f"prefix {prefix} {{ AdvValidLifetime {valid}; AdvPreferredLifetime {preferred}; }};" for prefix, valid, preferred in prefixes]
        lines += [f"nat64prefix {prefix} {{ AdvValidLifetime {lifetime}; }};" for prefix, lifetime in pref64s]
        lines += [f"RDNSS 3fff:{h}::53 {{ }};"] if rdnss else []
        # The better uplink by RFC 4191.
        preference = "high" if k == 0 else "medium"
        (self.files / f"isp{k}-root" / "run").mkdir(parents=True, exist_ok=True)
        (self.files / f"isp{k}-root" / "run" / "radvd.conf").write_text(
            "interface cust { AdvSendAdvert on; MinRtrAdvInterval 300; MaxRtrAdvInterval 900; AdvDefaultLifetime 3600;\n"
            f"AdvDefaultPreference {preference};\n" + "\n".join(lines) + "\n};\n"
        )
        if k in self.routers:
            self.routers[k].kill()
            self.routers[k].wait()
        words = ["radvd", "--nodaemon", "--config", "/run/radvd.conf", "--pidfile", "/run/radvd.pid", "--logmethod", "stderr"]
        self.routers[k] = self.start(self.inside(f"isp{k}", words), f"radvd{k}.log")

    def farewell(self, k):
        """The router withdraws itself, as radvd does when it ends."""
        self.routers[k].terminate()
        self.routers[k].wait()

    # What is seen

    def seen(self, interface=None, limit=2):
        """The uplink by which the internet sees a connection from this address or device; None = no connection."""
        words = ["curl", "-sf", "-m", str(limit), *(["--interface", interface] if interface else []), f"http://{SERVER}/whoami"]
        answer = run(self.command("host", words), check=False).strip()
        found = re.fullmatch(r"192\.88\.99\.(\d+)", answer)
        return (int(found[1]) - 130) // 4 if found else None

    def kernel_state(self):
        return run([LAB, "-n", self.name, "state"]).splitlines()


class Stream:
    """A stream of datagrams in the background, and what became of it."""

    def __init__(self, lab, source=None):
        self.path = lab.files / f"stream-{next(COUNT)}"
        self.lab = lab
        with open(self.path, "w") as output:
            words = ["python3", "-u", HERE / "stream.py", SERVER, *([source] if source else [])]
            self.child = subprocess.Popen(lab.command("host", words), stdout=output, stdin=subprocess.DEVNULL)

    def lines(self):
        rows = [line.split() for line in self.path.read_text().splitlines()]
        return [(row[0], int(row[1]), float(row[2])) for row in rows if len(row) == 3]

    def answered_since(self, when, count=30):
        return sum(1 for kind, _, at in self.lines() if kind == "r" and at > when) >= count

    def last_gap_over(self, when):
        """Whether answers come now, and have come for a second."""
        now = time.monotonic()
        return len([1 for kind, _, at in self.lines() if kind == "r" and at > max(when, now - 1.0)]) >= 80

    def end(self):
        # What is under way may arrive.
        time.sleep(0.3)
        self.child.kill()
        self.child.wait()
        lines = self.lines()
        now = time.monotonic()
        answers = [at for kind, _, at in lines if kind == "r"]
        answered = {number for kind, number, _ in lines if kind == "r"}
        sent = [number for kind, number, at in lines if kind == "s" and at < now - 0.5]
        lost = sum(1 for number in sent if number not in answered)
        longest = max((b - a for a, b in zip(answers, answers[1:])), default=0.0)
        return {"sent": len(sent), "lost": lost, "outage": longest, "first": answers[0] if answers else now}
