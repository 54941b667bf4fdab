"""The table, out of what was measured."""

import datetime
import json
import platform
import re
import subprocess

from contenders import CONTENDERS

ORDER = ["same", "different", "events", "life", "four", "packets"]
TITLES = {
    "same": "Two uplinks, both with 64:ff9b::/96",
    "different": "Two uplinks with prefixes of their own",
    "events": "What networks do to a host with two uplinks",
    "life": "Starting, stopping, being killed",
    "four": "Four uplinks",
    "packets": "Packets, on one uplink",
}


def version(options, package):
    words = ["chroot", options.root, "dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


NUMBER = r"\d+(?:\.\d+)?"


def merged(values):
    """What several rounds came to: the middle one by its last number, or how often what was seen."""
    if len({re.sub(NUMBER, "#", value) for value in values}) == 1:
        by_last = sorted(values, key=lambda value: [float(number) for number in re.findall(NUMBER, value)[-1:]])
        return by_last[len(values) // 2]
    counts = {value: values.count(value) for value in values}
    return "; ".join(f"{value} ({count} of {len(values)})" for value, count in counts.items())


def column_of(options, group, name):
    """The rows of one contender, in order, out of all rounds; and how many these were."""
    paths = sorted(options.output.glob(f"{group}-{name}-*.json"))
    rounds = [json.loads(path.read_text()) for path in paths]
    rows = dict.fromkeys(row for seen in rounds for row in seen)
    return {row: merged([seen.get(row, "-") for seen in rounds]) for row in rows}, len(rounds)


def table(options):
    parts, counts = [], set()
    for group in ORDER:
        columns = {}
        for name in CONTENDERS:
            column, count = column_of(options, group, name)
            if column:
                columns[name] = column
                counts.add(count)
        if not columns:
            continue
        rows = []
        for column in columns.values():
            at = 0
            for row in column:
                if row in rows:
                    at = rows.index(row) + 1
                else:
                    rows.insert(at, row)
                    at += 1
        lines = [f"### {TITLES[group]}", ""]
        lines.append("| | " + " | ".join(CONTENDERS[name].title for name in columns) + " |")
        lines.append("|---|" + "---|" * len(columns))
        lines += [f"| {row} | " + " | ".join(column.get(row, "-") for column in columns.values()) + " |" for row in rows]
        parts.append("\n".join(lines) + "\n")
    commit = subprocess.run(["git", "-C", options.root, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False).stdout.strip()
    rounds = "one round" if counts == {1} else f"medians of {' or '.join(map(str, sorted(counts)))} rounds"
    heads = [
        f"{datetime.date.today()}, {rounds}, the contenders in turns. Linux {platform.release().split('-')[0]}; clatd {commit}; of Debian's unstable release the Perl clatd {version(options, 'clatd')} with"
        f" TAYGA {version(options, 'tayga')}, and NetworkManager {version(options, 'network-manager')}.",
        "",
    ]
    return "\n".join(heads + parts)


def write(path, text):
    begin, end = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
    page = path.read_text()
    pattern = re.escape(begin) + ".*" + re.escape(end)
    path.write_text(re.sub(pattern, lambda _: begin + text + end, page, flags=re.DOTALL))
