"""Goal: a coordinator that is killed at any moment loses nothing it acknowledged, runs nothing twice and leaves nothing stuck.
Method: kill -9 at every point where the control store is made durable in the life of a job, once before and once after the
system call (a preloaded library counts them), then at random moments under many jobs. The worker and the store are real; ranks
only say what ranks say (quick_rank.cc), so that the coordinator's part is most of the time. VICREG_JOBS and VICREG_KILLS make
more of it (scripts/campaign crash-write, crash-random)."""

import collections
import concurrent.futures
import json
import os
import random
import sqlite3
import subprocess
import time
import unittest
import uuid

from cluster import BIN, small_job
from fleet import Fleet

KILLER = BIN / "vicreg-kill-at-sync.so"
STEPS = 12


def job(name, steps=STEPS, step_ms=5, **more):
    return small_job(name=name, seed=step_ms, length={"steps": steps}, schedule={"warmup": "1 steps", "final": 0},
                     checkpoint={"every": "10 steps", "keep": 3}, evaluation=None, **more)


class Crash(unittest.TestCase):
    def submit(self, fleet, spec, request):
        """Until it is acknowledged; the id."""
        done = fleet.vicreg("submit", "-", "-o", "json", "--request-id", request, stdin=json.dumps(spec), check=False)
        return json.loads(done.stdout)["id"] if done.returncode == 0 else None

    def check(self, fleet, acknowledged):
        """All of `acknowledged` (request id -> (job id, steps)) ended once and well, and what is stored is what was served."""
        served = {j["id"]: j for j in fleet.jobs()}
        lives = collections.Counter(tuple(line.split()[:3])
                                    for line in (fleet.dir / "artifacts" / "lives.log").read_text().splitlines())
        self.assertEqual([k for k, n in lives.items() if n > 1], [], "a rank of one attempt was started twice")
        self.assertEqual(len({i for i, _ in acknowledged.values()}), len(acknowledged), "two requests, one job")
        self.assertEqual(set(served), {i for i, _ in acknowledged.values()}, "a job lost, or one nobody asked for")
        for job_id, steps in acknowledged.values():
            self.assertEqual(served[job_id]["state"], "SUCCEEDED", served[job_id]["message"])
            self.assertEqual([r["step"] for r in fleet.rows(job_id)], list(range(1, steps + 1)))
            events = fleet.events(job_id)
            self.assertEqual([e["job_seq"] for e in events], list(range(1, len(events) + 1)))
            self.assertEqual([e["kind"] for e in events].count("SUCCEEDED"), 1)
            self.assertEqual([e["attempt"] for e in events], sorted(e["attempt"] for e in events))
        # Memory and store agree: the next coordinator, which has only the store, serves the same.
        fleet.kill_coordinator()
        print(fleet.vicreg("admin", "fsck", "--dir", fleet.dir / "coordinator").stdout.strip())
        with sqlite3.connect(f"file:{fleet.dir}/coordinator/control.db?mode=ro", uri=True) as store:
            self.assertEqual(store.execute("SELECT count(*) FROM claims").fetchone(), (0,))
            self.assertEqual(dict(store.execute("SELECT id, state FROM jobs")), {i: 8 for i in served})
        fleet.start_coordinator()
        again = {j["id"]: j for j in fleet.jobs()}
        self.assertEqual(again, served)

    def life(self, fleet, at, when):
        """One job while the coordinator dies at its `at`-th sync. False: it never came to that."""
        fleet.kill_coordinator()
        fleet.start_coordinator(LD_PRELOAD=str(KILLER), KILL_AT=str(at), KILL_WHEN=when)
        request, job_id, died = str(uuid.uuid4()), None, False
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if fleet.coordinator_ended():
                self.assertFalse(died, "it ended twice")
                self.assertEqual(fleet.coordinator.returncode, -9)
                died = True
                fleet.start_coordinator()
            if job_id is None:
                job_id = self.submit(fleet, job(f"{when}-{at}"), request)
                continue
            state = fleet.vicreg("list", "-o", "json", check=False, timeout=20)
            if state.returncode == 0 and all(j["state"] == "SUCCEEDED" for j in json.loads(state.stdout)["jobs"]):
                self.acknowledged[request] = (job_id, STEPS)
                return died
            time.sleep(0.02)
        self.fail(f"stuck after a kill at sync {at}, {when} it: {fleet.describe(job_id)}")

    def test_at_every_write_of_a_jobs_life(self):
        self.acknowledged = {}
        with Fleet({"a": 2}, quick=True) as fleet:
            # In the suite the two take turns; a campaign does both at each write.
            turns = [("before", "after")] if "VICREG_KILLS" in os.environ else [("before",), ("after",)]
            at = 0
            while all(self.life(fleet, at + 1, when) for when in turns[at % len(turns)]):
                at += 1
            self.assertGreater(at, 11, "a job's life has more writes than that")
            print(f"{at} writes, killed at each")
            self.check(fleet, self.acknowledged)

    def test_at_random_moments_under_load(self):
        jobs, kills = int(os.environ.get("VICREG_JOBS", 12)), int(os.environ.get("VICREG_KILLS", 15))
        seed = int(os.environ.get("VICREG_SEED", time.time()))
        print("seed", seed, flush=True)
        dice = random.Random(seed)
        wanted = {str(uuid.UUID(int=dice.getrandbits(128), version=4)): dice.randrange(5, 40) for _ in range(jobs)}
        acknowledged = {}
        with Fleet({"a": 4, "b": 4}, quick=True) as fleet:
            begin = time.monotonic()

            def ask(request, number):
                time.sleep(max(0.0, begin + number * kills * 0.6 / jobs - time.monotonic()))  # arrivals over most of the time
                while request not in acknowledged:
                    world = 1 + number % 3
                    job_id = self.submit(fleet, job(f"j{number}", wanted[request], 10 + number % 50, world_size=world), request)
                    if job_id:
                        acknowledged[request] = (job_id, wanted[request])

            with concurrent.futures.ThreadPoolExecutor(4) as clients:
                asked = [clients.submit(ask, request, n) for n, request in enumerate(wanted)]
                for _ in range(kills):
                    # Mostly soon, now and then late enough for workers to be back and jobs to move on.
                    time.sleep(dice.uniform(0.02, 0.8) if dice.random() < 0.8 else dice.uniform(0.8, 3))
                    fleet.kill_coordinator()
                    fleet.start_coordinator()
                for one in asked:
                    one.result()
            fleet.until("every job ended", lambda: all(j["state"] == "SUCCEEDED" for j in fleet.jobs()), 120)
            self.check(fleet, acknowledged)
            print(f"{kills} kills under {jobs} jobs: 0 lost, 0 twice, 0 stuck")


if __name__ == "__main__":
    unittest.main(verbosity=2)
