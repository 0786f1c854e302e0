"""P10 and P11: our step with one setting changed. bf16 beside fp32; and gradients averaged in buckets while backward goes on, beside one
all-reduce after it, over a link that has to carry them: two ranks on one machine that exchange through memory, with a core each, have
nothing to overlap with, so both sides of P11 talk over a loopback of their own that is paced to 2 Gbit/s, the two directions together.
"""

import contextlib
import os
import subprocess

from harness import Table, interleave, ratio
from sides import RANKS, STEPS, Sides, check_losses, name_of, shape_of

GOALS = {"P10", "P11"}
PACE = "2gbit"
WHOLE = 1 << 40  # bytes of a bucket that holds every gradient


@contextlib.contextmanager
def paced_link():
    """The command that runs another where nothing but a paced loopback is. Needs root (ip, tc)."""
    name = f"vicreg-bench-{os.getpid()}"
    ip = ["ip", "netns", "exec", name]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run([*ip, "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", PACE, "burst", "2mb", "latency", "50ms"], check=True)
        yield ip
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def measure(shape, quick, within, one, other):
    """Samples of two settings, named by their labels. The first losses of both are the same but for rounding."""
    with Sides(shape) as sides:
        lines, want = {}, None
        for label, more in (one, other):
            side = sides.ours(within=within, **more)
            losses = side.ask(f"losses {STEPS}")[0]["losses"]
            if want is None:
                want = losses
            elif "precision" not in more:
                check_losses(label, want, losses)
            lines[label] = (side, "step 1")
        return interleave(lines, 3 if quick else 7)


def compare(goals, quick, report):
    shape = shape_of(512 if quick else 2048, quick)
    name = name_of(shape)
    table = Table([f"Our steps of {RANKS} ranks with one thread each, otherwise as above. Link: the ranks' loopback is paced to {PACE[:-4]} Gbit/s."], "N / D / size, setting", images=shape["rows"])
    measured = {}
    if "P10" in goals:
        print(f"bench: bf16 at {name}", flush=True)
        samples = measured[f"{name}, precision"] = measure(shape, quick, (), ("ours", {}), ("ours, bf16", {"precision": "bf16"}))
        report.times(table, f"{name}, precision", samples)
        report.goal("P10", f"img/s at {name} : bf16, of fp32 (CPU time {ratio(samples, 'cpu', 'ours', 'ours, bf16'):.3g}x)", ratio(samples, "wall", "ours", "ours, bf16"), "x", 1.3, 1.6, True, not quick)
    if "P11" in goals:
        print(f"bench: overlapped gradients at {name} over {PACE}", flush=True)
        with paced_link() as within:
            samples = measured[f"{name}, link"] = measure(shape, quick, within, ("ours", {}), ("ours, one all-reduce", {"bucket_bytes": WHOLE}))
        report.times(table, f"{name}, link", samples)
        report.goal("P11", f"img/s at {name} over {PACE[:-4]} Gbit/s : buckets, of one all-reduce after backward", ratio(samples, "wall", "ours, one all-reduce", "ours"), "x", 1.05, 1.15, True, not quick)
    return measured
