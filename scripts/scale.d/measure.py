"""What is measured of clatd on a host."""

import os
import pathlib
import re
import shutil
import socket
import time

TICKS = os.sysconf("SC_CLK_TCK")
EVENTS = 4
# So many in the seconds between two looks at what the kernel does not report.
IRRELEVANT, LOOKS = 200, 10
ADVERTISEMENTS = 4


class Daemon:
    """clatd on a host, with programs that note that they were run."""

    def __init__(self, host, clatd, settings):
        self.host, self.run = host, host.work / "run"
        programs, self.ran = host.work / "bin", host.work / "ran"
        programs.mkdir()
        self.ran.touch()
        for name in ("nft", "ip6tables", "ip6tables-save"):
            if real := shutil.which(name):
                (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{self.ran}\nexec {real} "$@"\n')
                (programs / name).chmod(0o755)
        none = host.work / "none"
        none.mkdir()
        config = host.work / "clatd.conf"
        # Eight CLATs have the addresses of RFC 7335; the others get some that are for benchmarks (RFC 2544).
        pool = ["clat-v4-pool=198.18.0.0/23"] if host.uplinks > 8 else []
        lines = ["plat-dev=up*", "v4-conncheck-delay=0", "when-idle=wait", *pool, *settings]
        config.write_text("".join(f"{line}\n" for line in lines))
        environment = {**os.environ, "CLATD_RUNTIME_DIR": str(self.run), "PATH": f"{programs}:{os.environ['PATH']}"}
        self.log = (host.work / "log").open("w")
        self.began = time.monotonic()
        words = [clatd, "-c", config, "--instances-dir", none]
        self.child = host.start("host", *words, env=environment, stdout=self.log, stderr=self.log)
        self.proc = pathlib.Path(f"/proc/{self.child.pid}")

    def status(self):
        """The bytes of the status document; none while nobody answers."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.run / "control.sock"))
                client.sendall(b'{"request":"status"}\n')
                return client.makefile("rb").readline()
            except OSError:
                return b""

    def wait_until_running(self, count, limit=180):
        while time.monotonic() - self.began < limit:
            document = self.status()
            if document.count(b'"state":"running"') == count:
                return time.monotonic() - self.began
            if self.child.poll() is not None:
                break
            time.sleep(0.02 if count < 10 else 0.2)
        log = (self.host.work / "log").read_text()
        raise RuntimeError(f"{count} instances do not run:\n{log[-3000:]}")

    def cpu(self):
        """Seconds of the processor, of the daemon itself and of the programs that it ran."""
        fields = (self.proc / "stat").read_text().rsplit(")", 1)[1].split()
        return tuple((int(fields[at]) + int(fields[at + 1])) / TICKS for at in (11, 13))

    def precise_cpu(self):
        """The daemon itself, in nanoseconds' precision, with its threads that have ended: its CPU-time clock."""
        return time.clock_gettime((~self.child.pid << 3) | 2)

    def tasks(self):
        return list((self.proc / "task").iterdir())

    def wakeups(self):
        """Of each thread; the runtime ends threads that have had nothing to do."""
        texts = {task.name: (task / "status").read_text() for task in self.tasks()}
        return {name: int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", text, re.M)[1]) for name, text in texts.items()}

    def peak(self):
        return int(re.search(r"VmHWM:\s+(\d+)", (self.proc / "status").read_text())[1]) / 1024

    def programs(self):
        return len(self.ran.read_text().splitlines())


def all(host, clatd, settings, idle):
    router = host.advertise(0)
    # The kernel has taken the first advertisement in, as on a host that is up.
    time.sleep(2)
    daemon = Daemon(host, clatd, settings)
    values = {"start": daemon.wait_until_running(host.uplinks)}
    values["status"] = len(daemon.status()) / 1e6
    time.sleep(5)
    values.update(relevant(host, daemon))
    values["irrelevant"] = irrelevant(host, daemon)
    values["flapping"] = flapping(host, daemon)
    time.sleep(2)
    quiet = idling(daemon, idle)
    values["silent"], values["silent_wakeups"] = quiet["idle"], quiet["wakeups"]
    host.stop(router)
    router = host.advertise(ADVERTISEMENTS)
    time.sleep(3)
    values.update(idling(daemon, idle))
    values["peak"] = daemon.peak()
    assert daemon.status().count(b'"state":"running"') == host.uplinks, daemon.status()
    host.stop(daemon.child)
    host.stop(router)
    return values


def relevant(host, daemon):
    """An address of the first uplink comes, and goes."""
    before, before_programs = daemon.precise_cpu(), daemon.cpu()[1]
    for number in range(EVENTS):
        what = "add" if number % 2 == 0 else "del"
        host.run("host", "ip", "-6", "addr", what, "3fff:0:0:0:77::1/64", "dev", "up0")
        time.sleep(2)
        settle(daemon)
    return {
        "relevant": (daemon.precise_cpu() - before) / EVENTS + (daemon.cpu()[1] - before_programs) / EVENTS,
        "relevant_programs": (daemon.cpu()[1] - before_programs) / EVENTS,
    }


def irrelevant(host, daemon):
    """Routes of somebody else's come and go: what each costs beyond what as long a time without any does."""

    def spent():
        return sum(daemon.cpu()[1:]) + daemon.precise_cpu()

    route = "2001:db9:77::/48 via fe80::1 dev up0 proto bird"
    before, begin = spent(), time.monotonic()
    for number in range(IRRELEVANT // 2):
        host.run("host", "ip", "-6", "-batch", "-", text=f"route add {route}\nroute del {route}\n")
        time.sleep(max(begin + (number + 1) * LOOKS / (IRRELEVANT // 2) - time.monotonic(), 0))
    with_events, took = spent() - before, time.monotonic() - begin
    before = spent()
    time.sleep(took)
    return max(with_events - (spent() - before), 0) / IRRELEVANT


def flapping(host, daemon, seconds=5):
    """Other people's routes change ten thousand times a second."""
    lines = []
    for number in range(500):
        route = f"2001:db8:{number:x}::/48 via fe80::1 dev up0 proto bird"
        lines += [f"route add {route}", f"route del {route}"]
    text = "\n".join(lines)
    before, begin = sum(daemon.cpu()), time.monotonic()
    due, events = begin, 0
    while time.monotonic() - begin < seconds:
        host.run("host", "ip", "-6", "-batch", "-", text=text)
        events += len(lines)
        due += len(lines) / 10_000
        time.sleep(max(due - time.monotonic(), 0))
    settle(daemon)
    took = time.monotonic() - begin
    # Per ten thousand events, however many this machine could make.
    return (sum(daemon.cpu()) - before) * 100 / (events / 10_000) if events / took > 1000 else None


def idling(daemon, seconds):
    before = sum(daemon.cpu()[1:]) + daemon.precise_cpu(), daemon.wakeups(), daemon.programs()
    time.sleep(seconds)
    return {
        "idle": (sum(daemon.cpu()[1:]) + daemon.precise_cpu() - before[0]) / seconds * 100,
        "wakeups": sum(count - before[1].get(name, 0) for name, count in daemon.wakeups().items()) / seconds,
        "programs": daemon.programs() - before[2],
    }


def settle(daemon, limit=60):
    """Until the daemon has nothing more to do, or for a minute."""
    end = time.monotonic() + limit
    last = -1
    while time.monotonic() < end:
        now = sum(daemon.cpu())
        if now == last:
            return
        last = now
        time.sleep(0.3)


