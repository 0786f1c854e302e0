"""P1, P2, P3 and P5: one rank's loss, forward and backward, on one thread, communication excluded."""

import sys

from harness import BIN, OUT, ROOT, Side, Table, interleave, median, ratio

GOALS = {"P1", "P2", "P3", "P5"}


def loss_sides(n, d, ranks, with_gram):
    ours = Side([BIN / "vicreg-bench-loss", n, d, ranks])
    peer = Side([sys.executable, ROOT / "bench" / "loss" / "peer_loss.py", n, d, 1])
    sides = {"ours": (ours, "ours"), "published": (peer, "published")}
    if with_gram:
        sides["whole Gram"] = (peer, "whole-gram")
    return ours, peer, sides


def check_values(ours, peer, shape):
    """Nothing is compared in speed that does not compute the same."""
    a, b = ours.ask("values")[0], peer.ask("values")[0]
    worst = max(abs(a[k] - b[k]) / max(1, abs(b[k])) for k in ("loss", "invariance", "variance", "covariance"))
    if worst > 1e-5:
        sys.exit(f"bench: the sides disagree at {shape}: ours {a}, theirs {b}")
    return worst


def compare(goals, quick, report):
    table = Table(["One rank's loss, forward and backward, one thread, communication excluded. Peak: memory beyond inputs and gradients; ours also",
                   "without the gathered rows."], "N / D / W")
    shapes = {}
    if {"P1", "P2", "P3"} & goals:
        shapes[(1024, 4096, 8)] = True
    if "P5" in goals and not quick:
        shapes[(2048, 8192, 32)] = False
    if goals & {"P2", "P3"} and not quick:
        shapes[(256, 2048, 2)] = True
        shapes[(4096, 256, 8)] = False
    measured = {}
    for (n, d, ranks), with_gram in shapes.items():
        shape = f"{n} / {d} / {ranks}"
        print(f"bench: loss at N / D / W = {shape}", flush=True)
        ours, peer, sides = loss_sides(n, d, ranks, with_gram)
        worst = check_values(ours, peer, shape)
        samples = measured[shape] = interleave(sides, 3 if quick else 7)
        report.times(table, shape, samples)
        if (n, d, ranks) == (1024, 4096, 8):
            if "P1" in goals:
                report.goal("P1", "value, fp32, against the published formula in fp64", worst, "relative error", 1e-6, 1e-7, False)
            if "P2" in goals:
                report.goal("P2", f"one rank's loss at {shape} : published, CPU time", ratio(samples, "cpu", "published", "ours"), "x", 30, 50, True)
            if "P3" in goals:
                report.goal("P3", "same : whole Gram, CPU time", ratio(samples, "cpu", "whole Gram", "ours"), "x", 7, 10, True)
        if (n, d, ranks) == (2048, 8192, 32):
            report.goal("P5", f"loss memory beyond inputs and gathered rows at {shape}", max(s["peak_bytes"] for s in samples["ours"]) / 1e6, "MB", 40, 16, False)
        ours.close()
        peer.close()
    if measured:
        plot(measured)


def plot(measured):
    import matplotlib.pyplot as plt

    shapes = list(measured)
    fig, axes = plt.subplots(figsize=(8, 4))
    for k, label in enumerate(["published", "whole Gram", "ours"]):
        at = [i for i, s in enumerate(shapes) if label in measured[s]]
        axes.bar([i + 0.27 * (k - 1) for i in at], [median(measured[shapes[i]][label], "cpu") * 1e3 for i in at], 0.25, label=label)
    axes.set_yscale("log")
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_xlabel("N / D / W")
    axes.set_ylabel("CPU ms, median")
    axes.set_title("One rank's VICReg loss, forward and backward, communication excluded")
    axes.legend()
    fig.tight_layout()
    fig.savefig(OUT / "loss.png", dpi=120)
