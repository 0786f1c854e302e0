"""Goal: a build for GPUs is whole, though no machine of the tests has a GPU. Nothing here computes on one.

Method: the programs as -DVICREG_CUDA=ON links them (bin/cuda): every symbol they leave open is defined by a library they load, NCCL's
process group by LibTorch's CUDA library. Where all of CUDA's libraries can be loaded (those of scripts/bench, or a GPU machine's), they
start; where not, the loader must name one of CUDA's, which is said.
"""

import glob
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

BIN = pathlib.Path(os.environ["VICREG_BIN"])
ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAMS = ("vicreg-rank", "vicreg-train")
OF_CUDA = re.compile(r"lib(cu[a-zA-Z]+|nccl|nvshmem\w*|nv\w+)\.so")


def output(*command, env=None):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=env)
    return done.returncode, done.stdout + done.stderr


def needed(program):
    return set(re.findall(r"NEEDED\).*\[(.*)\]", output("readelf", "-d", program)[1]))


def symbols(path, *options):
    """Dynamic symbols of a file, without their versions."""
    return {line.split()[-1].split("@")[0] for line in output("nm", "-D", *options, path)[1].splitlines() if line.split()[-2:-1] not in (["w"], ["v"])}


def loaded(program):
    """(paths of the libraries the loader finds, names of those it does not)"""
    text = output("ldd", program)[1]
    return set(re.findall(r"(/\S+) \(0x", text)), set(re.findall(r"(\S+) => not found", text))


def with_cuda():
    """The environment in which CUDA's libraries are found, if they are on this machine."""
    folders = glob.glob(str(ROOT / ".deps/bench/lib/python3*/site-packages/nvidia/*/lib"))
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)} if folders else None


class GpuBuild(unittest.TestCase):
    def test_links_nccl_and_leaves_no_symbol_open(self):
        defined = {}
        for name in PROGRAMS:
            with self.subTest(name):
                program = BIN / "cuda" / name
                self.assertLessEqual({"libtorch_cuda.so", "libc10_cuda.so", "libtorch_cpu.so"}, needed(program))
                found, _ = loaded(program)
                for path in found:
                    defined.setdefault(path, symbols(path, "--defined-only"))
                open_symbols = symbols(program, "--undefined-only")
                self.assertEqual(set(), open_symbols - set().union(*(defined[p] for p in found)))
                group = [s for s in open_symbols if s.startswith("_ZN4c10d16ProcessGroupNCCLC1E")]
                self.assertEqual(1, len(group), "the constructor of c10d::ProcessGroupNCCL")
                cuda = next(p for p in found if p.endswith("/libtorch_cuda.so"))
                self.assertIn(group[0], defined[cuda])

    def test_a_build_for_cpus_loads_nothing_of_it(self):
        for name in PROGRAMS:
            with self.subTest(name):
                self.assertEqual([], [n for n in needed(BIN / name) if "cuda" in n or OF_CUDA.match(n)])

    def test_starts_where_cudas_libraries_load(self):
        env = with_cuda()
        for name in PROGRAMS:
            with self.subTest(name):
                program = BIN / "cuda" / name
                code, text = output(program, "--version", env=env)
                if code == 0:
                    self.assertEqual(output(BIN / name, "--version")[1], text)
                    continue
                missing = re.search(r"error while loading shared libraries: (\S+): cannot open", text)
                self.assertTrue(missing and OF_CUDA.match(missing[1]), text)
                print(f"{name} was not started: {missing[1]} is not on this machine (nor in .deps/bench)")


class WithoutAGpu(unittest.TestCase):
    """What is said where no GPU can be used."""

    def run_gpu_job(self, folder, env=None):
        job = ROOT / "examples/fashion-mnist.yaml"
        data = f"fashion-mnist={ROOT}/tests/fixtures/fashion-mnist"
        with tempfile.TemporaryDirectory() as out:
            return output(folder / "vicreg-train", "run", job, "--ranks", "1", "--output", out, "--data-root", data,
                          "--set", "device=gpu", "--set", "data.limit=256", "--set", "length.steps=40", env=env)

    def test_a_build_for_cpus_says_so(self):
        for code, text in (output(BIN / "vicreg-rank", "--check-device", "gpu"), self.run_gpu_job(BIN)):
            self.assertIn(code, (2, 20))
            self.assertIn("this build trains on CPUs only: write device: cpu", text)
        self.assertEqual((0, ""), output(BIN / "vicreg-rank", "--check-device", "cpu"))

    def test_a_build_for_gpus_says_that_it_sees_none(self):
        env = with_cuda()
        if output(BIN / "cuda/vicreg-rank", "--version", env=env)[0] != 0:
            print("not shown: CUDA's libraries are not on this machine (nor in .deps/bench)")
            return
        env = {**os.environ, **(env or {}), "CUDA_VISIBLE_DEVICES": ""}  # also where there is one
        for code, text in (output(BIN / "cuda/vicreg-rank", "--check-device", "gpu", env=env), self.run_gpu_job(BIN / "cuda", env)):
            self.assertIn(code, (1, 20))
            self.assertRegex(text, "this process sees no GPU|no GPU is left for rank 0")
        self.assertEqual((0, ""), output(BIN / "cuda/vicreg-rank", "--check-device", "cpu", env=env))


if __name__ == "__main__":
    unittest.main()
