"""The VICReg loss of a rank in Python, twice: as published, and sharded as ours is. Both give gradients for a reducer that averages over
ranks, and the same loss; written plainly from the formulas (arXiv 2105.04906; the authors' coefficients and convention).
"""

import torch
import torch.distributed as dist

LAMBDA, MU, NU = 25.0, 12.5, 1.0  # mu and nu per view
EPSILON = 1e-4


class Gather(torch.autograd.Function):
    """[W * n, D] of all ranks; backward sums what every rank made of this one's rows, as the authors' FullGatherLayer does."""

    @staticmethod
    def forward(ctx, z):
        gathered = [torch.empty_like(z) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, z.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, above):
        gradients = above.contiguous()
        dist.all_reduce(gradients)
        return gradients.chunk(dist.get_world_size())[dist.get_rank()]


def published(x, y):
    """Every rank computes both D x D covariances over all rows. Its invariance is of its own rows: an average over ranks is the batch's."""
    invariance = (x - y).square().mean()
    variance = covariance = 0.0
    for z in (Gather.apply(x), Gather.apply(y)):
        n, d = z.shape
        z = z - z.mean(0)
        variance = variance + torch.relu(1 - (z.var(0) + EPSILON).sqrt()).mean()
        c = z.T @ z / (n - 1)
        covariance = covariance + (c.square().sum() - c.diagonal().square().sum()) / d
    return LAMBDA * invariance + MU * variance + NU * covariance


class Sharded(torch.autograd.Function):
    """Value and gradient of own rows in forward, from all ranks' centred rows; no collective in backward. Gram form: for D > N.

    With Z centred, v and s the columns' variances and deviations, own rows i: the covariance term is (|Z Z'|^2 / (N-1)^2 - |v|^2) / D and
    its gradient 4 / (D (N-1)) (Z Z' Z / (N-1) - Z v)_i.
    """

    @staticmethod
    def forward(ctx, x, y):
        ranks = dist.get_world_size()
        own = torch.stack((x, y), 1).float()  # [n, 2, D]
        difference = own[:, 0] - own[:, 1]

        # One all-gather of means and sums of squared differences from them, merged in fp64.
        mean = own.mean(0)
        m2 = (own - mean).square().sum(0)
        record = torch.cat((difference.square().sum().double().reshape(1), mean.double().flatten(), m2.double().flatten()))
        records = torch.empty(ranks, record.numel(), dtype=torch.float64)
        dist.all_gather_into_tensor(records.view(-1), record)
        n, (_, _, d) = own.shape[0] * ranks, own.shape
        means, m2s = records[:, 1:].view(ranks, 2, 2, d).unbind(1)
        mean = means.mean(0)
        v = (m2s.sum(0) + own.shape[0] * (means - mean).square().sum(0)) / (n - 1)
        s = (v + EPSILON).sqrt()
        invariance = records[:, 0].sum() / (n * d)
        variance = torch.relu(1 - s).mean(1).sum()

        centred = own - mean.float()
        rows = torch.empty(n, 2, d)
        gathering = dist.all_gather_into_tensor(rows, centred, async_op=True)
        gradient = torch.stack((difference, -difference), 1) * (ranks * 2 * LAMBDA / (n * d))
        column = (s < 1) / s * (-ranks * MU / (d * (n - 1))) - v * (ranks * 4 * NU / (d * (n - 1)))
        gradient += centred * column.float()

        gathering.wait()
        share = torch.zeros(1, dtype=torch.float64)
        for k in range(2):
            gram = centred[:, k] @ rows[:, k].T
            share += gram.square().sum(1).sum(dtype=torch.float64)
            gradient[:, k].addmm_(gram, rows[:, k], alpha=ranks * 4 * NU / (d * (n - 1) ** 2))
        dist.all_reduce(share)
        covariance = (share.item() / (n - 1) ** 2 - v.square().sum()) / d
        ctx.save_for_backward(gradient)
        return (LAMBDA * invariance + MU * variance + NU * covariance).float()

    @staticmethod
    def backward(ctx, above):
        gradient = ctx.saved_tensors[0] * above
        return gradient[:, 0], gradient[:, 1]


def sharded(x, y):
    return Sharded.apply(x, y)


def whole_batch(name, loss):
    """The loss of the whole batch from what this rank's function gave."""
    value = loss.detach().clone()
    if name == "published":  # rows are spread evenly, and only the invariance differs
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value.item()


OBJECTIVES = {"published": published, "sharded": sharded}
