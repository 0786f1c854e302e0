"""A coordinator and several workers on one machine, each started and broken by itself; what a cluster.Cluster is otherwise.

With `namespaces=True` each worker lives in a network namespace of its own (needs root): ranks reach each other over a
virtual network that can be cut, and the worker reaches the coordinator through a relay that can be cut as well.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import subprocess
import threading
import time

from cluster import BIN, Cluster

QUICK = BIN / "vicreg-quick-rank"


class Relay:
    """Carries TCP from 127.0.0.1:`port` inside a network namespace to 127.0.0.1:`port` outside; `cut` drops everything silently."""

    def __init__(self, namespace, port):
        self.port, self.open, self.pairs, self.quit = port, True, {}, False
        self.listener = in_namespace(namespace, lambda: socket.create_server(("127.0.0.1", port)))
        self.listener.setblocking(False)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.quit:
            if not self.open:
                time.sleep(0.02)
                continue
            ready = selectors.DefaultSelector()
            for end in [self.listener, *self.pairs]:
                ready.register(end, selectors.EVENT_READ)
            for key, _ in ready.select(0.02):
                if key.fileobj is self.listener:
                    near, _ = self.listener.accept()
                    far = socket.create_connection(("127.0.0.1", self.port)) if self.reachable() else None
                    if far is None:
                        near.close()
                        continue
                    self.pairs[near], self.pairs[far] = far, near
                elif key.fileobj in self.pairs:
                    self.carry(key.fileobj)
            ready.close()
        for end in [self.listener, *self.pairs]:
            end.close()

    def reachable(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def carry(self, end):
        other = self.pairs[end]
        try:
            data = end.recv(1 << 16)
            if data:
                other.sendall(data)
                return
        except OSError:
            pass
        for closed in (end, other):
            self.pairs.pop(closed, None)
            closed.close()

    def stop(self):
        self.quit = True
        self.thread.join()


def in_namespace(name, call):
    """Runs `call` in a thread that has entered the named network namespace."""
    result = []

    def enter():
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        if libc.setns(fd, 0x40000000) != 0:  # CLONE_NEWNET, of this thread alone
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)
        result.append(call())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return result[0]


def ip(*arguments, check=True):
    subprocess.run(["ip", *map(str, arguments)], check=check, capture_output=True, text=True)


class Fleet(Cluster):
    """`nodes`: name -> CPU slots."""

    def __init__(self, nodes, quick=False, namespaces=False, environment=None):
        super().__init__(start=False)
        self.nodes, self.quick, self.namespaces = nodes, quick, namespaces
        self.environment = environment or {}  # of the coordinator
        self.coordinator, self.workers, self.relays = None, {}, {}
        if namespaces:
            self.make_network()
        self.start_coordinator()
        for name in nodes:
            self.start_worker(name)
        self.until("all nodes READY", lambda: self.vicreg("node", "list").stdout.count("READY") == len(nodes), 30)

    # ---- network ----

    def namespace(self, name):
        return f"{self.dir.name}-{name}"

    def address(self, name):
        return f"10.77.0.{list(self.nodes).index(name) + 1}" if self.namespaces else "127.0.0.1"

    def make_network(self):
        self.bridge = f"{self.dir.name}-b"[-15:]
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for name in self.nodes:
            space, near = self.namespace(name), f"{self.dir.name}{name}"[-15:]
            ip("netns", "add", space)
            ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", near, "master", self.bridge, "up")
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")

    def cut(self, name):
        """Nothing reaches the node any more, and nobody is told."""
        self.relays[name].open = False
        ip("link", "set", f"{self.dir.name}{name}"[-15:], "down")

    def heal(self, name):
        ip("link", "set", f"{self.dir.name}{name}"[-15:], "up")
        self.relays[name].open = True

    # ---- processes ----

    def until_grace_is_over(self):
        """Nobody is LOST within 60 s of a coordinator's start: a node that is silent from now on is, 20 s later."""
        time.sleep(max(0.0, self.started + 41 - time.monotonic()))

    def start_coordinator(self, **environment):
        self.started = time.monotonic()
        log = open(self.dir / "coordinator.log", "a")
        self.coordinator = subprocess.Popen(
            [BIN / "vicreg-coordinator", "--dir", self.dir / "coordinator", "--artifacts", self.dir / "artifacts",
             "--grpc-address", f"127.0.0.1:{self.grpc}", "--http-address", f"127.0.0.1:{self.http}"],
            env={**os.environ, **self.environment, **environment}, stdout=log, stderr=log)
        log.close()

    def coordinator_ended(self):
        return self.coordinator.poll() is not None

    def kill_coordinator(self):
        self.coordinator.kill()
        self.coordinator.wait()

    def start_worker(self, name):
        command = [BIN / "vicreg-worker", "--dir", self.dir / name, "--coordinator", f"127.0.0.1:{self.grpc}",
                   "--artifacts", self.dir / "artifacts", "--node", name, "--cpu", self.nodes[name]]
        for root, path in self.roots.items():
            command += ["--data-root", f"{root}={path}"]
        if self.quick:
            command += ["--rank-program", QUICK]
        if self.namespaces:
            command += ["--rank-address", self.address(name)]
            if name not in self.relays:
                self.relays[name] = Relay(self.namespace(name), self.grpc)
            command = ["ip", "netns", "exec", self.namespace(name), *command]
        log = open(self.dir / f"{name}.log", "a")
        self.workers[name] = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
        log.close()

    def kill_worker(self, name):
        self.workers[name].kill()
        self.workers[name].wait()

    def ranks_on(self, name):
        """Process ids of ranks that the node's worker started."""
        mine = str(self.dir / name).encode()
        found = []
        for pid in self.pids(""):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
                if b"--rank" in argv and argv[argv.index(b"--dir") + 1] == mine:
                    found.append(pid)
        return found

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.print_logs()
        for process in [*self.workers.values(), self.coordinator]:
            if process.poll() is None:
                process.terminate()
        for process in [*self.workers.values(), self.coordinator]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            if process.poll() is None:
                process.kill()
                process.wait()
        leftover = self.pids("")
        for pid in leftover:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for relay in self.relays.values():
            relay.stop()
        if self.namespaces:
            for name in self.nodes:
                ip("netns", "del", self.namespace(name), check=False)
            ip("link", "del", self.bridge, check=False)
        self.remove()
