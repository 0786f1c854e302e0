"""L1 to L5: what a real coordinator holds at 10,000 jobs and 1,000 nodes, in absolute numbers that the design promises (issue 5). The jobs can never
fit, and no two are alike in all that placement looks at, so that none answers for another."""

import json
import pathlib
import statistics
import subprocess
import sys
import time

from harness import BIN, ROOT, Side

sys.path.insert(0, str(ROOT / "bench" / "service"))
from cluster import Coordinator

GOALS = {"L1", "L2", "L3", "L4", "L5"}
PEERS = False


def listed(address, jobs):
    begin = time.perf_counter()
    done = subprocess.run([BIN / "vicreg", "--coordinator", address, "list", "-o", "name"], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - begin
    if (found := len(done.stdout.splitlines())) < jobs:
        raise SystemExit(f"bench: vicreg list shows {found} of {jobs} jobs")
    return seconds


def compare(goals, quick, report):
    jobs, workers = (1000, 100) if quick else (10000, 1000)
    judged = not quick
    with Coordinator() as coordinator:
        coordinator.wait()
        time.sleep(2)
        idle = coordinator.resident()
        report.goal("L3", "resident memory of an idle coordinator", idle / 1e6, "MB", 50, 50, False)
        print(f"bench: {jobs} jobs and {workers} nodes", flush=True)
        client = Side([BIN / "vicreg-bench-service"])
        ask = lambda mode, **wanted: client.ask(json.dumps({"mode": mode, "address": coordinator.address, "workers": workers, **wanted}))[0]
        ask("workers")
        filled = ask("fill", count=jobs)
        report.note("L1", f"jobs submitted by 16 clients, {jobs} classes", filled["per_second"], "/s")
        found = ask("fit", count=20 if quick else 100)
        report.goal("L1", f"a job that fits, behind {jobs} that never do: submit to Launch, worst of {found['samples']} (p50 {found['p50'] * 1e3:.1f})",
                    found["worst"] * 1e3, "ms", 200, 50, False, judged)
        report.goal("L4", f"resident memory with {jobs} jobs and {workers} nodes", coordinator.resident() / 1e6, "MB", 300, 150, False, judged)
        times = [listed(coordinator.address, jobs) for _ in range(11)][1:]
        report.goal("L5", f"`vicreg list`, {jobs} jobs, median of 10 (worst {max(times) * 1e3:.0f})", statistics.median(times) * 1e3, "ms", 150, 100, False, judged)
        coordinator.kill()
        coordinator.start()
        again = ask("again", begin=coordinator.begun)
        report.goal("L2", f"kill -9 with {jobs} jobs and {workers} nodes: from the start of the next process until it serves", again["serving"], "s", 1, 0.5, False, judged)
        report.goal("L2", f"same, until a job submitted then was launched (all workers back after {again['all_workers']:.1f} s)", again["scheduling"], "s", 3, 1, False, judged)
        report.samples["limits"] = {"filled": filled, "fits": found, "list": times, "again": again}
        client.close()
