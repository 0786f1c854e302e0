"""P8 and P9: whole training steps of two ranks with one thread each, from batches in memory: forward, loss, backward, gradients
averaged, AdamW. Ours is the trainer's Learner (step.cc), the peer the same recipe in Python (peer_step.py) with the same weights and batches.
"""

import json
import sys
import tempfile

from harness import BIN, OUT, ROOT, Side, Table, interleave, median, ratio

GOALS = {"P8", "P9"}
RANKS = 2
STEPS = 3  # whose losses must agree before anything is timed
WITHIN = (1e-5, 1e-3, 1e-3)  # relative, of the first loss and those after updates

# What both programs are told of one rank: these, and rank, folder, precision, weights and best (the peer).
RECIPE = {"ranks": RANKS, "threads": 1, "channels": 3, "learning_rate": 1e-3, "weight_decay": 1e-4, "precision": "fp32"}


def shape_of(d, quick):
    size, rows = (32, 32) if quick else (64, 256)
    return {**RECIPE, "size": size, "rows": rows, "expander": [d] * 3}


def name_of(shape):
    return f"{shape['rows']} / {shape['expander'][-1]} / {shape['size']} px"


class Sides:
    """Those of one shape, until the end of a with statement. The folder holds the ranks' rendezvous and the weights all start from."""

    def __init__(self, shape):
        self.shape, self.open = shape, []
        self.folder = tempfile.TemporaryDirectory(dir=OUT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for side in self.open:
            side.close()
        self.folder.cleanup()

    def start(self, command, **more):
        folder = tempfile.mkdtemp(dir=self.folder.name)
        side = Side(*[[*command, json.dumps({**self.shape, "rank": r, "folder": folder, **more})] for r in range(RANKS)])
        self.open.append(side)
        return side

    def ours(self, **more):
        return self.start([BIN / "vicreg-bench-step"], **more)

    def peer(self, best):
        return self.start([sys.executable, ROOT / "bench" / "step" / "peer_step.py"], best=best, weights=self.weights)

    @property
    def weights(self):
        return f"{self.folder.name}/weights.safetensors"


def check_losses(name, want, got):
    """Nothing is compared in speed that does not compute the same."""
    apart = [abs(a - b) / abs(b) for a, b in zip(got, want)]
    print(f"bench: losses of {name}: {', '.join(f'{g:.6f}' for g in got)}; from ours {', '.join(f'{a:.1e}' for a in apart)}", flush=True)
    if any(a > w for a, w in zip(apart, WITHIN)):
        sys.exit(f"bench: {name} does not compute what ours does: {got}, ours {want}")


def wide(shape):
    return shape["expander"][-1] > 4096


def start_peers(goals, shape, sides, want):
    lines = {}
    for best in [False, True]:
        setting = "Python, best" if best else "Python"
        if wide(shape) and not best:
            continue  # memory is for one of them
        peer = sides.peer(best)
        for objective, loss in (("published", "published loss"), ("sharded", "our loss")):
            if not goals & ({"P8"} if objective == "published" else {"P9"}):
                continue
            label = f"{setting}: {loss}"
            check_losses(label, want, peer.ask(f"losses {objective} {STEPS}")[0]["losses"])
            lines[label] = (peer, f"step {objective} 1")
    return lines


def compare_steps(goals, quick, report):
    shapes = [shape_of(d, quick) for d in ([512] if quick else [2048, 8192])]
    table = Table([f"Whole steps of {RANKS} ranks with one thread each, ResNet-18 with torchvision's stem and an expander of three layers as wide as D, AdamW;",
                   "batch norm over own rows on both sides. CPU: of both ranks. Best: channels_last, the fused AdamW, gradients as views of DDP's buckets.",
                   "Peak: of the larger rank, all of the process."], "N / D / size", images=shapes[0]["rows"])
    measured = {}
    for shape in shapes:
        name = name_of(shape)
        print(f"bench: steps at N / D / size = {name}", flush=True)
        with Sides(shape) as sides:
            ours = sides.ours()
            ours.ask(f"weights {sides.weights}")
            want = ours.ask(f"losses {STEPS}")[0]["losses"]
            lines = {"ours": (ours, "step 1"), **start_peers(goals, shape, sides, want)}
            samples = measured[name] = interleave(lines, 3 if quick else 7)
        report.times(table, name, samples)
        judge(goals, shape, samples, report, judged=not quick)
    return measured


def judge(goals, shape, samples, report, judged):
    name = name_of(shape)
    for goal, loss, gate, target in (("P8", "published loss", *((1.25, 1.5) if wide(shape) else (1.05, 1.2))), ("P9", "our loss", 0.97, 1.05)):
        for setting in ("Python", "Python, best"):
            peer = f"{setting}: {loss}"
            if goal in goals and peer in samples:
                report.goal(goal, f"img/s at {name} : {peer} (CPU time {ratio(samples, 'cpu', peer, 'ours'):.3g}x)", ratio(samples, "wall", peer, "ours"), "x", gate, target, True, judged)


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
    plot(compare_steps(goals, quick, report))
