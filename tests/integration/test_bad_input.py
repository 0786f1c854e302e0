"""Goal: bad input is refused whole, every problem at once, and nothing is stored; a bad start names what is in the way.
Method: the real command line against a real coordinator."""

import json
import os
import pathlib
import socket
import subprocess
import unittest

from cluster import BIN, Cluster, small_job

BAD = """name: Bad_Name
preset: demo-cpu
world_size: 2
batch_size: 1
data: {root: nowhere, limt: 5}
optimizer: {name: adamw, lr: fast}
optimizer: {name: lars}
loss: {lambda: -1}
"""


class Submit(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__(None, None, None)

    def refused(self, text):
        done = self.cluster.vicreg("submit", "-", check=False, stdin=text)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(json.loads(self.cluster.vicreg("list", "-o", "json").stdout)["jobs"], [])
        return done.stderr

    def test_every_problem_at_once_with_line_and_field(self):
        message = self.refused(BAD)
        for line, part in [(5, "limt"), (5, "data.root.*nowhere.*fixture"), (6, "optimizer.lr"), (7, "optimizer")]:
            self.assertRegex(message, rf"(?m)^.*:{line}:\d+: .*{part}")
        self.assertIn("limit", message)  # the nearest key

    def test_values_out_of_range_at_once(self):
        message = self.refused("name: Bad_Name\npreset: demo-cpu\nbatch_size: 1\ndata: {root: fixture}\nloss: {lambda: -1}\n")
        for line, field in [(1, "name"), (3, "batch_size"), (5, "loss.lambda")]:
            self.assertRegex(message, rf"(?m)^.*:{line}:\d+: .*{field}")

    def test_alias_is_refused(self):
        self.assertIn("alias", self.refused("name: &a x\npreset: demo-cpu\ndata: {root: *a}\n").lower())

    def test_a_root_nobody_offers_names_what_is_offered(self):
        message = self.refused(json.dumps(small_job(data={"root": "nowhere"})))
        self.assertIn("nowhere", message)
        self.assertIn("fixture", message)

    def test_dry_run_stores_nothing(self):
        self.cluster.vicreg("submit", "-", "--dry-run", stdin=json.dumps(small_job()))
        self.assertEqual(json.loads(self.cluster.vicreg("list", "-o", "json").stdout)["jobs"], [])

    def test_no_coordinator_is_code_6(self):
        done = subprocess.run([BIN / "vicreg", "list", "--coordinator", "127.0.0.1:1"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 6, done.stderr)


class Start(unittest.TestCase):
    def coordinator(self, folder, grpc, http="127.0.0.1:0", **more):
        return subprocess.run([BIN / "vicreg-coordinator", "--dir", str(folder), "--grpc-address", grpc, "--http-address", http],
                              capture_output=True, text=True, timeout=20, **more)

    def test_port_in_use_is_named(self):
        with Cluster(start=False) as cluster, socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for grpc, http in [(f"127.0.0.1:{port}", "127.0.0.1:0"), ("127.0.0.1:0", f"127.0.0.1:{port}")]:
                done = self.coordinator(cluster.dir / "coordinator", grpc, http)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(str(port), done.stderr)
                self.assertIn("in use", done.stderr)

    def test_second_coordinator_on_the_same_folder_is_refused(self):
        with Cluster() as cluster:
            done = self.coordinator(cluster.dir / "coordinator", "127.0.0.1:0")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(cluster.pids("vicreg-coordinator")[0]), done.stderr)
            self.assertEqual(cluster.vicreg("list").returncode, 0)

    def test_not_loopback_is_refused(self):
        with Cluster(start=False) as cluster:
            done = self.coordinator(cluster.dir / "coordinator", "0.0.0.0:0")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("loopback", done.stderr)

    def test_no_write_permission_names_the_folder(self):
        with Cluster(start=False) as cluster:
            locked = cluster.dir / "locked"
            locked.mkdir(mode=0o555)
            os.chmod(cluster.dir, 0o755)
            drop = (lambda: (os.setgid(65534), os.setuid(65534))) if os.getuid() == 0 else None
            done = self.coordinator(locked / "coordinator", "127.0.0.1:0", preexec_fn=drop)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(str(locked), done.stderr)
            self.assertIn("ermission", done.stderr)

    def test_corrupt_store_is_refused_and_left_alone(self):
        with Cluster(start=False) as cluster:
            folder = cluster.dir / "coordinator"
            folder.mkdir()
            (folder / "control.db").write_bytes(b"not a database" * 1000)
            done = self.coordinator(folder, "127.0.0.1:0")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("control.db", done.stderr)
            self.assertEqual((folder / "control.db").read_bytes(), b"not a database" * 1000)


if __name__ == "__main__":
    unittest.main(verbosity=2)
