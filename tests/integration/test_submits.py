"""Goal: no acknowledged submit is lost and no job runs twice, however often the coordinator dies meanwhile.
Method: 200 jobs from 4 clients, every one with its own request id and retried until acknowledged, while the coordinator is
killed at random moments (seed printed). By default 20 of them can run, the rest ask for more slots than there are and stay
queued; VICREG_RUN_ALL=1 (the campaign) lets all 200 run."""

import concurrent.futures
import json
import os
import random
import threading
import time
import unittest
import uuid

from cluster import Cluster, small_job


class Storm(unittest.TestCase):
    def test_200_submits_under_kill(self):
        seed = int(os.environ.get("VICREG_SEED", random.randrange(1 << 30)))
        print(f"seed {seed}", flush=True)
        dice = random.Random(seed)
        run_all = os.environ.get("VICREG_RUN_ALL") == "1"
        with Cluster() as cluster:
            stop = threading.Event()
            kills = 0

            def killer():
                nonlocal kills
                while not stop.wait(dice.uniform(0.02, 0.3)):
                    cluster.kill("vicreg-coordinator")
                    kills += 1
                    cluster.up()

            def submit(i):
                runs = run_all or i % 10 == 0
                job = small_job(name=f"storm-{i}", world_size=1 if runs else 64, batch_size=64, length={"steps": 3}, schedule={"warmup": "1 steps"},
                                expander=[16], evaluation=None, data={"root": "fixture", "limit": 64, "channels": 1})
                request = str(uuid.uuid4())
                deadline = time.monotonic() + 120
                while True:
                    done = cluster.vicreg("submit", "-", "-o", "json", "--request-id", request, check=False, stdin=json.dumps(job))
                    if done.returncode == 0:
                        return json.loads(done.stdout)["id"]
                    # 6: the coordinator is away: same id again. Anything else is a defect.
                    self.assertEqual(done.returncode, 6, done.stderr)
                    self.assertLess(time.monotonic(), deadline)

            thread = threading.Thread(target=killer)
            thread.start()
            try:
                with concurrent.futures.ThreadPoolExecutor(4) as pool:
                    ids = list(pool.map(submit, range(200)))
            finally:
                stop.set()
                thread.join()
            cluster.up()
            print(f"{kills} kills", flush=True)
            self.assertGreater(kills, 0)
            self.assertEqual(len(set(ids)), 200)
            listed = json.loads(cluster.vicreg("list", "-o", "json").stdout)["jobs"]
            self.assertEqual(sorted(j["id"] for j in listed), sorted(ids), "lost or doubled")
            running = ids if run_all else ids[::10]
            for job_id in running:
                self.assertEqual(cluster.wait(job_id, 1200), 0)
                ends = [e for e in cluster.events(job_id) if e["kind"] == "SUCCEEDED"]
                self.assertEqual(len(ends), 1)
                self.assertEqual([r["step"] for r in cluster.rows(job_id)], [1, 2, 3])


if __name__ == "__main__":
    unittest.main(verbosity=2)
