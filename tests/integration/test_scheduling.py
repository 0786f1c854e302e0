"""Goal: what users and operators ask of jobs, queues and nodes happens to real processes, and changes no experiment.
Method: one real cluster with two CPU slots, jobs on the committed fixture, the command line alone."""

import json
import unittest

from cluster import Cluster, small_job


def steps(count, **more):
    return small_job(length={"steps": count}, schedule={"warmup": "1 steps", "final": 0},
                     checkpoint={"every": "10 steps", "keep": 3}, **more)


class Scheduling(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def until_state(self, job_id, state, seconds=60):
        return self.cluster.until(f"{state} of {job_id}", lambda: (
            lambda j: j if j["state"] == state else None)(self.cluster.describe(job_id)), seconds)

    def plan(self, job):
        return json.loads(self.cluster.vicreg("plan", "-", "-o", "json", stdin=json.dumps(job)).stdout)

    def finish(self, *ids):
        for job_id in ids:
            self.cluster.vicreg("kill", job_id, "--yes")
            self.assertEqual(self.cluster.wait(job_id, 60), 103)

    def test_pause_resume_and_resize_leave_the_experiment_as_it_was(self):
        c = self.cluster
        whole = c.submit(steps(60, name="whole", world_size=1))
        self.assertEqual(c.wait(whole), 0)
        job = c.submit(steps(60, name="moved", world_size=2))
        c.until_step(job, 12)
        c.vicreg("pause", job, "--reason", "lunch")
        paused = self.until_state(job, "PAUSED")
        self.assertEqual(paused["reason"], "PAUSE_REQUESTED")
        self.assertEqual(c.pids("vicreg-rank"), [])
        saved = paused["checkpoints"][0]["step"]
        self.assertGreaterEqual(saved, 12)
        c.vicreg("resize", job, "--world-size", 1)
        c.vicreg("resume", job)
        self.assertEqual(c.wait(job), 0)
        done = c.describe(job)
        self.assertEqual((done["state"], done["attempt"], done["charges"], done["max_world_size"]), ("SUCCEEDED", 2, 0, 1))
        self.assertEqual(done["recipe_hash"], c.describe(whole)["recipe_hash"])
        self.assertEqual([r["step"] for r in c.rows(job)], list(range(1, 61)))
        # One rank or two, stopped or not: the same losses, but for rounding.
        for moved, still in zip(c.rows(job), c.rows(whole)):
            self.assertAlmostEqual(moved["loss"], still["loss"], delta=2e-2 * still["loss"], msg=str(moved["step"]))
        self.assertIn("lunch", " ".join(e["message"] for e in c.events(job)))

    def test_a_more_important_job_goes_first_and_why_and_plan_say_what_happens(self):
        c = self.cluster
        runs = c.submit(steps(100000, name="runs"))
        c.until_step(runs, 2)
        low = c.submit(steps(4, name="low", world_size=1))
        high = c.submit(steps(4, name="high", world_size=1, priority=7))
        why = json.loads(c.vicreg("why", low, "-o", "json").stdout)
        self.assertEqual((why["state"], why["reason"]), ("QUEUED", "QUEUED_BEHIND" if "behind" in why["message"] else "SLOTS_IN_USE"))
        self.assertIn("SLOTS_IN_USE", c.vicreg("why", high).stdout)
        plan = self.plan(steps(4, name="asked", world_size=5))
        self.assertEqual((plan["starts_now"], plan["reason"]), (False, "NOT_ENOUGH_SLOTS"))
        # Held: it is the other one that starts.
        c.vicreg("hold", high)
        self.assertEqual(c.describe(high)["state"], "PAUSED")
        c.vicreg("priority", low, -3)
        self.assertEqual(c.describe(low)["priority"], -3)
        refused = c.vicreg("priority", low, 1001, check=False)
        self.assertEqual(refused.returncode, 2, refused.stderr)
        self.finish(runs)
        self.assertEqual(c.wait(low), 0)
        self.assertEqual(c.describe(high)["state"], "PAUSED")
        c.vicreg("release", high)
        self.assertEqual(c.wait(high), 0)
        self.assertTrue(self.plan(steps(4, name="asked"))["starts_now"])
        stale = c.vicreg("requeue", low, "--expected-version", 1, check=False)
        self.assertNotEqual(stale.returncode, 0)

    def test_plan_says_when_and_wait_placed_says_why_not(self):
        c = self.cluster
        runs = c.submit(steps(100000, name="fills"))
        c.until_step(runs, 30)
        plan = self.plan(steps(4, name="asked", world_size=1))
        self.assertFalse(plan["starts_now"])
        eta = c.describe(runs)["eta_seconds"]
        self.assertGreater(plan["starts_in_seconds"], 0.3 * eta)
        self.assertLess(plan["starts_in_seconds"], 3 * eta)
        self.assertIn("could start in", c.vicreg("plan", "-", stdin=json.dumps(steps(4, name="asked"))).stdout)
        late = c.vicreg("submit", "-", "--name", "late", "--priority", -2, "--wait-placed", "--timeout", "1s", check=False,
                        stdin=json.dumps(steps(4, name="first", world_size=1)))
        self.assertEqual(late.returncode, 3, late.stderr)
        self.assertRegex(late.stderr, "not placed: (SLOTS_IN_USE|QUEUED_BEHIND), ")
        (job,) = [j for j in c.jobs() if j["name"] == "late"]
        self.assertEqual((job["state"], job["priority"]), ("QUEUED", -2))
        self.assertIn("late", c.vicreg("list", "--mine", "--project", "default").stdout)
        self.assertNotIn("late", c.vicreg("list", "--queue", "other").stdout)
        self.finish(runs)
        self.assertEqual(c.wait(job["id"]), 0)
        placed = c.vicreg("submit", "-", "--wait-placed", "--wait", stdin=json.dumps(steps(4, name="at-once")))
        self.assertEqual(placed.returncode, 0)

    def test_restart_goes_back_to_a_checkpoint(self):
        c = self.cluster
        job = c.submit(steps(100000, name="again"))
        c.until_step(job, 25)
        seen = c.describe(job)
        unknown = c.vicreg("restart", job, "--from", 7, check=False)
        self.assertEqual(unknown.returncode, 2, unknown.stderr)
        self.assertIn("has checkpoints of steps", unknown.stderr)
        self.assertEqual(c.vicreg("pause", job, "--expected-version", 1, check=False).returncode, 5)
        c.vicreg("restart", job, "--from", 10)
        c.until("the next attempt", lambda: c.describe(job)["attempt"] > seen["attempt"])
        c.until("a step again", lambda: c.describe(job)["state"] == "RUNNING")
        kinds = [e["kind"] for e in c.events(job)]
        self.assertIn("ROLLED_BACK", kinds)
        self.assertIn("training on from step 10", " ".join(e["message"] for e in c.events(job)))
        self.finish(job)

    def test_queues_quotas_and_nodes_are_obeyed(self):
        c = self.cluster
        unknown = c.vicreg("submit", "-", check=False, stdin=json.dumps(steps(4, name="lost", queue="night")))
        self.assertEqual(unknown.returncode, 2)
        self.assertIn("queue: found night", unknown.stderr)
        c.vicreg("queue", "set", "night", "--close", "--max-priority", 3)
        over = c.vicreg("submit", "-", check=False, stdin=json.dumps(steps(4, name="over", queue="night", priority=4)))
        self.assertIn("takes -1000 to 3", over.stderr)
        job = c.submit(steps(4, name="nightly", queue="night"))
        self.assertEqual(json.loads(c.vicreg("why", job, "-o", "json").stdout)["reason"], "QUEUE_CLOSED")
        described = c.vicreg("queue", "describe", "night").stdout
        self.assertRegex(described, r"state +closed")
        self.assertRegex(described, rf"{job[:8]} +nightly +QUEUED +QUEUE_CLOSED .*is closed")
        self.assertEqual([j["id"] for j in json.loads(c.vicreg("queue", "describe", "night", "-o", "json").stdout)["jobs"]], [job])
        self.assertEqual(c.vicreg("queue", "describe", "day", check=False).returncode, 7)
        c.vicreg("queue", "set", "night", "--open")
        self.assertEqual(c.wait(job), 0)
        self.assertRegex(c.vicreg("queue", "list").stdout, r"default +night +open +-1000\.\.3")

        c.vicreg("quota", "set", "small", "--cpu", 1)
        wide = c.vicreg("submit", "-", check=False, stdin=json.dumps(steps(4, name="wide", project="small")))
        self.assertIn("may hold 1 cpu slots", wide.stderr)
        first = c.submit(steps(100000, name="first", project="small", world_size=1))
        second = c.submit(steps(4, name="second", project="small", world_size=1))
        self.until_state(first, "RUNNING")
        self.assertEqual(json.loads(c.vicreg("why", second, "-o", "json").stdout)["reason"], "QUOTA")
        self.assertRegex(c.vicreg("quota", "get", "small").stdout, r"small +1 +1")

        node = json.loads(c.vicreg("node", "list", "-o", "json").stdout)["nodes"][0]["name"]
        self.assertEqual(c.vicreg("node", "drain", "nobody", check=False).returncode, 7)
        c.vicreg("node", "drain", node, "--grace", "30s")
        self.until_state(first, "QUEUED")
        self.assertEqual(c.pids("vicreg-rank"), [])
        self.assertEqual(c.describe(first)["charges"], 0)
        self.assertIn("cordoned or draining", c.vicreg("why", first).stdout)
        self.assertIn("DRAINING", c.vicreg("node", "describe", node).stdout)
        # An operator's wish outlives a coordinator.
        c.kill("vicreg-coordinator")
        c.up()
        c.until("the node", lambda: "READY,DRAINING" in c.vicreg("node", "list").stdout)
        c.vicreg("node", "uncordon", node)
        self.until_state(first, "RUNNING")
        self.finish(first)
        self.assertEqual(c.wait(second), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
