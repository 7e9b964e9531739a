"""Print the coverage of each package and fail below the floor: `python -m tests.support.coverage_floor`."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from pathlib import Path, PurePath

from coverage import Coverage

FLOOR = 95.0
HELD = ("pipeline/engine", "pipeline/ledger")


def measured(data: Path) -> dict[str, Counter[str]]:
    """Return the sums of each package: statements and branches, and those that were covered."""
    coverage = Coverage(data_file=str(data))
    coverage.load()
    report = io.StringIO()
    with redirect_stdout(report):
        coverage.json_report(outfile="-")
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, file in json.loads(report.getvalue())["files"].items():
        found = {key: number for key, number in file["summary"].items() if isinstance(number, int)}
        for package in ("/".join(PurePath(name).parts[:2]) if len(PurePath(name).parts) > 2 else "pipeline", "total"):
            sums[package].update(found)
    return sums


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def main() -> int:
    """Print the table, and name what is below the floor."""
    data = Path(".coverage")
    if not data.exists():
        print("nothing was measured: .ci/run says how", file=sys.stderr)
        return 1
    below = []
    print(f"{'package':24} {'statements':>10} {'covered':>8} {'branches':>9} {'covered':>8}")
    sums = measured(data)
    for package in sorted(sums, key=lambda name: (name == "total", name)):
        one = sums[package]
        lines = percent(one["covered_lines"], one["num_statements"])
        branches = percent(one["covered_branches"], one["num_branches"])
        print(f"{package:24} {one['num_statements']:>10} {lines:>7.1f}% {one['num_branches']:>9} {branches:>7.1f}%")
        if package in HELD and min(lines, branches) < FLOOR:
            below.append(package)
    for package in [*below, *(name for name in HELD if name not in sums)]:
        print(f"{package}: coverage is below {FLOOR} %", file=sys.stderr)
    return int(bool(below) or not set(HELD) <= set(sums))


if __name__ == "__main__":
    sys.exit(main())
