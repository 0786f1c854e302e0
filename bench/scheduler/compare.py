"""P19, P24 and P25: the coordinator's core and store in one process, beside floors of the same run. The replay of Kueue's workloads (kueue.json) is in
simulated time in which only what core and store really take passes while they work; Kueue's own side is its published means, as it needs an API
server, and the bound is what a scheduler that costs nothing would reach."""

import collections
import heapq
import json
import statistics

from harness import BIN, ROOT, Side, Table

GOALS = {"P19", "P24", "P25"}
PEERS = False
KUEUE = json.loads((ROOT / "bench" / "scheduler" / "kueue.json").read_text())


def bound(settings):
    """Makespan and mean waits in seconds of zero overhead: all cohorts' capacity together, strict priority, the rest backfilled."""
    queues = settings["cohorts"] * settings["queues"]
    classes = sorted(settings["classes"], key=lambda c: -c["priority"])
    free, now = queues * settings["nominal"], 0
    events = [(c["every_ms"] * (i + 1), 1, k, queues) for k, c in enumerate(classes) for i in range(c["count"])]
    heapq.heapify(events)
    waiting, waited = [collections.deque() for _ in classes], [0] * len(classes)
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, arrives, k, count = heapq.heappop(events)
            if arrives:
                waiting[k].extend([now] * count)
            else:
                free += count * classes[k]["slots"]
        for k, c in enumerate(classes):
            count = min(free // c["slots"], len(waiting[k]))
            waited[k] += sum(now - waiting[k].popleft() for _ in range(count))
            free -= count * c["slots"]
            if count:
                heapq.heappush(events, (now + c["runs_ms"], 0, k, count))
    return now / 1e3, {c["name"]: w / c["count"] / queues / 1e3 for c, w in zip(classes, waited)}


def median(samples, key):
    return statistics.median(s[key] for s in samples)


def repeated(side, request, repetitions, warmup=1):
    answers = [side.ask(json.dumps(request))[0] for _ in range(warmup + repetitions)]
    return answers[warmup:]


def compare(goals, quick, report):
    side = Side([BIN / "vicreg-bench-scheduler"])
    table = Table(["The coordinator's core and store in one process. A repetition's wall and CPU time hold its preparation too."], "workload")
    rounds = 1 if quick else 5
    samples = {}
    if "P19" in goals:
        print("bench: decisions at 1,000 nodes and 10,000 queued jobs", flush=True)
        samples["floor: hash map"] = repeated(side, {"mode": "hashing"}, rounds)
        samples["1,000 nodes, 10,000 queued"] = found = repeated(side, {"mode": "latency", "nodes": 1000, "queued": 10000, "samples": 100 if quick else 400}, rounds, 0)
        report.goal("P19", f"an exit to the next gang's Launch, p99 (p50 {median(found, 'p50') * 1e3:.1f}), 1,000 nodes, 10,000 queued",
                    median(found, "p99") * 1e3, "ms", 50, 10, False)
        # One decision an operation of the hash map would be far too many: only how it moves between machines is of interest.
        rate, hashed = median(found, "decisions_per_second"), median(samples["floor: hash map"], "per_second")
        report.note("P19", f"exits with all that follows from them, one at a time: {hashed / rate:.0f} operations of a hash map each", rate, "/s")
    if "P24" in goals:
        for name, most, of_bound in (("baseline", 80, 1.21), ("large-scale", 60, 14.6)):
            if quick and name == "large-scale":
                continue
            print(f"bench: Kueue's {name} workload", flush=True)
            settings = KUEUE[name]
            ideal, ideal_waits = bound(settings)
            samples[f"replay: {name}"] = found = repeated(side, {"mode": "replay", **settings}, 1 if quick else 3, 0)
            span, published = median(found, "makespan"), settings["published"]
            report.goal("P24", f"makespan of Kueue's {name} ({published['makespan']:.0f} s published, bound {ideal:.1f} s)", span, "s", most, ideal, False)
            report.goal("P24", "same : bound", span / ideal, "x", of_bound, 1, False)
            for kind, wait in published["waits"].items():
                ours = statistics.median(f["waits"][kind] for f in found)
                report.note("P24", f"{name}, mean wait of {kind} ({wait:.4g} s published, bound {ideal_waits[kind]:.3g} s)", ours, "s")
    if "P25" in goals:
        print("bench: gangs on 5,000 nodes", flush=True)
        samples["floor: SQLite"] = floor = repeated(side, {"mode": "commits"}, rounds)
        samples["5,000 nodes, gangs of 4 to 64"] = found = repeated(side, {"mode": "gangs", "nodes": 5000, "gangs": 2000}, rounds)
        rate, grouped = median(found, "placed_per_second"), median(floor, "grouped_per_second")
        report.goal("P25", "durable gangs placed, 4 to 64 ranks, 5,000 nodes", rate, "/s", 1000, 2000, True, not quick)
        report.note("P25", f"same, to their Launch ({grouped:.0f}/s bare rows committed 32 together)", median(found, "launched_per_second"), "/s")
    side.close()
    for workload, found in samples.items():
        report.times(table, workload, {"ours": found})
