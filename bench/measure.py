"""What every Python side under bench/ needs: inputs that ours (measure.cc) makes with the same bits, and what this process has used."""

import ctypes
import os

import torch


def noise(begin, count):
    """`count` numbers of mean 0 and variance 1 from place `begin` of one fixed sequence, in fp64. Uniform: SplitMix64 of the place."""
    z = torch.arange(begin + 1, begin + count + 1, dtype=torch.int64) * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    z = z ^ ((z >> 31) & ((1 << 33) - 1))
    return (((z >> 11) & ((1 << 53) - 1)).to(torch.float64) / (1 << 53) - 0.5) * 12**0.5


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back():
    """To the system, what was freed and the heap kept: it would hide what comes next."""
    ctypes.CDLL(None).malloc_trim(0)


def reset_peak():
    """Peak starts again from what is resident now."""
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")


def peak():
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
