"""The table, out of what was measured."""

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


def table(options):
    parts = []
    for group in ORDER:
        columns = {}
        for name in CONTENDERS:
            path = options.output / f"{group}-{name}.json"
            if path.exists():
                columns[name] = json.loads(path.read_text())
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
    commit = subprocess.run(["git", "-C", options.root, "log", "-1", "--format=%h"], capture_output=True, text=True, check=False).stdout.strip()
    heads = [
        f"Linux {platform.release().split('-')[0]}; clatd {commit}; of Debian's unstable release the Perl clatd {version(options, 'clatd')} with"
        f" TAYGA {version(options, 'tayga')}, and NetworkManager {version(options, 'network-manager')}.",
        "",
    ]
    return "\n".join(heads + parts)


def write(path, text):
    begin, end = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
    page = path.read_text()
    pattern = re.escape(begin) + ".*" + re.escape(end)
    path.write_text(re.sub(pattern, lambda _: begin + text + end, page, flags=re.DOTALL))
