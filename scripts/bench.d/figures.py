#!/usr/bin/env python3
"""The figures that the documents show, as a small chart and a table: figures.py RESULTS DIRECTORY

Writes speed.svg and speed.txt. All is relative to native IPv6 of the same run, since machines differ."""

import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

# contender of scripts/bench: how the documents call it, colour
CONTENDERS = {
    "native": ("native IPv6, no CLAT", "#9aa7b5"),
    "fast": ("clatd", "#2f7f6f"),
    "clatd": ("clatd, translator=userspace", "#7fb8aa"),
    "tayga": ("TAYGA", "#d08c2f"),
}
# measure: what it is, unit, digits
CHARTED = {
    "tcp-up": ("TCP to the internet", "Gbit/s", 1),
    "tcp-down": ("TCP from the internet", "Gbit/s", 1),
    "udp-64": ("UDP, 64 bytes, one flow", "1000 packets/s", 0),
    "udp-64x4096": ("UDP, 64 bytes, 4096 flows", "1000 packets/s", 0),
    "machine-up": ("processor time of the machine (less is better)", "s/GB", 2),
    "ping-p50": ("ping (less is better)", "ms", 3),
}
# What has to hold, as a ratio to native or, of several instances, to one: measure, contender, base, least, most.
TARGETS = [
    ("tcp-up", "fast", "native", 1.0, None),
    ("tcp-down", "fast", "native", 1.0, None),
    ("udp-64", "fast", "native", 0.95, None),
    ("udp-64x4096", "fast", "native", 0.95, None),
    ("udp-1400", "fast", "native", 0.95, None),
    ("machine-up", "fast", "native", None, 1.0),
    ("machine-down", "fast", "native", None, 1.0),
    ("loaded-p50", "fast", "native", None, 1.0),
    ("tcp-up", "clatd", "native", 0.7, None),
    ("tcp-down", "clatd", "native", 0.7, None),
    ("tcp-up", "fast-2", "fast", 0.95, None),
    ("tcp-up", "fast-8", "fast", 0.95, None),
    ("tcp-down", "fast-2", "fast", 0.95, None),
    ("tcp-down", "fast-8", "fast", 0.95, None),
    ("udp-64", "fast-8", "fast", 0.95, None),
]


def medians(results):
    values = defaultdict(list)
    for line in results.read_text().splitlines():
        _, contender, measure, value = line.split("\t")
        if value:
            values[contender, measure].append(float(value))
    rounds = max(map(len, values.values()), default=0)
    return {key: statistics.median(found) for key, found in values.items()}, rounds


def chart(values):
    bar, left, width = 15, 215, 330
    parts, y = [], 20
    for measure, (what, unit, digits) in CHARTED.items():
        found = {c: values[c, measure] for c in CONTENDERS if values.get((c, measure))}
        if not found:
            continue
        parts.append(f'<text x="{left}" y="{y}" font-weight="bold">{what}, {unit}</text>')
        y += 6
        native = found.get("native")
        for contender, value in found.items():
            name, colour = CONTENDERS[contender]
            length = max(1, round(value / max(found.values()) * width))
            ratio = f" ({value / native:.2f})" if native and contender != "native" else ""
            parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{name}</text>')
            parts.append(f'<rect x="{left}" y="{y + 2}" width="{length}" height="{bar - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6}" y="{y + 12}">{value:.{digits}f}{ratio}</text>')
            y += bar
        y += 24
    size = f'viewBox="0 0 {left + width + 110} {y}" width="{left + width + 110}" height="{y}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">\n'
        "<title>Speed of clatd beside native IPv6 and TAYGA; in brackets: relative to native IPv6</title>\n"
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def table(values, rounds):
    day = time.strftime("%Y-%m-%d")
    lines = [
        f"Medians of {rounds} rounds, {day}, Linux {platform.release()}, {os.cpu_count()} cores (scripts/bench --figures)",
        "",
        f"{'':52}" + "".join(f"{name:>12}" for name in CONTENDERS) + f"{'fast/native':>14}",
    ]
    measures = {**CHARTED, "udp-1400": ("UDP, 1400 bytes", "1000 packets/s", 0)}
    measures["machine-down"] = ("processor time of the machine, TCP down", "s/GB", 2)
    measures["loaded-p50"] = ("ping beside TCP", "ms", 3)
    for measure, (what, unit, digits) in measures.items():
        row = f"{what + ' [' + unit + ']':52}"
        for contender in CONTENDERS:
            value = values.get((contender, measure))
            row += f"{'-' if value is None else format(value, f'.{digits}f'):>12}"
        fast, native = values.get(("fast", measure)), values.get(("native", measure))
        lines.append(row + f"{fast / native if fast and native else float('nan'):>14.2f}")
    lines += ["", "Targets:"]
    for measure, contender, base, least, most in TARGETS:
        mine, other = values.get((contender, measure)), values.get((base, measure))
        if not mine or not other:
            continue
        ratio = mine / other
        missed = least is not None and ratio < least or most is not None and ratio > most
        wanted = f">= {least}" if least is not None else f"<= {most}"
        verdict = "MISSED" if missed else "reached"
        lines.append(f"  {measure:14} {contender:>7} / {base:7} {ratio:6.2f}   wanted {wanted:8} {verdict}")
    fast, native = values.get(("fast", "ping-p50")), values.get(("native", "ping-p50"))
    if fast and native:
        verdict = "reached" if fast - native <= 0.005 else "MISSED"
        lines.append(f"  {'ping-p50':14} {'fast':>7} - {'native':7} {(fast - native) * 1000:6.1f} us wanted <= 5 us  {verdict}")
    return "\n".join(lines) + "\n"


def main():
    results, directory = Path(sys.argv[1]), Path(sys.argv[2])
    values, rounds = medians(results)
    text = table(values, rounds)
    (directory / "speed.svg").write_text(chart(values))
    (directory / "speed.txt").write_text(text)
    sys.stdout.write(f"\n{text}\nwritten: {directory / 'speed.svg'}, {directory / 'speed.txt'}\n")


main()
