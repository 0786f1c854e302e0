"""Goal: a job of two modalities is what its file says, from the command line to the exported encoders: any number of ranks trains
the same, a killed rank changes nothing, and each branch's encoder can be fetched and judged.
Method: examples/two-modalities.yaml on two modalities that scripts/make-two-modalities derives from the committed images; the
trainer alone with 1 and 2 ranks, and a real cluster."""

import json
import math
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

from cluster import BIN, FIXTURE, SOURCE, Cluster

EXAMPLE = SOURCE / "examples/two-modalities.yaml"
SMALL = ["--set", "data.limit=512", "--set", "batch_size=64", "--set", "length.steps=6", "--set", "schedule.warmup=2 steps",
         "--set", "checkpoint.every=2 steps", "--set", "evaluation.knn.every=3 steps"]


def tensors(path):
    blob = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack("<Q", blob[:8])
    header = json.loads(blob[8:8 + size])
    kinds = {"F32": "f", "F64": "d", "I64": "q"}
    read = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + at for at in entry["data_offsets"])
        data = blob[begin:end]
        kind = kinds[entry["dtype"]]
        read[name] = struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)
    return read


def distance(a, b):
    """Of all values of two models together, relative to the size of the second."""
    difference = sum((x - y) ** 2 for name in b for x, y in zip(a[name], b[name]))
    return math.sqrt(difference / sum(y * y for name in b for y in b[name]))


class Modalities(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="vicreg-modalities-")
        cls.root = pathlib.Path(cls.folder.name)
        cls.data = cls.root / "two-modalities"
        subprocess.run([sys.executable, SOURCE / "scripts/make-two-modalities", FIXTURE, cls.data], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def train(self, name, ranks, *sets):
        done = subprocess.run([BIN / "vicreg-train", "run", EXAMPLE, "--ranks", str(ranks), "--output", self.root / name,
                               "--data-root", f"two-modalities={self.data}", *SMALL, *sets], capture_output=True, text=True, timeout=240)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()], self.root / name / "default/two-modalities"

    def test_any_number_of_ranks_trains_the_same(self):
        # sgd at a low rate: adamw turns the sign of a gradient that is all rounding into a whole step, a high rate lets it grow.
        sgd = ["--set", "optimizer={name: sgd, base_lr: 0.02}"]
        rows, one = self.train("one", 1, *sgd)
        self.assertEqual(len(rows), 6)
        for ranks in (2, 3):
            other_rows, other = self.train(f"ranks-{ranks}", ranks, *sgd)
            self.assertAlmostEqual(other_rows[0]["loss"] / rows[0]["loss"], 1, delta=1e-5)
            for a, b in zip(rows, other_rows):
                self.assertAlmostEqual(b["loss"] / a["loss"], 1, delta=1e-4)
            models = [tensors(folder / "a1/step-6/model.safetensors") for folder in (other, one)]
            self.assertEqual({name.split(".")[0] for name in models[0]}, {"image", "wave"})
            self.assertLess(distance(*models), 1e-4)
        _, seed = self.train("seed", 1, *sgd, "--set", "seed=2")
        self.assertGreater(distance(tensors(seed / "a1/step-6/model.safetensors"), models[1]), 0.1)

    def test_each_branch_is_measured_exported_and_judged(self):
        rows, folder = self.train("measured", 2, "--set", "branches[0].mu=12.5", "--set", "branches[0].nu=1",
                                  "--set", "branches[1].mu=25", "--set", "branches[1].nu=2", "--set", "loss={}")
        self.assertEqual([row["step"] for row in rows if "knn_accuracy" in row], [3, 6])
        branches = rows[-1]["knn_by_branch"]
        self.assertEqual([of["branch"] for of in branches], ["image", "wave"])
        self.assertAlmostEqual(rows[-1]["knn_accuracy"], sum(of["accuracy"] for of in branches) / 2)
        done = subprocess.run([BIN / "vicreg-train", "evaluate", "--export", folder / "export", "--json",
                               "--data-root", f"two-modalities={self.data}"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        scores = json.loads(done.stdout)["scores"]
        self.assertEqual([(s["branch"], s["features"]) for s in scores],
                         [("image", "raw pixels"), ("image", "untrained encoder"), ("image", "trained encoder"),
                          ("wave", "raw values"), ("wave", "untrained encoder"), ("wave", "trained encoder")])
        for score in scores:
            self.assertGreater(score["as_is"], 0.2)
        for of in branches:  # the same samples, the same protocol
            (trained,) = [s for s in scores if s["branch"] == of["branch"] and s["features"] == "trained encoder"]
            self.assertAlmostEqual(of["accuracy"], trained["as_is"], delta=0.005)

    def test_a_cluster_trains_it_through_a_killed_rank(self):
        with Cluster(roots={"two-modalities": self.data}) as cluster:
            text = EXAMPLE.read_text()
            sets = SMALL + ["--set", "length.steps=120", "--set", "checkpoint.every=20 steps", "--set", "evaluation.knn.every=1000 steps"]
            job = json.loads(cluster.vicreg("submit", "-", "-o", "json", *sets, stdin=text).stdout)["id"]
            cluster.until("a checkpoint", lambda: cluster.describe(job)["step"] >= 25, 90)
            os.kill(cluster.pids("vicreg-rank")[0], signal.SIGKILL)
            self.assertEqual(cluster.wait(job), 0)
            self.assertEqual(cluster.describe(job)["attempt"], 2)
            rows = cluster.rows(job)
            self.assertEqual([row["step"] for row in rows], list(range(1, 121)))
            self.assertEqual([of["branch"] for of in rows[-1]["knn_by_branch"]], ["image", "wave"])
            self.assertLess(rows[-1]["loss"], rows[0]["loss"])
            csv = cluster.vicreg("metrics", job, "-o", "csv").stdout.splitlines()
            self.assertRegex(csv[-1], r"image=0\.\d+;wave=0\.\d+")
            out = cluster.dir / "out"
            cluster.vicreg("export", job, "--to", out)
            self.assertEqual(sorted(p.name for p in out.iterdir()),
                             ["encoder-image.safetensors", "encoder-wave.safetensors", "export.json"])
            self.assertEqual(len(tensors(out / "encoder-image.safetensors")), 4 * 6)
            self.assertIn("conv1.weight", tensors(out / "encoder-wave.safetensors"))

    def test_a_part_that_does_not_fit_ends_the_job_naming_it(self):
        with Cluster(roots={"two-modalities": self.data}) as cluster:
            done = cluster.vicreg("submit", "-", "-o", "json", *SMALL, "--set", "branches[1].channels=3", stdin=EXAMPLE.read_text())
            job = json.loads(done.stdout)["id"]
            self.assertNotEqual(cluster.wait(job), 0)
            ended = cluster.describe(job)
            self.assertEqual((ended["state"], ended["reason"]), ("FAILED", "DATA"))
            self.assertIn("train-wave.npy: found (2000, 2, 28) of uint16; expected waveforms", ended["message"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
