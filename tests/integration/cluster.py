"""A development cluster of real processes for tests: started with `vicreg up --detach`, watched and broken from outside.

Processes are found by the state folder on their command line and ended by process id, never by name alone.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("VICREG_BIN", SOURCE / "build" / "bin"))
FIXTURE = SOURCE / "tests" / "fixtures" / "fashion-mnist"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def small_job(**overrides):
    """A job of a few seconds on the committed fixture: 2 ranks, tiny encoder, 64 rows."""
    job = {
        "name": "small", "preset": "demo-cpu", "seed": 3, "world_size": 2, "device": "cpu",
        "data": {"root": "fixture", "format": "idx", "split": "train", "limit": 512, "channels": 1},
        "encoder": {"name": "tiny"}, "expander": [64, 64], "batch_size": 64, "length": {"steps": 60},
        "optimizer": {"name": "adamw", "lr": 1e-3, "weight_decay": 1e-4}, "schedule": {"warmup": "5 steps", "final": 0},
        "checkpoint": {"every": "20 steps", "keep": 3}, "evaluation": {"knn": {"every": "1000 steps", "k": 20}},
    }
    for key, value in overrides.items():
        job[key] = value
    return {k: v for k, v in job.items() if v is not None}


class Cluster:
    def __init__(self, cpu=2, roots=None, start=True):
        # Short path: a Unix socket's may not exceed 107 bytes.
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="vr-"))
        self.cpu = cpu
        self.grpc, self.http = free_port(), free_port()
        self.roots = roots or {"fixture": FIXTURE}
        self.env = {**os.environ, "VICREG_COORDINATOR": f"127.0.0.1:{self.grpc}", "NO_COLOR": "1"}
        if start:
            self.up()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.print_logs()
        self.vicreg("down", "--dir", self.dir, check=False, timeout=60)
        leftover = self.pids("")
        for pid in leftover:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.remove()
        if kind is None and leftover:
            raise AssertionError(f"`vicreg down` left processes behind: {leftover}")

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def up_command(self):
        command = [BIN / "vicreg", "up", "--cpu", str(self.cpu), "--dir", self.dir,
                   "--grpc-port", str(self.grpc), "--http-port", str(self.http)]
        for name, path in self.roots.items():
            command += ["--data-root", f"{name}={path}"]
        return [str(c) for c in command]

    def up(self, check=True):
        return subprocess.run(self.up_command() + ["--detach"], env=self.env, text=True, capture_output=True,
                              timeout=60, check=check)

    def vicreg(self, *arguments, check=True, timeout=240, stdin=None):
        done = subprocess.run([str(BIN / "vicreg"), *map(str, arguments)], env=self.env, text=True, input=stdin,
                              capture_output=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"vicreg {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def submit(self, job, *arguments):
        done = self.vicreg("submit", "-", "-o", "json", *arguments, stdin=json.dumps(job))
        return json.loads(done.stdout)["id"]

    def describe(self, job_id):
        return json.loads(self.vicreg("describe", job_id, "-o", "json").stdout)

    def jobs(self):
        return json.loads(self.vicreg("list", "-o", "json").stdout)["jobs"]

    def events(self, job_id):
        return [json.loads(line) for line in self.vicreg("events", job_id, "-o", "jsonl").stdout.splitlines()]

    def rows(self, job_id):
        return [json.loads(line) for line in self.vicreg("metrics", job_id, "-o", "jsonl").stdout.splitlines()]

    def wait(self, job_id, seconds=180):
        """Exit code of `vicreg wait` until the job has ended."""
        return self.vicreg("wait", job_id, "--timeout", f"{seconds}s", check=False, timeout=seconds + 30).returncode

    def until(self, what, condition, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {what}")

    def until_step(self, job_id, step, seconds=90):
        self.until(f"step {step}", lambda: self.describe(job_id)["step"] >= step, seconds)

    def pids(self, program):
        """Live processes with this cluster's folder on their command line whose program name is `program` ('' for any)."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if state == "Z" or not argv or not pathlib.Path(argv[0].decode(errors="replace")).name.startswith("vicreg"):
                continue
            if program and pathlib.Path(argv[0].decode()).name != program:
                continue
            if any(str(self.dir).encode() in a for a in argv[1:]):
                found.append(int(entry.name))
        return sorted(found)

    def rank_of(self, pid):
        argv = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return int(argv[argv.index(b"--rank") + 1])

    def kill(self, program):
        (pid, *_) = self.pids(program)
        os.kill(pid, signal.SIGKILL)
        self.until(f"end of {program} {pid}", lambda: pid not in self.pids(program), 5)
        return pid

    def http_get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return answer.read().decode()

    def print_logs(self):
        for log in sorted(self.dir.rglob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-25:]
            print(f"--- {log.relative_to(self.dir)}", *tail, sep="\n")
