"""P14 and P15: how soon a trainer could take its first step, and the memory it holds then: a fresh process per rank each time, from its start
until model, optimizer, process group and batches are there; then its memory after one step. The peer imports torch and what it uses."""

from harness import Table, median, ratio
from sides import RANKS, Sides, name_of, shape_of

GOALS = {"P14", "P15"}


def sample(sides, begin, line):
    side = begin()
    first = side.run(line)
    ready = {key: max(h[key] for h in side.hello) for key in ("peak_bytes", "rss_bytes")}
    sides.end(side)
    return {"wall": side.ready, "cpu": sum(h["cpu"] for h in side.hello), **ready, "after_bytes": first["rss_bytes"]}


def compare(goals, quick, report):
    shape = {**shape_of(512 if quick else 2048, quick), "rows": 32}
    name = name_of(shape)
    print(f"bench: starts at {name}", flush=True)
    samples = {"ours": [], "Python": []}
    with Sides(shape) as sides:
        begins = {"ours": (sides.ours, "step 1"), "Python": (lambda: sides.peer(False), "step sharded 1")}
        for i in range(1 + (3 if quick else 7)):
            for label, begin in begins.items():
                found = sample(sides, *begin)
                if i > 0:
                    samples[label].append(found)
    table = Table([f"From the start of {RANKS} processes until each could take its first step. Peak: of the larger one until then."], "N / D / size, start")
    report.times(table, f"{name}, start", samples)
    if "P14" in goals:
        for key, when in (("rss_bytes", "before the first step"), ("after_bytes", "after it")):
            megabytes = " : ".join(f"{median(samples[label], key) / 1e6:.0f}" for label in samples)
            report.goal("P14", f"resident memory at {name}, {when} : Python ({megabytes} MB)", ratio(samples, key, "ours", "Python"), "x", 0.9, 0.7, False, not quick)
    if "P15" in goals:
        report.goal("P15", f"start to first step at {name} : Python", ratio(samples, "wall", "ours", "Python"), "x", 0.7, 0.5, False, not quick)
    return {}  # nothing to plot beside steps
