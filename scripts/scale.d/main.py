"""Raises the hosts one after another, measures clatd on each, and prints the table."""

import argparse
import json
import pathlib
import sys

import measure
from host import Host

# name: uplinks, IPv6 routes, IPv4 routes, nft rules, elements of nft sets
HOSTS = {
    "empty": (1, 0, 0, 0, 0),
    "table": (1, 60_000, 150_000, 0, 0),
    "full": (1, 200_000, 500_000, 0, 0),
    "ruleset": (1, 0, 0, 20_000, 60_000),
    "two": (2, 0, 0, 1, 3_000),
    "uplinks64": (64, 0, 0, 0, 0),
    "uplinks200": (200, 0, 0, 0, 0),
}

# What was measured before the network was mirrored, as printed; the table, row by row.
BEFORE = {
    "empty": {"start": "0.14", "relevant": "0.01", "idle": "0.07", "wakeups": "33", "peak": "11"},
    "table": {"start": "2.1", "relevant": "4.3", "idle": "82", "peak": "140"},
    "full": {"start": "9.2", "relevant": "9-10", "idle": "63", "peak": "330"},
    "ruleset": {"start": "5.6", "relevant": "1, and 3-5 in nft", "idle": "96", "peak": "422"},
    "two": {"programs": "84 in 30 s", "wakeups": "129"},
    "uplinks64": {"start": "1.1", "relevant": "0.7", "idle": "0.4", "peak": "46", "status": "0.7"},
    "uplinks200": {"start": "13", "relevant": "8", "idle": "4", "peak": "240", "status": "4.7"},
}
ROWS = [
    ("start", "start, s"),
    ("relevant", "CPU of a relevant event, s"),
    ("relevant_programs", "  of which in programs run, s"),
    ("irrelevant", "CPU of an irrelevant event, s"),
    ("flapping", "10,000 irrelevant events a second, % of a core"),
    ("idle", "idle, an advertisement every 4 s, % of a core"),
    ("wakeups", "  wake-ups a second"),
    ("programs", "  programs run in that time"),
    ("silent", "idle without events, % of a core"),
    ("silent_wakeups", "  wake-ups a second"),
    ("peak", "peak memory, MiB"),
    ("status", "status --json, MB"),
]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--clatd", required=True)
    options.add_argument("--hosts", required=True)
    options.add_argument("--idle", type=float, required=True)
    options.add_argument("--output", type=pathlib.Path, required=True)
    options.add_argument("--small", action="store_true")
    options.add_argument("--set", action="append", default=[])
    options = options.parse_args()
    names = options.hosts.split(",")
    if unknown := [name for name in names if name not in HOSTS]:
        sys.exit(f"scale: no such host: {', '.join(unknown)}")
    measured = {}
    with options.output.open("w") as output:
        for name in names:
            sizes = [max(size // 10, min(size, 2)) if options.small else size for size in HOSTS[name]]
            print(f"{name}: uplinks, routes of IPv6 and IPv4, nft rules, elements: {sizes}", file=sys.stderr)
            with Host(*sizes) as host:
                measured[name] = measure.all(host, options.clatd, options.set, options.idle)
            print(json.dumps({"host": name, **measured[name]}), file=output, flush=True)
    for name, values in measured.items():
        print(f"\n{name:<50}{'now':>12}  before")
        for key, label in ROWS:
            if values.get(key) is not None:
                print(f"{label:<50}{values[key]:>12.4g}  {BEFORE[name].get(key, '')}")


main()
