"""Runs the scenarios, keeps what was measured, prints the table. Called by scripts/peers."""

import argparse
import itertools
import json
import pathlib
import sys
import traceback

import packets
import report
import scenarios
from contenders import CONTENDERS

GROUPS = scenarios.GROUPS | {"packets": packets.packets}


def measure(options, group, name, number):
    print(f"{group}: {name}, round {number}", file=sys.stderr, flush=True)
    rows, left = GROUPS[group](options, CONTENDERS[name])
    (options.output / f"{group}-{name}-{number}.json").write_text(json.dumps(rows, indent=1))
    detail = "".join(f"{kind} {sign}: {line}\n" for (kind, sign), lines in left.items() for line in lines)
    (options.output / f"{group}-{name}-{number}.residue").write_text(detail)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True)
    parser.add_argument("--clatd", required=True)
    parser.add_argument("--contenders", required=True)
    parser.add_argument("--groups", required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    failed = False
    groups = list(filter(None, options.groups.split(",")))
    # In turns: what else the machine does meets all of them.
    for number, group, name in itertools.product(range(1, options.rounds + 1), groups, options.contenders.split(",")):
        try:
            measure(options, group, name, number)
        except Exception:
            traceback.print_exc()
            failed = True
    text = report.table(options)
    (options.output / "table.md").write_text(text)
    print(text)
    if options.write:
        report.write(options.write, text)
    sys.exit(failed)


main()
