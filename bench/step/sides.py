"""Sides of a comparison of whole training steps: two ranks with one thread each, from batches in memory: forward, loss, backward, gradients
averaged, AdamW. Ours is the trainer's Learner (step.cc), the peer the same recipe in Python (peer_step.py) with the same weights and batches.
"""

import json
import sys
import tempfile

from harness import BIN, OUT, ROOT, Side

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

    def start(self, command, within=(), **more):
        """within: a command that runs another, as `ip netns exec NAME`."""
        folder = tempfile.mkdtemp(dir=self.folder.name)
        side = Side(*[[*within, *command, json.dumps({**self.shape, "rank": r, "folder": folder, **more})] for r in range(RANKS)])
        self.open.append(side)
        return side

    def ours(self, **more):
        return self.start([BIN / "vicreg-bench-step"], **more)

    def peer(self, best):
        return self.start([sys.executable, ROOT / "bench" / "step" / "peer_step.py"], best=best, weights=self.weights)

    def end(self, side):
        self.open.remove(side)
        side.close()

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
