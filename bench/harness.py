"""How a comparison is made: every side is a process, or one per rank, that stays; sides take turns (A B A B ..) on an otherwise idle machine;
medians and spreads are taken, and a goal is a ratio of two medians of one run. Every raw sample goes to samples.json.
"""

import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / "build" / "release" / "bin"
OUT = ROOT / "build" / "bench"


class Side:
    """One command per rank. Each runs one repetition per line and answers with one JSON line; the first it says when it is ready."""

    def __init__(self, *commands):
        begin = time.perf_counter()
        env = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.ranks = [subprocess.Popen([str(word) for word in c], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for c in commands]
        self.hello = self.answers()
        self.ready = time.perf_counter() - begin  # seconds

    def answers(self):
        lines = [rank.stdout.readline() for rank in self.ranks]
        for rank, line in zip(self.ranks, lines):
            if not line:
                for other in self.ranks:
                    other.kill()
                sys.exit(f"bench: {' '.join(rank.args)} ended with {rank.wait()}")
        return [json.loads(line) for line in lines]

    def ask(self, line):
        """Every rank's answer."""
        for rank in self.ranks:
            rank.stdin.write(line + "\n")
            rank.stdin.flush()
        return self.answers()

    def run(self, line):
        """One repetition: as long as its slowest rank, the CPU time of all, the memory of the largest."""
        answers = self.ask(line)
        return {key: (sum if key == "cpu" else max)(a[key] for a in answers) for key in answers[0]}

    def close(self):
        for rank in self.ranks:
            rank.stdin.close()
        for rank in self.ranks:
            rank.wait()


def interleave(sides, repetitions, warmup=1):
    """sides: {label: (side, line)} -> {label: [sample]}; each round runs every side once."""
    samples = {label: [] for label in sides}
    for i in range(warmup + repetitions):
        for label, (side, line) in sides.items():
            sample = side.run(line)
            if i >= warmup:
                samples[label].append(sample)
    return samples


def median(samples, key):
    return statistics.median(s[key] for s in samples)


def ratio(samples, key, of, to):
    return median(samples[of], key) / median(samples[to], key)


def spread(samples, key):
    values = [s[key] for s in samples]
    return f"{min(values) * 1e3:.1f}..{max(values) * 1e3:.1f}"


class Table:
    """The sides of one kind of comparison: what every row says of one side at one shape."""

    def __init__(self, notes, shape, images=None):
        """images: of a repetition, where its rate is worth a column."""
        self.notes, self.shape, self.images, self.rows = notes, shape, images, []

    def add(self, shape, samples):
        for label, s in samples.items():
            rate = [f"{self.images / median(s, 'wall'):.1f}"] if self.images else []
            self.rows.append((shape, label, str(len(s)), *rate, f"{median(s, 'wall') * 1e3:.1f}", spread(s, "wall"), f"{median(s, 'cpu') * 1e3:.1f}", spread(s, "cpu"),
                              f"{max(x['peak_bytes'] for x in s) / 1e6:.1f}"))

    def lines(self):
        head = (self.shape, "side", "samples", *(["img/s"] if self.images else []), "wall ms, median", "min..max", "CPU ms, median", "min..max", "peak MB")
        return ["", *self.notes, "", *markdown(head, self.rows)]


def markdown(head, rows):
    return ["| " + " | ".join(r) + " |" for r in (head, ["---"] * len(head), *rows)]


class Report:
    def __init__(self):
        self.goals, self.tables, self.samples, self.failed = [], {}, {}, []

    def times(self, kind, shape, samples):
        """kind: a Table."""
        self.tables[id(kind)] = kind
        kind.add(shape, samples)
        self.samples[shape] = samples

    def goal(self, name, what, value, unit, gate, target, at_least, judged=True):
        """judged: False where the gate is of a larger shape than this one."""
        met = value >= gate if at_least else value <= gate
        sign = ">=" if at_least else "<="
        self.goals.append((name, what, f"{value:.4g} {unit}", f"{sign} {gate:g}", f"{sign} {target:g}", "not judged" if not judged else "met" if met else "MISSED"))
        if judged and not met:
            self.failed.append(name)

    def note(self, name, what, value, unit):
        """Measured beside a goal; nothing is demanded of it."""
        self.goals.append((name, what, f"{value:.4g} {unit}", "", "", "reported"))

    def text(self, facts):
        lines = ["# Measured by scripts/bench", "", facts, "", *markdown(("goal", "what", "measured", "gate", "target", ""), self.goals)]
        for table in self.tables.values():
            lines += table.lines()
        return "\n".join(lines) + "\n"


def machine():
    """CPU, cores and what else this run's numbers depend on."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    try:
        import torch
    except ImportError:  # no Python peer takes part
        return f"{cpu}, {os.cpu_count()} cores"
    return f"{cpu}, {os.cpu_count()} cores ({torch.backends.cpu.get_cpu_capability()}), torch {torch.__version__} on both sides"
