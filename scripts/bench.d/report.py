#!/usr/bin/env python3
"""Medians, ratios and a chart of what scripts/bench measured: report.py DIRECTORY CONTENDER..."""

import statistics
import sys
from collections import defaultdict
from html import escape
from pathlib import Path

# measure: what it is, unit, digits, whether more is better
MEASURES = {
    "tcp-up": ("TCP, IPv4 to IPv6", "Gbit/s", 2, True),
    "tcp-down": ("TCP, IPv6 to IPv4", "Gbit/s", 2, True),
    "udp-64": ("UDP, 64 bytes, delivered", "1000 packets/s", 0, True),
    "udp-1400": ("UDP, 1400 bytes, delivered", "1000 packets/s", 0, True),
    "fragments": ("fragments of datagrams of 4000 bytes, delivered", "1000 packets/s", 0, True),
    "udp-64x32": ("UDP, 64 bytes, 32 flows in turns", "1000 packets/s", 0, True),
    "udp-64x4096": ("UDP, 64 bytes, 4096 flows in turns", "1000 packets/s", 0, True),
    "ping-p50": ("ping, median", "ms", 3, False),
    "ping-p99": ("ping, 99th percentile", "ms", 3, False),
    "loaded-p50": ("ping beside TCP, median", "ms", 3, False),
    "loaded-p99": ("ping beside TCP, 99th percentile", "ms", 3, False),
    "machine-up": ("CPU of the machine, TCP up", "s/GB", 2, False),
    "machine-down": ("CPU of the machine, TCP down", "s/GB", 2, False),
    "bed-up": ("CPU of client, CLAT and server, TCP up", "s/GB", 2, False),
    "bed-down": ("CPU of client, CLAT and server, TCP down", "s/GB", 2, False),
    "translator-up": ("CPU of the translator, TCP up", "s/GB", 2, False),
    "translator-down": ("CPU of the translator, TCP down", "s/GB", 2, False),
    "rss": ("resident memory, peak", "MiB", 1, False),
}
COLOURS = ["#7a8ca3", "#d08c2f", "#2f7f6f", "#8a4f9e", "#b5473c", "#4c72b0"]


def read(directory):
    values = defaultdict(list)
    for line in (directory / "results.tsv").read_text().splitlines():
        _, contender, measure, value = line.split("\t")
        if value:
            values[contender, measure].append(float(value))
    return values


def table(values, contenders):
    """One row a measure: median and range of each contender, then the ratios."""
    others = [c for c in contenders if c not in ("native", "tayga")]
    ratios = [(c, base) for c in others for base in ("tayga", "native") if base in contenders]
    rows = [["", *contenders, *(f"{c}/{base}" for c, base in ratios)]]
    for measure, (what, unit, digits, _) in MEASURES.items():
        def cell(contender):
            found = values.get((contender, measure))
            if not found or max(found) == 0:
                return "-"
            middle, low, high = (f"{f(found):.{digits}f}" for f in (statistics.median, min, max))
            return f"{middle} ({low}-{high})" if len(found) > 1 else middle

        def ratio(pair):
            found = [values.get((contender, measure)) for contender in pair]
            if not all(found) or not statistics.median(found[1]):
                return "-"
            return f"{statistics.median(found[0]) / statistics.median(found[1]):.2f}"

        rows.append([f"{what} [{unit}]", *map(cell, contenders), *map(ratio, ratios)])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "".join("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() + "\n" for row in rows)


def chart(values, contenders):
    """Horizontal bars, a panel for each measure."""
    bar, gap, left, width = 16, 30, 110, 420
    parts, y = [], 24
    for measure, (what, unit, digits, more) in MEASURES.items():
        medians = {c: statistics.median(values[c, measure]) for c in contenders if values.get((c, measure))}
        top = max(medians.values(), default=0)
        if not top:
            continue
        better = "more is better" if more else "less is better"
        parts.append(f'<text x="8" y="{y}" font-weight="bold">{escape(what)} [{unit}], {better}</text>')
        y += 8
        for contender, value in medians.items():
            length = max(1, round(value / top * width))
            colour = COLOURS[contenders.index(contender) % len(COLOURS)]
            parts.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(contender)}</text>')
            parts.append(f'<rect x="{left}" y="{y}" width="{length}" height="{bar - 3}" fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6}" y="{y + 12}">{value:.{digits}f}</text>')
            y += bar
        y += gap
    size = f'width="{left + width + 80}" height="{y}"'
    style = 'font-family="sans-serif" font-size="12"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{background}\n' + "\n".join(parts) + "\n</svg>\n"


def main():
    directory, contenders = Path(sys.argv[1]), sys.argv[2:]
    values = read(directory)
    text = table(values, contenders)
    (directory / "table.txt").write_text(text)
    (directory / "chart.svg").write_text(chart(values, contenders))
    sys.stdout.write(text)
    sys.stdout.write(f"\nchart: {directory / 'chart.svg'}\n")


main()
