"""Goal: without the term that keeps embeddings apart they collapse, with it they do not, on real images and by the service's own
verdict. Method: rows of the collapse campaign (tests/campaigns/collapse.py, whose table has all of them) whose outcome does not hang
on chance, each a whole run of `vicreg-train`."""

import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "campaigns"))
import collapse


class Collapse(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.job = pathlib.Path(folder.name) / "job.yaml"
        self.job.write_text(collapse.JOB)
        self.output = f"{folder.name}/out"

    def run_with(self, *sets):
        """The verdict on a run, and its last spread."""
        rows, verdict = collapse.train(self.job, sets, self.output)
        self.assertEqual(rows[-1]["step"], 120)
        return verdict, rows[-1]["z_std_mean"]

    def test_coefficients_of_table_7(self):
        spread = {}
        for name, want in (("1/0/0", "collapsed"), ("25/0/1", "collapsed"), ("10/1/1", "collapsed"), ("1/1/0", "redundant"), ("25/25/1", "healthy")):
            with self.subTest(name):
                sets = [f"loss.{key}={value}" for key, value in zip(("lambda", "mu", "nu"), name.split("/"))]
                verdict, spread[name] = self.run_with(*sets)
                self.assertEqual(verdict, want)
        self.assertGreater(spread["25/25/1"], 5 * spread["25/0/1"], spread)

    def test_simsiam_without_batch_norm_needs_the_variance_term(self):
        network = ("loss.objective=simsiam", "expander_norm=none")
        without, low = self.run_with(*network)
        regularised, high = self.run_with(*network, "loss.regularize={variance: 1}", "loss.regularize_on=l2")
        self.assertEqual(without, "collapsed")
        self.assertNotEqual(regularised, "collapsed")
        self.assertGreater(high, 5 * low)


if __name__ == "__main__":
    unittest.main()
