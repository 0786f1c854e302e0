"""Goal: no kill -9 loses work, doubles a row or leaves a process behind; errors that a retry cannot mend end the job.
Method: real processes, killed from outside at a chosen step; each fault once (scripts/campaign repeats them)."""

import gzip
import json
import os
import pathlib
import shutil
import signal
import time
import unittest

from cluster import FIXTURE, Cluster, small_job


def long_enough(steps=240, **more):
    return small_job(name="fault", length={"steps": steps}, checkpoint={"every": "20 steps", "keep": 3}, **more)


class Kill(unittest.TestCase):
    def check_history(self, cluster, job_id, steps):
        rows = cluster.rows(job_id)
        self.assertEqual([r["step"] for r in rows], list(range(1, steps + 1)), "a gap or a duplicate")
        attempts = [r["attempt"] for r in rows]
        self.assertEqual(attempts, sorted(attempts))
        return rows

    def test_rank(self):
        with Cluster() as cluster:
            job_id = cluster.submit(long_enough())
            cluster.until_step(job_id, 50)
            ranks = cluster.pids("vicreg-rank")
            self.assertEqual(len(ranks), 2)
            killed = time.monotonic()
            os.kill(ranks[1], signal.SIGKILL)
            cluster.until("peer stopped", lambda: not set(ranks) & set(cluster.pids("vicreg-rank")), 5)
            self.assertLess(time.monotonic() - killed, 2.0, "a peer waited for a collective")
            self.assertEqual(cluster.wait(job_id), 0)
            job = cluster.describe(job_id)
            self.assertEqual((job["state"], job["attempt"], job["step"]), ("SUCCEEDED", 2, 240))
            rows = self.check_history(cluster, job_id, 240)
            second = [r["step"] for r in rows if r["attempt"] == 2]
            self.assertEqual(second[0] % 20, 1, "the second attempt starts after a checkpoint")
            self.assertGreater(second[0], 20)
            # The curve goes on where it was: the same experiment, not a fresh start.
            self.assertLess(rows[second[0] - 1]["loss"], 0.9 * rows[0]["loss"])

    def test_coordinator(self):
        with Cluster() as cluster:
            job_id = cluster.submit(long_enough())
            cluster.until_step(job_id, 30)
            ranks = cluster.pids("vicreg-rank")
            cluster.kill("vicreg-coordinator")
            time.sleep(1)  # the ranks are to train on meanwhile
            self.assertEqual(cluster.pids("vicreg-rank"), ranks)
            cluster.up()
            cluster.until("RUNNING", lambda: cluster.describe(job_id)["state"] in ("RUNNING", "SUCCEEDED"), 20)
            self.assertEqual(cluster.wait(job_id), 0)
            job = cluster.describe(job_id)
            self.assertEqual((job["state"], job["attempt"]), ("SUCCEEDED", 1))
            self.check_history(cluster, job_id, 240)

    def test_worker(self):
        with Cluster() as cluster:
            # Not done before the next worker is there, however slow that is.
            job_id = cluster.submit(long_enough(1000))
            cluster.until_step(job_id, 50)
            old = cluster.pids("vicreg-rank")
            cluster.kill("vicreg-worker")
            time.sleep(1)  # the ranks are to train on meanwhile
            self.assertEqual(cluster.pids("vicreg-rank"), old)
            cluster.up()
            back = time.monotonic()
            step = cluster.describe(job_id)["step"]
            cluster.until("its ranks report again", lambda: cluster.describe(job_id)["step"] > step, 5)
            took = time.monotonic() - back
            print(f"{took:.2f} s until they did")
            self.assertLess(took, 3)
            self.assertEqual(cluster.pids("vicreg-rank"), old)
            self.assertEqual(cluster.wait(job_id), 0)
            job = cluster.describe(job_id)
            self.assertEqual((job["state"], job["step"], job["attempt"], job["charges"]), ("SUCCEEDED", 1000, 1, 0))
            self.assertEqual({r["attempt"] for r in self.check_history(cluster, job_id, 1000)}, {1})
            cluster.until("the ranks' end", lambda: not cluster.pids("vicreg-rank"), 10)
            self.assertEqual(list((cluster.dir / "worker" / "ranks").iterdir()), [], "what is kept of ended ranks")

    def test_a_rank_that_dies_while_no_worker_looks_is_a_crash_of_that_rank(self):
        with Cluster() as cluster:
            job_id = cluster.submit(long_enough())
            cluster.until_step(job_id, 30)
            ranks = {cluster.rank_of(pid): pid for pid in cluster.pids("vicreg-rank")}
            cluster.kill("vicreg-worker")
            os.kill(ranks[1], signal.SIGKILL)
            cluster.until("the peer left too", lambda: not cluster.pids("vicreg-rank"), 90)
            cluster.up()
            self.assertEqual(cluster.wait(job_id), 0)
            self.assertEqual(cluster.describe(job_id)["attempt"], 2)
            self.check_history(cluster, job_id, 240)

    def test_worker_that_never_returns_leaves_nothing_that_counts(self):
        with Cluster() as cluster:
            job_id = cluster.submit(long_enough())
            cluster.until_step(job_id, 30)
            cluster.kill("vicreg-worker")
            step = cluster.describe(job_id)["step"]
            time.sleep(1)
            self.assertEqual(cluster.describe(job_id)["step"], step)
            state = cluster.until("node SUSPECT", lambda: "SUSPECT" in cluster.vicreg("node", "list").stdout, 12)
            self.assertTrue(state)


class Hang(unittest.TestCase):
    def test_a_stopped_rank_is_named_and_its_attempt_gives_way_to_the_next(self):
        with Cluster() as cluster:
            job_id = cluster.submit(small_job(name="hangs", length={"steps": 100000}))
            cluster.until_step(job_id, 60)
            ranks = {cluster.rank_of(pid): pid for pid in cluster.pids("vicreg-rank")}
            os.kill(ranks[1], signal.SIGSTOP)
            stopped = time.monotonic()
            # Steps take milliseconds, so the limit is its floor, 10 s; the design allows 5 s more.
            cluster.until("both ranks ended", lambda: not set(ranks.values()) & set(cluster.pids("vicreg-rank")), 15)
            self.assertGreater(time.monotonic() - stopped, 9, "ended before its limit")
            cluster.until("the next attempt trains", lambda: cluster.describe(job_id)["state"] == "RUNNING"
                          and cluster.describe(job_id)["attempt"] == 2)
            (end,) = [e for e in cluster.events(job_id) if e["reason"] == "HANG"]
            self.assertEqual((end["kind"], end["attempt"]), ("RESERVED", 2), "it did not stay where it was")
            self.assertRegex(end["message"], r"rank 1 on \S+ ended with HUNG: no progress for 1\d s after step \d+, in a step "
                             r"\(limit 10 s\); it has gone silent")
            log = cluster.vicreg("logs", job_id, "--rank", 1, "--attempt", 1).stdout
            self.assertIn("T (stopped)", log, "what its threads did was not saved")
            self.assertIn('cause="hang"} 1', cluster.http_get("/metrics"))
            cluster.vicreg("kill", job_id, "--yes")
            self.assertEqual(cluster.wait(job_id, 60), 103)


class OneAttempt(unittest.TestCase):
    def test_a_drain_ends_what_must_not_run_twice_and_the_exit_code_says_so(self):
        with Cluster() as cluster:
            job_id = cluster.submit(small_job(name="once", length={"steps": 100000}, restart={"never": True}))
            cluster.until_step(job_id, 30)
            self.assertEqual(cluster.vicreg("pause", job_id, check=False).returncode, 5, "it could not go on")
            cluster.vicreg("node", "drain", cluster.describe(job_id)["ranks"][0]["node"], "--grace", "30s")
            self.assertEqual(cluster.wait(job_id, 60), 104)
            job = cluster.describe(job_id)
            self.assertEqual((job["state"], job["reason"], job["attempt"]), ("FAILED", "PREEMPTED", 1))
            self.assertIn(f"checkpoint of step {job['checkpoints'][0]['step']} is kept", job["message"])


class Typed(unittest.TestCase):
    def ended(self, cluster, job):
        job_id = cluster.submit(job)
        self.assertEqual(cluster.wait(job_id, 90), 100)
        return cluster.describe(job_id)

    def test_a_nan_loss_rolls_back_once_then_fails_the_job_naming_step_and_term(self):
        with Cluster() as cluster:
            job = self.ended(cluster, small_job(optimizer={"name": "adamw", "lr": 1e12, "weight_decay": 0}))
            self.assertEqual((job["state"], job["reason"], job["attempt"]), ("FAILED", "NUMERIC", 2))
            rolled = [e for e in cluster.events(job["id"]) if e["reason"] == "ROLLBACK"]
            self.assertEqual(len(rolled), 1)
            self.assertRegex(rolled[0]["message"], r"other samples in the batch of step \d+")
            self.assertRegex(job["message"], r"step \d+")
            self.assertRegex(job["message"], r"invariance|variance|covariance|loss|gradient")

    def test_broken_data_fails_the_job_without_retry(self):
        with Cluster(start=False) as cluster:
            for name in ("cut", "lying", "missing"):
                shutil.copytree(FIXTURE, cluster.dir / name)
            images = "train-images-idx3-ubyte.gz"
            raw = gzip.decompress((FIXTURE / images).read_bytes())
            (cluster.dir / "cut" / images).write_bytes((FIXTURE / images).read_bytes()[:20000])
            (cluster.dir / "lying" / images).write_bytes(gzip.compress(raw[:4] + (10**6).to_bytes(4, "big") + raw[8:]))
            (cluster.dir / "missing" / images).unlink()
            cluster.roots = {n: cluster.dir / n for n in ("cut", "lying", "missing")}
            cluster.up()
            for name in cluster.roots:
                with self.subTest(name):
                    job = self.ended(cluster, small_job(data={"root": name, "limit": 512, "channels": 1}))
                    self.assertEqual((job["state"], job["reason"], job["attempt"]), ("FAILED", "DATA", 1))
                    self.assertIn("train-images", job["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
