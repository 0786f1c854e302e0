"""Runs the comparisons of scripts/bench that were asked for and writes their table, samples and plots. One folder per kind of comparison."""

import argparse
import importlib.util
import json
import os
import sys

from harness import OUT, ROOT, Report, machine


def comparison(kind):
    """compare.py of the folder: GOALS, the names it measures, and compare(goals, quick, report)."""
    spec = importlib.util.spec_from_file_location(f"{kind}_compare", ROOT / "bench" / kind / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    kinds = [comparison("loss"), comparison("step"), comparison("scheduler"), comparison("service"), comparison("limits")]
    known = set().union(*(kind.GOALS for kind in kinds))
    in_order = sorted(known, key=lambda goal: (goal[0] != "P", int(goal[1:])))
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller steps; a step's gates are not judged then")
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=f"of {', '.join(in_order)}; without any all of them")
    arguments = parser.parse_args()
    goals = set(arguments.goals) or known
    if unknown := goals - known:
        parser.error(f"no comparison {', '.join(sorted(unknown))}; there are {', '.join(in_order)}")
    if any(goals & kind.GOALS for kind in kinds if getattr(kind, "PEERS", True)):
        import matplotlib

        matplotlib.use("Agg")
    OUT.mkdir(parents=True, exist_ok=True)
    report = Report()
    load = os.getloadavg()[0]
    for kind in kinds:
        if goals & kind.GOALS:
            kind.compare(goals & kind.GOALS, arguments.quick, report)
    text = report.text(f"`scripts/bench {' '.join(sys.argv[1:])}`: {machine()}; load average {load:.1f} before; sides interleaved, one thread a process.")
    (OUT / "report.md").write_text(text)
    (OUT / "samples.json").write_text(json.dumps(report.samples, indent=1))
    print(text)
    print(f"bench: written to {OUT.relative_to(ROOT)}: report.md, samples.json and a plot for each kind of comparison")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
