"""P8 and P9: whole steps of ours beside the same recipe in Python, with the loss as published and sharded as ours."""

from harness import Table, interleave, ratio
from sides import RANKS, STEPS, Sides, check_losses, name_of, shape_of

GOALS = {"P8", "P9"}


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


def compare(goals, quick, report):
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
            samples = measured[name] = interleave(lines, 3 if quick else 5 if wide(shape) else 7)
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
