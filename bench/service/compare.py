"""P18 and P21: a real coordinator under real gRPC clients, beside floors of the same run: empty calls and streams of the same messages with nothing
behind them (vicreg-bench-service bare), and one durable commit of SQLite."""

import json
import pathlib
import statistics
import sys

from harness import BIN, Side, Table

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from cluster import Coordinator

GOALS = {"P18", "P21"}
PEERS = False


def median(samples, key):
    return statistics.median(s[key] for s in samples)


def compare(goals, quick, report):
    with Coordinator() as coordinator:
        coordinator.wait()
        client, bare = Side([BIN / "vicreg-bench-service"]), Side([BIN / "vicreg-bench-service", "bare"])
        floor = Side([BIN / "vicreg-bench-scheduler"])
        ask = lambda **wanted: client.ask(json.dumps(wanted))[0]
        bare_address = f"127.0.0.1:{bare.hello[0]['port']}"
        table = Table(["Clients of a real coordinator, and of a server with nothing behind it. CPU time and peak: of the clients."], "workload")
        rounds = 1 if quick else 5
        if "P18" in goals:
            print("bench: submits of 16 clients", flush=True)
            load = {"clients": 16, "rate": 200, "seconds": 3 if quick else 8}
            samples = {"submits": [], "empty calls": [], "durable commits": []}
            for i in range(rounds + 1):
                taken = {"submits": ask(mode="submits", address=coordinator.address, **load),
                         "empty calls": ask(mode="calls", address=bare_address, **load),
                         "durable commits": floor.ask(json.dumps({"mode": "commits"}))[0]}
                if i > 0:
                    for label, sample in taken.items():
                        samples[label].append(sample)
            report.times(table, "16 clients, 200/s", samples)
            ours, call, commit = (median(samples[label], "p99") for label in samples)
            report.goal("P18", f"submit p99 ({ours * 1e3:.2f} ms) : empty call p99 ({call * 1e3:.2f}) + durable commit p99 ({commit * 1e3:.2f})", ours / (call + commit), "x", 3.5, 1, False, not quick)
            report.goal("P18", f"submit p99 (p50 {median(samples['submits'], 'p50') * 1e3:.2f}), 16 clients, 200/s", ours * 1e3, "ms", 20, 5, False)
        if "P21" in goals:
            print("bench: heartbeats of 1,000 workers", flush=True)
            workers = 200 if quick else 1000
            load = {"workers": workers, "seconds": 3 if quick else 10}
            samples = {"coordinator, streams": [], "bare streams": [], "bare unary calls": []}
            for _ in range(1 if quick else 3):
                samples["coordinator, streams"].append(ask(mode="streams", address=coordinator.address, pid=coordinator.process.pid, **load))
                samples["bare streams"].append(ask(mode="streams", address=bare_address, pid=bare.ranks[0].pid, **load))
                samples["bare unary calls"].append(ask(mode="unary", address=bare_address, pid=bare.ranks[0].pid, **load))
            report.times(table, f"{workers} workers, a heartbeat a second each", samples)
            core = {label: median(found, "core") for label, found in samples.items()}
            shown = ", ".join(f"{label} {100 * share:.1f} %" for label, share in core.items())
            report.goal("P21", f"server's CPU of {workers} heartbeats/s on streams : as empty unary calls ({shown} of a core)",
                        core["coordinator, streams"] / core["bare unary calls"], "x", 0.5, 0.2, False, not quick)
            report.note("P21", "same : bare streams", core["coordinator, streams"] / core["bare streams"], "x")
            report.goal("P21", "coordinator's CPU", 100 * core["coordinator, streams"], "% of a core", 20, 2, False)
            report.note("P21", "heartbeat to its answer, p99", median(samples["coordinator, streams"], "p99") * 1e3, "ms")
            report.goal("P21", "streams lost", sum(s["lost_streams"] for s in samples["coordinator, streams"]), "", 0, 0, False)
        for side in (client, bare, floor):
            side.close()
