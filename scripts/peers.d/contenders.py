"""The contenders, each as its manual says that it is used with several uplinks."""

import contextlib
import json
import os
import signal
import subprocess

from lab import run, wait


class Contender:
    """What the scenarios ask of each of them. Uplinks are numbers."""

    restarts = "is restarted by hand"

    def __init__(self, lab, program):
        self.lab, self.program, self.uplinks, self.children = lab, program, [], {}

    def prepare(self):
        """What is there without any CLAT and stays."""

    def device(self, k):
        """The device to bind to for uplink k."""
        return f"clat-up{k}"

    def addresses(self):
        """The CLATs' IPv4 addresses by uplink."""
        found = {}
        for link in json.loads(self.lab.host("ip -j -4 address show")):
            for k in self.uplinks:
                if link["ifname"] == self.device(k):
                    found |= {k: address["local"] for address in link["addr_info"] if address["local"].startswith("192.0.0.")}
        return found

    def groups(self, number):
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(20)
        self.children = {}

    def kill(self):
        self.groups(signal.SIGKILL)

    def stop(self):
        self.groups(signal.SIGTERM)

    def ended(self):
        return [k for k, child in self.children.items() if child.poll() is not None]

    def native_comes(self, k):
        self.lab.isp(k, f"ip address add 192.168.{k}.1/24 dev cust")
        self.lab.host(f"ip address add 192.168.{k}.2/24 dev up{k} && ip route add default via 192.168.{k}.1 dev up{k}")

    def native_goes(self, k):
        self.lab.host(f"ip route del default via 192.168.{k}.1 dev up{k}; ip address del 192.168.{k}.2/24 dev up{k}")


class Clatd(Contender):
    title = "clatd (this one)"

    def environment(self):
        return ["env", f"CLATD_RUNTIME_DIR={self.lab.files}/clatd-run"]

    def words(self, *words):
        files = ["-c", self.lab.files / "clatd.conf", "--instances-dir", self.lab.files / "instances.d"]
        return [*self.environment(), self.program, *files, *words]

    def instance(self, k):
        (self.lab.files / "instances.d" / f"up{k}.conf").write_text(f"plat-dev=up{k}\n")

    def launch(self, uplinks):
        self.uplinks = list(uplinks)
        (self.lab.files / "instances.d").mkdir(exist_ok=True)
        # What instances.d/README recommends for several uplinks; no DHCPv4 has to be waited for.
        (self.lab.files / "clatd.conf").write_text("v4-conncheck-scope=uplink\nv4-conncheck-delay=0\n")
        for k in uplinks:
            self.instance(k)
        self.children["daemon"] = self.lab.start(self.lab.command("host", self.words()), "contender.log")

    def add(self, k):
        self.uplinks.append(k)
        self.instance(k)
        run(self.lab.command("host", self.words("reload")))

    def remove(self, k):
        self.uplinks.remove(k)
        (self.lab.files / "instances.d" / f"up{k}.conf").unlink()
        run(self.lab.command("host", self.words("reload")))


class Perl(Contender):
    """One or several of Debian's Perl clatd, each with everything of its own that its configuration can give it."""

    def device(self, k):
        return f"clat{k}"

    def settings(self, k, n):
        own = {"v4-conncheck-enable": "no"}
        # By itself it would take prefix and address of whatever uplink the main table and the resolver lead to.
        own |= {"clat-v6-addr": "derived", "plat-prefix": self.lab.plats[k][0]}
        if n > 0:
            # Debian's sample: set each interface's clat-v4-addr to a unique address. The rest must differ to start at all.
            own |= {
                "clat-v4-addr": f"192.0.0.{2 + n}",
                "tayga-v4-addr": f"192.0.0.{9 + n}",
                "v4-defaultroute-metric": 2048 + n,
                "route-table": 0xC1A7 + n,
            }
        return own | {"plat-dev": f"up{k}", "clat-dev": f"clat{k}"}

    def begin(self, k, **changes):
        settings = self.settings(k, self.uplinks.index(k)) | changes
        # A configuration file of another name: none of the host's is read.
        (self.lab.state / "run" / "none").mkdir(parents=True, exist_ok=True)
        (self.lab.state / "run" / f"clatd{k}.conf").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        words = self.lab.inside("host", ["clatd", "-c", f"/run/clatd{k}.conf"])
        self.children[k] = self.lab.start(words, f"clatd{k}.log")

    def second_with_check(self):
        """What becomes of a second one that looks for native IPv4, as it does by default."""
        self.launch([0])
        wait(10, lambda: self.lab.seen(limit=1) is not None)
        self.uplinks.append(1)
        self.begin(1, **{"v4-conncheck-enable": "yes", "v4-conncheck-delay": 0})
        ended = wait(5, lambda: self.children[1].poll() is not None)
        self.stop()
        return "ends at once: the first one's route is native IPv4 to it" if ended else "runs"

    def launch(self, uplinks):
        self.uplinks = list(uplinks)
        for k in uplinks:
            self.begin(k)
            wait(10, lambda k=k: self.children[k].poll() is not None or self.lab.host(f"pgrep -g {self.children[k].pid} -x tayga || true").strip())

    def add(self, k):
        self.uplinks.append(k)
        self.begin(k)

    def remove(self, k):
        self.uplinks.remove(k)
        child = self.children.pop(k)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        child.wait(20)


class PerlOne(Perl):
    title = "Perl clatd, one"

    def launch(self, uplinks):
        super().launch(list(uplinks)[:1])

    def settings(self, k, n):
        # As Debian's clatd.service runs it: the uplink is found by the route to the PLAT.
        return {"v4-conncheck-delay": 0, "clat-dev": "clat0"}


class PerlEach(Perl):
    title = "Perl clatd, one per uplink"


CONF = """[main]
plugins=keyfile
dns=none
rc-manager=unmanaged
systemd-resolved=false
auth-polkit=false
no-auto-default=*
[keyfile]
path=/run/profiles
unmanaged-devices=*,except:interface-name:up*
"""
PROFILE = """[connection]
id=up{k}
type=ethernet
interface-name=up{k}
[ipv4]
method=auto
clat=0
may-fail=true
dhcp-timeout=2147483647
route-metric={metric}
[ipv6]
method=auto
addr-gen-mode=eui64
route-metric={metric}
"""
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/></policy>
</busconfig>
"""


class NetworkManager(Contender):
    """It has the uplinks from the beginning; only the CLAT comes and goes with `ipv4.clat`."""

    title = "NetworkManager"
    mode = "auto"

    def device(self, k):
        return f"up{k}"

    def nmcli(self, *words, **options):
        return run(self.lab.inside("host", ["nmcli", *words]), **options)

    def prepare(self):
        runs = self.lab.state / "run"
        (runs / "profiles").mkdir(parents=True)
        (runs / "conf.d").mkdir()
        (runs / "NetworkManager").mkdir()
        (runs / "NetworkManager.conf").write_text(CONF)
        (runs / "bus.conf").write_text(BUS)
        for k in range(len(self.lab.plats)):
            profile = runs / "profiles" / f"up{k}.nmconnection"
            # The first uplink is the better one, as its router says in all other columns.
            profile.write_text(PROFILE.format(k=k, metric=100 + k))
            profile.chmod(0o600)
        self.lab.start(self.lab.inside("host", ["dbus-daemon", "--config-file=/run/bus.conf", "--nofork", "--nopidfile"]), "bus.log")
        wait(10, lambda: (runs / "bus").exists())
        self.daemon()
        for k in range(len(self.lab.plats)):
            self.up(k)

    def daemon(self):
        options = ["--config=/run/NetworkManager.conf", "--config-dir=/run/conf.d", "--system-config-dir=/run/conf.d"]
        options += ["--intern-config=/run/intern.conf", "--state-file=/run/state", "--pid-file=/run/pid"]
        self.manager = self.lab.start(self.lab.inside("host", ["NetworkManager", "--no-daemon", *options]), "contender.log")
        running = wait(20, lambda: "running" in self.nmcli("-t", "-f", "RUNNING", "general", check=False).split())
        if not running:
            raise RuntimeError(f"NetworkManager does not run: {self.lab.log('contender.log')[-2000:]}")

    def up(self, k):
        self.nmcli("--wait", "30", "connection", "up", f"up{k}")
        wait(20, lambda: self.lab.host(f"ip -6 route show default dev up{k}").strip())
        # Duplicate address detection, too, is over.
        wait(5, lambda: "tentative" not in self.lab.host(f"ip -6 address show dev up{k}"))

    def set(self, k, mode):
        self.nmcli("connection", "modify", f"up{k}", "ipv4.clat", mode)
        self.nmcli("device", "reapply", f"up{k}")

    def launch(self, uplinks):
        self.uplinks = list(uplinks)
        if self.manager.poll() is not None:
            self.daemon()
        for k in uplinks:
            self.set(k, self.mode)

    def add(self, k):
        self.uplinks.append(k)
        self.set(k, self.mode)

    def remove(self, k):
        self.uplinks.remove(k)
        self.set(k, "no")

    def stop(self):
        if self.manager.poll() is not None:
            self.daemon()
        for k in list(self.uplinks):
            self.set(k, "no")

    def kill(self):
        self.manager.kill()
        self.manager.wait()

    def ended(self):
        return []

    def native_comes(self, k):
        self.lab.isp(k, f"ip address add 192.168.{k}.1/24 dev cust")
        self.nmcli("device", "modify", f"up{k}", "ipv4.addresses", f"192.168.{k}.2/24", "ipv4.gateway", f"192.168.{k}.1", "ipv4.clat", self.mode)

    def native_goes(self, k):
        self.nmcli("device", "modify", f"up{k}", "ipv4.gateway", "", "ipv4.addresses", "", "ipv4.clat", self.mode)


CONTENDERS = {"clatd": Clatd, "perl1": PerlOne, "perl2": PerlEach, "nm": NetworkManager}
