"""Runs the comparisons of scripts/bench: every side is a process that stays, sides take turns (A B A B ..) on an otherwise idle machine.

A goal is a ratio of two medians of one run. Gates use CPU time where both sides only compute: another process on the same cores changes wall
time, hardly CPU time. Every raw sample goes to samples.json.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / "build" / "release" / "bin"
OUT = ROOT / "build" / "bench"


class Side:
    """A process that runs one repetition per line and answers with one JSON line."""

    def __init__(self, *command):
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.hello = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench: {self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def run(self, name):
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def interleave(sides, repetitions, warmup=1):
    """sides: {label: (side, name)} -> {label: [sample]}; each round runs every side once."""
    samples = {label: [] for label in sides}
    for i in range(warmup + repetitions):
        for label, (side, name) in sides.items():
            sample = side.run(name)
            if i >= warmup:
                samples[label].append(sample)
    return samples


def median(samples, key):
    return statistics.median(s[key] for s in samples)


def spread(samples, key):
    values = [s[key] for s in samples]
    return f"{min(values) * 1e3:.1f}..{max(values) * 1e3:.1f}"


class Report:
    def __init__(self):
        self.rows, self.goals, self.samples, self.failed = [], [], {}, []

    def times(self, shape, samples):
        self.samples[shape] = samples
        for label, s in samples.items():
            self.rows.append((shape, label, f"{median(s, 'wall') * 1e3:.1f}", spread(s, "wall"), f"{median(s, 'cpu') * 1e3:.1f}", f"{max(x['peak_bytes'] for x in s) / 1e6:.1f}"))

    def goal(self, name, what, value, unit, gate, target, at_least):
        met = value >= gate if at_least else value <= gate
        sign = ">=" if at_least else "<="
        self.goals.append((name, what, f"{value:.4g} {unit}", f"{sign} {gate:g}", f"{sign} {target:g}", "met" if met else "MISSED"))
        if not met:
            self.failed.append(name)

    def text(self, facts):
        lines = ["# Measured by scripts/bench", "", facts, "", "| goal | what | measured | gate | target | |", "|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(g) + " |" for g in self.goals]
        lines += ["", "Samples: one rank's loss, forward and backward, communication excluded. Peak: memory beyond inputs and gradients; ours also without the", "gathered rows.", "",
                  "| N / D / W | side | wall ms, median | min..max | CPU ms, median | peak MB |", "|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(r) + " |" for r in self.rows]
        return "\n".join(lines) + "\n"


def loss_sides(n, d, ranks, with_gram):
    ours = Side(BIN / "vicreg-bench-loss", n, d, ranks)
    peer = Side(sys.executable, ROOT / "bench" / "loss" / "peer_loss.py", n, d, 1)
    sides = {"ours": (ours, "ours"), "published": (peer, "published")}
    if with_gram:
        sides["whole Gram"] = (peer, "whole-gram")
    return ours, peer, sides


def check_values(ours, peer, report, shape):
    """Nothing is compared in speed that does not compute the same."""
    a, b = ours.run("values"), peer.run("values")
    worst = max(abs(a[k] - b[k]) / max(1, abs(b[k])) for k in ("loss", "invariance", "variance", "covariance"))
    if worst > 1e-5:
        sys.exit(f"bench: the sides disagree at {shape}: ours {a}, theirs {b}")
    return worst


def bench_loss(goals, quick, report):
    shapes = {}
    if {"P1", "P2", "P3"} & goals:
        shapes[(1024, 4096, 8)] = True
    if "P5" in goals and not quick:
        shapes[(2048, 8192, 32)] = False
    if goals & {"P2", "P3"} and not quick:
        shapes[(256, 2048, 2)] = True
        shapes[(4096, 256, 8)] = False
    for (n, d, ranks), with_gram in shapes.items():
        shape = f"{n} / {d} / {ranks}"
        print(f"bench: loss at N / D / W = {shape}", flush=True)
        ours, peer, sides = loss_sides(n, d, ranks, with_gram)
        worst = check_values(ours, peer, report, shape)
        samples = interleave(sides, 3 if quick else 7)
        report.times(shape, samples)
        if (n, d, ranks) == (1024, 4096, 8):
            if "P1" in goals:
                report.goal("P1", "value, fp32, against the published formula in fp64", worst, "relative error", 1e-6, 1e-7, False)
            if "P2" in goals:
                report.goal("P2", f"one rank's loss at {shape} : published, CPU time", median(samples["published"], "cpu") / median(samples["ours"], "cpu"), "x", 30, 50, True)
            if "P3" in goals:
                report.goal("P3", "same : whole Gram, CPU time", median(samples["whole Gram"], "cpu") / median(samples["ours"], "cpu"), "x", 7, 10, True)
        if (n, d, ranks) == (2048, 8192, 32):
            report.goal("P5", f"loss memory beyond inputs and gathered rows at {shape}", max(s["peak_bytes"] for s in samples["ours"]) / 1e6, "MB", 40, 16, False)
        ours.close()
        peer.close()


def plot(report):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    shapes = [s for s in report.samples if "/" in s]
    labels = ["published", "whole Gram", "ours"]
    fig, axes = plt.subplots(figsize=(8, 4))
    for k, label in enumerate(labels):
        at = [i for i, s in enumerate(shapes) if label in report.samples[s]]
        axes.bar([i + 0.27 * (k - 1) for i in at], [median(report.samples[shapes[i]][label], "cpu") * 1e3 for i in at], 0.25, label=label)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_xlabel("N / D / W")
    axes.set_ylabel("CPU ms, median")
    axes.set_title("One rank's VICReg loss, forward and backward, communication excluded")
    axes.legend()
    fig.tight_layout()
    fig.savefig(OUT / "loss.png", dpi=120)


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("goals", nargs="*")
    arguments = parser.parse_args()
    known = {"P1", "P2", "P3", "P5"}
    goals = set(arguments.goals) or known
    if unknown := goals - known:
        parser.error(f"no comparison {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    OUT.mkdir(parents=True, exist_ok=True)
    report = Report()
    load = os.getloadavg()[0]
    bench_loss(goals, arguments.quick, report)
    import torch
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    facts = f"`scripts/bench {' '.join(sys.argv[1:])}`: {cpu}, {os.cpu_count()} cores, load average {load:.1f} before, torch {torch.__version__} on both sides, one thread a side, sides interleaved."
    text = report.text(facts)
    (OUT / "report.md").write_text(text)
    (OUT / "samples.json").write_text(json.dumps(report.samples, indent=1))
    plot(report)
    print(text)
    print(f"bench: written to {OUT.relative_to(ROOT)}/report.md, samples.json, loss.png")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
