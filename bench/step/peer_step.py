"""One rank of the same training run in Python: the network of peer_model.py, DDP over Gloo, torch.optim.AdamW, the loss as published or
sharded as ours (peer_objectives.py). Written as torch's documentation shows it; batch norm is over own rows, because SyncBatchNorm refuses CPU tensors.

usage: peer_step.py SIDE      SIDE: the JSON object that vicreg-bench-step gets too (compare.py says what is in it), where "best" turns
channels_last, the fused optimizer and gradients as views of DDP's buckets on. Reads lines: "losses OBJECTIVE K" starts again from the
exported weights, takes K steps and answers the loss before each; "step OBJECTIVE K" answers what K steps cost. One JSON line each.
"""

import json
import pathlib
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from measure import noise, peak, reset_peak, resident
from peer_model import Vicreg, our_name
from peer_objectives import OBJECTIVES, whole_batch

BATCHES = 2  # that steps take in turn


class Rank:
    def __init__(self, side):
        self.side = side
        model = Vicreg(side["channels"], side["expander"])
        if side["best"]:
            model = model.to(memory_format=torch.channels_last)
        # No broadcast of buffers: it would only cost.
        self.model = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=side["best"])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=side["learning_rate"], weight_decay=side["weight_decay"], fused=side["best"])
        self.batches = [self.make_batch(i) for i in range(BATCHES)]
        self.steps = 0

    def make_batch(self, index):
        side = self.side
        n, row = side["rows"], side["channels"] * side["size"] ** 2
        own = n // side["ranks"]
        x, other = (noise((2 * index + view) * n * row + side["rank"] * own * row, own * row) for view in range(2))
        return [v.float().reshape(own, side["channels"], side["size"], side["size"]) for v in (x, 0.8 * x + 0.6 * other)]

    def load(self):
        from safetensors.torch import load_file

        weights = load_file(self.side["weights"])
        own = self.model.module.state_dict()
        assert {our_name(n) for n in own} == set(weights), set(weights) ^ {our_name(n) for n in own}
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[our_name(name)])
        self.optimizer.state.clear()
        self.steps = 0

    def step(self, objective):
        x, y = self.batches[self.steps % BATCHES]
        self.steps += 1
        if self.side["best"]:
            x, y = (v.to(memory_format=torch.channels_last) for v in (x, y))
        loss = OBJECTIVES[objective](*self.model(x, y))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def losses(self, objective, count):
        self.load()
        return {"losses": [whole_batch(objective, self.step(objective)) for _ in range(count)]}

    def measure(self, objective, count):
        reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            loss = self.step(objective).item()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": wall / count, "cpu": cpu / count, "rss_bytes": resident(), "peak_bytes": peak(), "loss": loss}


def main():
    side = json.loads(sys.argv[1])
    torch.set_num_threads(side["threads"])
    dist.init_process_group("gloo", init_method=f"file://{side['folder']}/python", rank=side["rank"], world_size=side["ranks"], timeout=timedelta(seconds=60))
    rank = Rank(side)
    hello = {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**hello, "cpu": time.process_time(), "rss_bytes": resident(), "peak_bytes": peak()}), flush=True)
    for line in sys.stdin:
        command, objective, count = line.split()
        print(json.dumps({"losses": rank.losses, "step": rank.measure}[command](objective, int(count))), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
