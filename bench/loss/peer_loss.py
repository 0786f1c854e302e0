"""The two opponents of the sharded loss, written plainly from the formulas, on the LibTorch that ours links (torch 2.11.0).

published   what arXiv 2105.04906 (algorithm 1) and its code compute: gather both views, D x D covariances, autograd. The gather's
            backward is a sum over ranks, so one rank's work is forward and backward over all N rows.
whole-gram  the strong opponent: the same value through N x N Gram matrices, autograd over all of them, not sharded.

Server: reads lines "NAME" and answers one JSON line {wall, cpu, peak_bytes}; "values" answers the loss and its terms in fp64.
"""

import json
import pathlib
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from measure import give_back, noise, peak, reset_peak, resident

LAMBDA, MU, NU = 25.0, 12.5, 1.0  # per view, authors' convention


def terms(x, y, covariance):
    n, d = x.shape
    inv = (x - y).square().mean()
    var = cov = 0.0
    for z in (x, y):
        z = z - z.mean(0)
        var = var + torch.relu(1 - (z.var(0) + 1e-4).sqrt()).mean()
        cov = cov + covariance(z, n, d)
    return inv, var, cov


def published(z, n, d):
    c = z.T @ z / (n - 1)
    return (c.square().sum() - c.diagonal().square().sum()) / d


def whole_gram(z, n, d):
    g = z @ z.T
    return (g.square().sum() / (n - 1) ** 2 - z.var(0).square().sum()) / d


FORMS = {"published": published, "whole-gram": whole_gram}


def loss(x, y, form):
    inv, var, cov = terms(x, y, FORMS[form])
    return LAMBDA * inv + MU * var + NU * cov


def inputs(n, d, dtype=torch.float32):
    """Two views with unit variance and correlation 0.8."""
    first, other = (noise(k * n * d, n * d).reshape(n, d) for k in range(2))
    return first.to(dtype), (0.8 * first + 0.6 * other).to(dtype)


def main():
    n, d, threads = (int(a) for a in sys.argv[1:4])
    torch.set_num_threads(threads)
    x, y = inputs(n, d)
    x.requires_grad_(True)
    y.requires_grad_(True)
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        name = line.strip()
        if name == "values":
            inv, var, cov = (float(t) for t in terms(x.detach().double(), y.detach().double(), published))
            print(json.dumps({"loss": LAMBDA * inv + MU * var + NU * cov, "invariance": inv, "variance": var, "covariance": cov}), flush=True)
            continue
        x.grad = y.grad = None
        # The gradients themselves are not counted: every side must produce them.
        x.grad, y.grad = torch.zeros_like(x), torch.zeros_like(y)
        give_back()
        before = resident()
        reset_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        loss(x, y, name).backward()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_bytes": max(0, peak() - before)}), flush=True)


if __name__ == "__main__":
    main()
