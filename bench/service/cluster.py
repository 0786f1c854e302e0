"""A real coordinator of the release build on ports of the kernel's choice, with its state in a temporary folder."""

import os
import signal
import socket
import subprocess
import tempfile
import time

from harness import BIN


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Coordinator:
    """Until the end of a with statement."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="vicreg-bench-")
        self.grpc, self.http = free_port(), free_port()
        self.address = f"127.0.0.1:{self.grpc}"
        self.start()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()
        self.folder.cleanup()

    def start(self):
        self.log = open(f"{self.folder.name}/log", "a")
        self.begun = time.time()
        self.process = subprocess.Popen([BIN / "vicreg-coordinator", "--dir", f"{self.folder.name}/state", "--grpc-address", self.address,
                                         "--http-address", f"127.0.0.1:{self.http}"], stderr=self.log)

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def wait(self, seconds=20):
        """Until it takes connections."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.grpc), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise SystemExit(f"bench: vicreg-coordinator does not serve: {open(self.log.name).read()[-2000:]}") from None
                time.sleep(0.01)

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
