"""Whole training steps: which part measures what, and the plot of all of them."""

import pathlib
import sys

from harness import OUT, median

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import peers
import settings
import start

PARTS = (peers, settings, start)
GOALS = set().union(*(part.GOALS for part in PARTS))


def plot(measured):
    import matplotlib.pyplot as plt

    labels = list(dict.fromkeys(label for samples in measured.values() for label in samples))
    fig, axes = plt.subplots(figsize=(8, 0.8 + 0.35 * len(labels) * len(measured)))
    for k, (name, samples) in enumerate(measured.items()):
        at = [labels.index(label) + k * 0.8 / len(measured) for label in samples]
        axes.barh(at, [median(s, "wall") / median(samples["ours"], "wall") for s in samples.values()], 0.75 / len(measured), label=name)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("time of a step, median, of ours")
    axes.set_title("Whole steps of two ranks, N / D / size")
    axes.legend()
    fig.tight_layout()
    fig.savefig(OUT / "step.png", dpi=120)


def compare(goals, quick, report):
    measured = {}
    for part in PARTS:
        if goals & part.GOALS:
            measured |= part.compare(goals & part.GOALS, quick, report)
    plot(measured)
