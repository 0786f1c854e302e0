"""Goal: an operator sees what nodes do and whether they are well, copies the store, checks it and goes back to a copy.
Method: one real cluster, the command line alone."""

import json
import sqlite3
import unittest

from cluster import Cluster, small_job
from fleet import Fleet


def short(**more):
    return small_job(length={"steps": 4}, schedule={"warmup": "1 steps", "final": 0}, **more)


def endless(**more):
    return small_job(length={"steps": 100000}, **more)


class Admin(unittest.TestCase):
    def test_top_health_and_probe_say_what_nodes_do(self):
        with Cluster() as c:
            node = json.loads(c.vicreg("node", "list", "-o", "json").stdout)["nodes"][0]["name"]
            job = c.submit(endless(name="busy"))
            c.until_step(job, 2)
            self.assertRegex(c.vicreg("top").stdout, rf"{node} +READY +cpu 2/2 .*{job[:8]} busy x2")
            ranks = c.vicreg("top", job[:8]).stdout
            self.assertRegex(ranks, r"busy  RUNNING, step \d+ of 100,000, \S+ s a step, \S+ images/s")
            self.assertRegex(ranks, rf"1 +{node} +cpu 1 +STEPPING")
            self.assertEqual(c.vicreg("top", "nobody", check=False).returncode, 7)
            self.assertIn("is well", c.vicreg("node", "health", node).stdout)
            probe = c.vicreg("node", "probe", node)
            for fact in ("the worker's folder: 1 MiB written", "data root fixture: readable", "ranks: compute on a cpu"):
                self.assertIn(fact, probe.stdout)
            self.assertIn("passed a probe", probe.stdout)
            self.assertEqual(c.describe(job)["attempt"], 1, "what runs runs on")
            # Folders that cannot be written are found by trying, and count as a strike. A rank that saves would make it again.
            c.vicreg("cancel", job, "--yes")
            c.wait(job)
            artifacts = c.dir / "artifacts"
            artifacts.rename(c.dir / "elsewhere")
            failed = c.vicreg("node", "probe", node, check=False)
            self.assertEqual(failed.returncode, 1, failed.stdout)
            self.assertIn("failed  the folder of checkpoints:", failed.stdout)
            (c.dir / "elsewhere").rename(artifacts)
            ill = c.vicreg("node", "health", node, check=False)
            self.assertEqual(ill.returncode, 1)
            self.assertIn("1 of 3 strikes", ill.stdout)
            self.assertEqual(c.vicreg("node", "probe", "nobody", check=False).returncode, 7)
            # With nobody there the answer is at once.
            c.kill("vicreg-worker")
            c.until("SUSPECT", lambda: "SUSPECT" in c.vicreg("node", "list").stdout, 20)
            self.assertEqual(c.vicreg("node", "probe", node, check=False).returncode, 6)
            c.up()

    def test_snapshot_fsck_and_restore(self):
        with Fleet({"a": 2}, quick=True) as f:
            done = f.submit(short(name="done", seed=2))
            self.assertEqual(f.wait(done), 0)
            runs = f.submit(endless(name="runs", seed=10))
            f.until_step(runs, 12)
            taken = json.loads(f.vicreg("admin", "snapshot", "-o", "json").stdout)
            snapshot = f.dir / "coordinator" / taken["path"]
            self.assertEqual(snapshot.stat().st_size, taken["bytes"])
            folder = ("--dir", f.dir / "coordinator")
            self.assertIn("sound", f.vicreg("admin", "fsck", *folder).stdout, "while the coordinator serves")
            later = f.submit(short(name="later", seed=2, world_size=1))
            refused = f.vicreg("admin", "restore", snapshot, *folder, "--yes", check=False)
            self.assertEqual(refused.returncode, 1, "the coordinator runs")
            stale = f.ranks_on("a")[0]
            before = f.describe(runs)["attempt"]
            f.kill_coordinator()
            restored = f.vicreg("admin", "restore", snapshot, *folder, "--artifacts", f.dir / "artifacts", "--yes")
            self.assertRegex(restored.stdout, r"restored 2 jobs, 1 of them queued again")
            self.assertIn("sound", f.vicreg("admin", "fsck", *folder).stdout)
            f.start_coordinator()
            # What ran is fenced, and starts again from what the copy knew.
            f.until("the next attempt", lambda: f.describe(runs)["state"] == "RUNNING" and f.describe(runs)["attempt"] > before, 30)
            self.assertNotIn(stale, f.ranks_on("a"))
            self.assertEqual({j["id"]: j["state"] for j in f.jobs()}, {done: "SUCCEEDED", runs: "RUNNING"})
            self.assertEqual(f.vicreg("describe", later, check=False).returncode, 7, "it came after the copy")
            f.kill_coordinator()
            with sqlite3.connect(f.dir / "coordinator" / "control.db") as store:
                store.execute("DELETE FROM claims")
            broken = f.vicreg("admin", "fsck", *folder, check=False)
            self.assertEqual(broken.returncode, 1)
            self.assertIn("held, but not claimed", broken.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
