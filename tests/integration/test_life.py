"""Goal: a submitted job trains on two ranks and everything a user can look at tells the same story.
Method: one real cluster, real processes, the committed fixture; only the command line and HTTP are used to look."""

import json
import re
import struct
import subprocess
import time
import unittest
import uuid

from cluster import BIN, Cluster, small_job


class Life(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().__enter__()
        cls.id = cls.cluster.submit(small_job())
        cls.code = cls.cluster.wait(cls.id)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def test_job_succeeds_and_describe_tells_so(self):
        self.assertEqual(self.code, 0)
        job = self.cluster.describe(self.id)
        self.assertEqual((job["id"], job["state"], job["reason"], job["attempt"], job["step"], job["total_steps"]),
                         (self.id, "SUCCEEDED", "COMPLETED", 1, 60, 60))
        self.assertTrue(job["message"])

    def test_history_has_every_step_once_with_the_promised_names(self):
        rows = self.cluster.rows(self.id)
        self.assertEqual([r["step"] for r in rows], list(range(1, 61)))
        for row in rows:
            self.assertLessEqual({"step", "attempt", "loss", "invariance", "variance", "covariance", "learning_rate",
                                  "images_per_second"}, set(row))
            weighted = row["invariance_weighted"] + row["variance_weighted"] + row["covariance_weighted"]
            self.assertAlmostEqual(row["loss"], weighted, delta=1e-5 * abs(weighted))
            # authors' convention: 25, 12.5 and 1 per view
            self.assertAlmostEqual(row["variance_weighted"], 12.5 * row["variance"], delta=1e-5)
        self.assertLess(rows[-1]["loss"], rows[0]["loss"])
        self.assertEqual(rows[0]["learning_rate"], 0)
        csv = self.cluster.vicreg("metrics", self.id, "-o", "csv").stdout.splitlines()
        self.assertEqual(len(csv), 61)

    def test_events_have_no_gap_and_name_an_actor_and_a_reason(self):
        events = self.cluster.events(self.id)
        self.assertEqual([e["job_seq"] for e in events], list(range(1, len(events) + 1)))
        kinds = [e["kind"] for e in events]
        for before, after in [("SUBMITTED", "RESERVED"), ("RESERVED", "STARTING"), ("STARTING", "RUNNING"), ("RUNNING", "SUCCEEDED")]:
            self.assertLess(kinds.index(before), kinds.index(after))
        self.assertTrue(all(e["actor"] and e["message"] for e in events), events)

    def test_the_same_request_id_gives_one_job(self):
        request = str(uuid.uuid4())
        job = small_job(name="twice", world_size=64)
        first = self.cluster.submit(job, "--request-id", request)
        self.assertEqual(self.cluster.submit(job, "--request-id", request), first)
        other = self.cluster.vicreg("submit", "-", "--request-id", request, check=False,
                                    stdin=json.dumps(small_job(name="other", world_size=64)))
        self.assertEqual(other.returncode, 5, other.stderr)
        named = [j for j in json.loads(self.cluster.vicreg("list", "-o", "json").stdout)["jobs"] if j["name"] == "twice"]
        self.assertEqual(len(named), 1)
        self.cluster.vicreg("cancel", first, "--yes")
        self.assertEqual(self.cluster.wait(first), 103)

    def test_more_slots_than_the_cluster_has_waits_and_says_what_is_missing(self):
        job_id = self.cluster.submit(small_job(name="wide", world_size=5))
        job = self.cluster.until("reason", lambda: (lambda j: j if j["reason"] == "NOT_ENOUGH_SLOTS" else None)(self.cluster.describe(job_id)), 5)
        self.assertEqual(job["state"], "QUEUED")
        self.assertRegex(job["message"], r"5 cpu slots.*has 2")
        # It does not hold up a job that fits.
        fits = self.cluster.submit(small_job(name="fits", world_size=1, length={"steps": 4}, schedule={"warmup": "1 steps"}))
        self.assertEqual(self.cluster.wait(fits), 0)
        self.cluster.vicreg("cancel", job_id, "--yes")

    def test_cancelling_a_running_job_frees_its_slots(self):
        job_id = self.cluster.submit(small_job(name="long", length={"steps": 100000}))
        self.cluster.until_step(job_id, 5)
        self.cluster.vicreg("cancel", job_id, "--yes")
        self.assertEqual(self.cluster.wait(job_id, 60), 103)
        self.assertEqual(self.cluster.pids("vicreg-rank"), [])

    def test_metrics_page_is_prometheus_text(self):
        page = self.cluster.http_get("/metrics")
        seen, typed = set(), set()
        for line in page.splitlines():
            if line.startswith("# TYPE "):
                name = line.split()[2]
                self.assertNotIn(name, typed)
                typed.add(name)
                continue
            if line.startswith("#") or not line:
                continue
            match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*\})? '
                                 r'([-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|Inf)|NaN)( [0-9]+)?', line)
            self.assertTrue(match, line)
            key = (match[1], match[2])
            self.assertNotIn(key, seen)
            seen.add(key)
        of_job = [labels for name, labels in seen if name == "vicreg_job_loss_term" and self.id in labels]
        self.assertEqual(len(of_job), 6, of_job)
        self.assertEqual(self.cluster.http_get("/healthz").strip()[:2], "ok")
        self.assertIn("ready", self.cluster.http_get("/readyz"))

    def test_export_is_the_encoder_and_nothing_else(self):
        out = self.cluster.dir / "out"
        self.cluster.vicreg("export", self.id, "--to", out)
        blob = (out / "encoder.safetensors").read_bytes()
        (size,) = struct.unpack("<Q", blob[:8])
        header = json.loads(blob[8:8 + size])
        self.assertGreater(len(header), 8)
        self.assertFalse([n for n in header if "expander" in n])
        self.assertTrue((out / "export.json").exists())

    def test_logs_and_nodes_are_there(self):
        self.assertTrue(self.cluster.vicreg("logs", self.id).stdout)
        self.assertTrue(self.cluster.vicreg("logs", self.id, "--rank", "1").stdout)
        nodes = json.loads(self.cluster.vicreg("node", "list", "-o", "json").stdout)["nodes"]
        self.assertEqual([(n["state"], n["data_roots"]) for n in nodes], [("READY", ["fixture"])])

    def test_up_again_starts_nothing(self):
        before = self.cluster.pids("vicreg-coordinator") + self.cluster.pids("vicreg-worker")
        self.cluster.up()
        self.assertEqual(self.cluster.pids("vicreg-coordinator") + self.cluster.pids("vicreg-worker"), before)

    def test_watch_of_a_finished_job_ends_with_its_code(self):
        self.assertEqual(self.cluster.vicreg("watch", self.id, check=False, timeout=30).returncode, 0)

    def test_unknown_job_is_code_7(self):
        done = self.cluster.vicreg("describe", "ffffffff", check=False)
        self.assertEqual(done.returncode, 7)
        self.assertIn("ffffffff", done.stderr)


class Foreground(unittest.TestCase):
    def test_up_in_the_foreground_restarts_what_dies_and_ctrl_c_stops_all(self):
        import os
        import signal
        with Cluster(start=False) as cluster:
            up = subprocess.Popen(cluster.up_command(), env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                cluster.until("node", lambda: "READY" in cluster.vicreg("node", "list", check=False).stdout, 30)
                first = cluster.kill("vicreg-coordinator")
                cluster.until("a new coordinator", lambda: cluster.pids("vicreg-coordinator") not in ([], [first]), 15)
                cluster.until("node again", lambda: "READY" in cluster.vicreg("node", "list", check=False).stdout, 30)
                up.send_signal(signal.SIGINT)
                up.wait(30)
                self.assertEqual(cluster.pids(""), [])
            finally:
                if up.poll() is None:
                    os.kill(up.pid, signal.SIGKILL)
                    up.wait()

    def test_a_coordinator_that_dies_while_the_worker_starts_is_started_again(self):
        import signal
        with Cluster(start=False) as cluster:
            up = subprocess.Popen(cluster.up_command(), env=cluster.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                cluster.until("a worker's process", lambda: cluster.pids("vicreg-worker"), 30)
                first = cluster.kill("vicreg-coordinator")
                cluster.until("a new coordinator", lambda: cluster.pids("vicreg-coordinator") not in ([], [first]), 15)
                cluster.until("node", lambda: "READY" in cluster.vicreg("node", "list", check=False).stdout, 30)
            finally:
                up.send_signal(signal.SIGINT)
                up.wait(30)
            self.assertEqual(cluster.pids(""), [])

    def test_a_command_finds_a_coordinator_that_comes_while_it_waits(self):
        with Cluster() as cluster:
            cluster.kill("vicreg-coordinator")
            asked = subprocess.Popen([BIN / "vicreg", "node", "list"], env=cluster.env, stdout=subprocess.PIPE, text=True)
            time.sleep(0.3)  # long enough for its first call to find nobody
            cluster.up()
            said, _ = asked.communicate(timeout=30)
            self.assertEqual((asked.returncode, said.split()[:1]), (0, ["NAME"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
