"""The scenarios. Each group raises a lab for one contender and says what it saw, row by row."""

import time

from lab import SERVER, WELL_KNOWN, Lab, Stream, wait

OWN = ["2001:db8:64::/96", "2001:db8:65::/96", "2001:db8:66::/96", "2001:db8:67::/96"]
# How long a contender may take for whatever it does by itself.
PATIENCE = 20


class Bed:
    """A lab with one contender in its host, and the rows that were measured."""

    def __init__(self, options, kind, plats):
        self.lab = Lab(options.root, plats)
        self.uplinks = list(range(len(plats)))
        self.rows = {}
        try:
            for k in self.uplinks:
                wait(20, lambda k=k: self.lab.host(f"ip -6 route show default dev up{k}").strip())
            wait(5, lambda: "tentative" not in self.lab.host("ip -6 address"))
            self.contender = kind(self.lab, options.clatd)
            self.contender.prepare()
            self.before = self.lab.kernel_state()
        except BaseException:
            self.lab.down()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lab.down()

    def __setitem__(self, row, text):
        print(f"    {row}: {text}", flush=True)
        self.rows[row] = text

    def launch(self, uplinks=None):
        self.contender.launch(self.uplinks if uplinks is None else uplinks)
        return wait(PATIENCE, self.online)

    def online(self):
        return self.lab.seen(limit=1) is not None

    def ways(self, of):
        """By which uplink each CLAT's address or device leaves."""
        answers = []
        addresses = self.contender.addresses()
        for k in self.uplinks:
            name = addresses.get(k) if of == "address" else self.contender.device(k)
            if k not in addresses:
                answers.append(f"{k}: no CLAT")
                continue
            seen = self.lab.seen(name)
            answers.append(f"{k}: " + ("yes" if seen == k else "no connection" if seen is None else f"**leaves by {seen}**"))
        return ", ".join(answers)

    def all_work(self):
        addresses = self.contender.addresses()
        return all(k in addresses and self.lab.seen(addresses[k], limit=1) == k for k in self.contender.uplinks)

    def best(self):
        seen = self.lab.seen()
        return "no connection" if seen is None else f"uplink {seen}"

    def under_traffic(self, event, limit=PATIENCE, may_begin_silent=False):
        """What a stream loses by the event, until it has been answered again for a second."""
        stream = Stream(self.lab)
        if not wait(5, lambda: stream.last_gap_over(0)) and not may_begin_silent:
            stream.end()
            return "**no connection before**"
        before = bool(stream.lines() and stream.last_gap_over(0))
        begun = time.monotonic()
        event()
        # The event itself may take a moment to be felt.
        time.sleep(1.5)
        recovered = wait(limit, lambda: stream.last_gap_over(begun))
        result = stream.end()
        if not recovered:
            return f"**no answer within {limit} s**"
        if not before:
            return f"nothing before; answers after {max(0.0, result['first'] - begun) * 1000:.0f} ms"
        return f"lost {result['lost']} of {result['sent']}, outage {result['outage'] * 1000:.0f} ms"

    def healthy(self):
        """Whether it goes by the better uplink, at once or soon."""
        return wait(PATIENCE, lambda: self.lab.seen(limit=1) == 0)

    def again(self):
        return "yes" if self.healthy() else f"**no: {self.best()}**"

    def anew(self):
        self.contender.stop()
        time.sleep(0.5)
        return self.launch()

    def residue(self):
        return difference(self.before, self.lab.kernel_state())


def difference(before, after):
    """What is not as it was, counted by kind."""
    kinds = {}
    for lines, others, sign in ((after, before, "left"), (before, after, "gone")):
        rest = list(others)
        kind = "?"
        for line in lines:
            if line.startswith("# "):
                kind = line[2:].replace(" show table all", "").replace("/proc/sys/net", "sysctl")
            if line in rest:
                rest.remove(line)
            else:
                kinds.setdefault((kind, sign), []).append(line)
    return kinds


def told(kinds):
    return ", ".join(f"{len(lines)} {kind} {sign}" for (kind, sign), lines in sorted(kinds.items())) or "none"


def start(bed, same):
    """Rows of two or more uplinks at rest."""
    what = "same prefix" if same else "different prefixes"
    begun = time.monotonic()
    bed.launch()
    took = time.monotonic() - begun
    if same:
        bed["start to the first IPv4 answer"] = f"{took:.1f} s"
    # The rest of them, too, shall have their time.
    wait(8, bed.all_work)
    bed[f"{what}: what is bound to a CLAT's address leaves by its uplink"] = bed.ways("address")
    bed[f"{what}: what is bound to a CLAT's device leaves by its uplink"] = bed.ways("device")
    bed[f"{what}: the default route follows the better uplink (0)"] = bed.best()
    ended = bed.contender.ended()
    if ended:
        bed[f"{what}: ended by themselves"] = ", ".join(map(str, ended))


def same(options, kind):
    with Bed(options, kind, [[WELL_KNOWN], [WELL_KNOWN]]) as bed:
        for k in bed.uplinks:
            bed.lab.isp(k, "nft 'table netdev leak { chain in { type filter hook ingress device cust priority 0; ether type ip counter; }; }'")
        start(bed, True)
        counted = [int(bed.lab.isp(k, "nft -j list table netdev leak | jq '[.. | .counter? // empty | .packets] | add'")) for k in bed.uplinks]
        bed["untranslated IPv4 packets that reached an uplink meanwhile"] = str(sum(counted))

        lab = bed.lab
        bed["carrier of uplink 0 lost under traffic"] = bed.under_traffic(lambda: lab.isp(0, "ip link set cust down"))
        bed["carrier lost: goes on by"] = bed.best()
        bed["carrier back under traffic"] = bed.under_traffic(lambda: lab.isp(0, "ip link set cust up"), may_begin_silent=True)
        bed["carrier back: by the better uplink again within 20 s"] = bed.again()
        wait(PATIENCE, bed.all_work)
        bed["carrier back: each address leaves by its own uplink"] = bed.ways("address")
        recover(bed)
        bed["somebody deletes the CLAT's default route"] = bed.under_traffic(lambda: delete_route(bed))
        bed["route deleted: by the better uplink again within 20 s"] = bed.again()
        recover(bed)
        bed.contender.stop()
        time.sleep(1)
        left = bed.residue()
        bed["residue after a stop"] = told(left)
        return bed.rows, left


def delete_route(bed):
    dev = bed.contender.device(0)
    bed.lab.host(f"ip -4 route del $(ip -4 route show default dev {dev} | head -n 1) dev {dev}", check=False)


def recover(bed):
    if not wait(3, lambda: bed.lab.seen(limit=1) == 0):
        bed.anew()
        bed.healthy()


def different(options, kind):
    with Bed(options, kind, [[OWN[0]], [OWN[1]]]) as bed:
        if hasattr(bed.contender, "second_with_check"):
            checked = bed.contender.second_with_check()
            time.sleep(0.5)
            start(bed, False)
        else:
            start(bed, False)
            checked = "runs" if 1 in bed.contender.addresses() else "does not run"
        if kind.__name__ != "PerlOne":
            bed["the second CLAT, if it looks for native IPv4 as by default"] = checked
        bed["different prefixes: carrier of uplink 0 lost under traffic"] = bed.under_traffic(lambda: bed.lab.isp(0, "ip link set cust down"))
        return bed.rows, {}


def events(options, kind):
    rows = {}
    for event in (gateway, renumbered, plat, native):
        # Each begins anew: what one of them has broken does not count for the next.
        with Bed(options, kind, [[WELL_KNOWN, OWN[0]], [WELL_KNOWN]]) as bed:
            bed.launch()
            bed.healthy()
            wait(8, bed.all_work)
            event(bed)
            rows |= bed.rows
    return rows, {}


def gateway(bed):
    lab = bed.lab

    def replace():
        lab.farewell(0)
        old = lab.isp(0, "ip -o -6 address show dev cust scope link").split()[3]
        lab.isp(0, f"ip address add fe80::9/64 dev cust nodad; ip address del {old} dev cust")
        lab.advertise(0, [("3fff:1:0:1::/64", 86400, 14400)], [(WELL_KNOWN, 3600)])

    bed["the gateway of uplink 0 is replaced under traffic"] = bed.under_traffic(replace)
    bed["gateway replaced: by the better uplink again within 20 s"] = bed.again()


def renumbered(bed):
    lab = bed.lab

    def renumber():
        # The old prefix is not routed any more, as after a new lease from the provider.
        lab.isp(0, "ip address add 3fff:1:0:2::1/64 dev cust nodad; ip address del 3fff:1:0:1::1/64 dev cust")
        prefixes = [("3fff:1:0:1::/64", 7200, 0), ("3fff:1:0:2::/64", 86400, 14400)]
        lab.advertise(0, prefixes, [(WELL_KNOWN, 3600)])

    bed["uplink 0 is renumbered under traffic"] = bed.under_traffic(renumber)
    bed["renumbered: by the better uplink again within 20 s"] = bed.again()


def plat(bed):
    lab = bed.lab

    def replace():
        zones = f"/run/clatd-lab/{lab.name}/isp0/named.conf"
        lab.isp(0, f"ip route del {WELL_KNOWN} dev nat64-0; sed -i 's!dns64 {WELL_KNOWN}!dns64 {OWN[0]}!' {zones}")
        lab.isp(0, f"kill -HUP $(pgrep -f '^named .*{zones}')")
        lab.advertise(0, [("3fff:1:0:1::/64", 86400, 14400)], [(WELL_KNOWN, 0), (OWN[0], 3600)])

    bed["the PLAT's prefix of uplink 0 is replaced under traffic"] = bed.under_traffic(replace)
    bed["PLAT prefix replaced: by the better uplink again within 20 s"] = bed.again()


def native(bed):
    lab = bed.lab
    there = lambda: lab.host("ip -4 route show default dev up0 via 192.168.0.1").strip()
    bed["native IPv4 comes to uplink 0 under traffic"] = bed.under_traffic(lambda: bed.contender.native_comes(0))
    wait(5, there)
    time.sleep(3)
    clats = bed.contender.addresses()
    first = "there" if 0 in clats else "gone"
    second = "none" if 1 not in clats else "works" if lab.seen(clats[1]) == 1 or lab.seen(bed.contender.device(1)) == 1 else "**does not work**"
    bed["native IPv4 there: the CLAT of uplink 0, that of uplink 1, the default route"] = f"{first}, {second}, {preferred(lab)}"
    bed["native IPv4 goes under traffic"] = bed.under_traffic(lambda: bed.contender.native_goes(0))
    back = wait(PATIENCE, lambda: 0 in bed.contender.addresses() and lab.seen(limit=1) == 0)
    bed["native IPv4 gone: by the better uplink's CLAT again within 20 s"] = "yes" if back else f"**no: {bed.best()}**"


def preferred(lab):
    route = lab.host(f"ip -4 route get {SERVER}", check=False)
    return "native" if "192.168." in route else "a CLAT" if "192.0.0." in route else "nothing"


def life(options, kind):
    with Bed(options, kind, [[WELL_KNOWN], [WELL_KNOWN]]) as bed:
        lab = bed.lab
        bed.launch([0])
        bed.healthy()
        # Slow enough for the PLAT, a TAYGA, so that nothing is lost there.
        download = lab.start(lab.command("host", ["curl", "-sf", "--limit-rate", "2M", "-o", "/dev/null", "-w", "%{size_download}", f"http://{SERVER}/blob?size=60000000"]), "download")
        stream = Stream(lab)
        wait(5, lambda: stream.last_gap_over(0))
        if len(bed.contender.uplinks) == 1 and kind.__name__ != "PerlOne":
            begun = time.monotonic()
            bed.contender.add(1)
            works = wait(PATIENCE, lambda: 1 in bed.contender.addresses() and lab.seen(bed.contender.device(1), limit=1) == 1)
            added = f"{time.monotonic() - begun:.1f} s" if works else "**never works**"
            time.sleep(2)
            bed["a second CLAT is added beside a download: its device works after"] = added
            seen = stream.end()
            bed["second CLAT added: what the first one's traffic lost"] = f"{seen['lost']} of {seen['sent']}, longest gap {seen['outage'] * 1000:.0f} ms"
            bed["the second CLAT is taken away under traffic"] = bed.under_traffic(lambda: bed.contender.remove(1))
            if not wait(10, lambda: lab.seen(limit=1) == 0):
                bed["second CLAT taken away: the first one"] = "**does not work any more**"
            else:
                bed["second CLAT taken away: the first one"] = "works"
        else:
            stream.end()
        code = download.wait(60)
        size = lab.log("download").strip()
        bed["the download meanwhile"] = "complete" if code == 0 and size == "60000000" else f"broken (curl {code}, {size} bytes)"
        bed.anew()
        wait(8, bed.all_work)
        bed.contender.kill()
        time.sleep(1)
        bed["kill -9: residue"] = told(bed.residue())
        begun = time.monotonic()
        works = bed.launch() and wait(8, lambda: bed.all_work() or True)
        ended = bed.contender.ended()
        bed["kill -9: started again"] = (f"works after {time.monotonic() - begun:.1f} s" if works else "**does not work**") + (f", {len(ended)} ended" if ended else "")
        bed.contender.stop()
        time.sleep(1)
        left = bed.residue()
        bed["kill -9: started again and stopped: residue"] = told(left)
        return bed.rows, left


def four(options, kind):
    with Bed(options, kind, [[WELL_KNOWN], [WELL_KNOWN], [OWN[0]], [OWN[1]]]) as bed:
        bed.launch()
        wait(10, bed.all_work)
        bed["four uplinks (two with the same prefix): bound to the CLAT's address"] = bed.ways("address")
        for k in bed.uplinks[:3]:
            best = bed.lab.seen()
            if best is None:
                break
            row = f"four uplinks: the best one fails, {('first', 'second', 'third')[k]} time"
            bed[row] = bed.under_traffic(lambda best=best: bed.lab.isp(best, "ip link set cust down"), limit=10)
        return bed.rows, {}


GROUPS = {"same": same, "different": different, "events": events, "life": life, "four": four}
