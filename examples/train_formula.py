"""Fit exp(sin(pi x) + y^2), the first formula of the KAN paper (arXiv:2404.19756), in a minute."""

import argparse
import math
import time

import torch
from torch import nn

import kan_impls


def formula(x):
    """Shape (batch, 2) to (batch, 1)."""
    return torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:].square())


def fit(name, model, steps, batch=256):
    """Train by Adam on fresh points of the square (-1, 1); the root mean square error on others."""
    parameters = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.perf_counter()
    for step in range(1, steps + 1):
        x = torch.rand(batch, 2) * 2 - 1
        loss = nn.functional.mse_loss(model(x), formula(x))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 4) == 0:
            print(f"{name:20} step {step:5} of {steps}  loss {loss.item():.2e}", flush=True)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        x = torch.rand(10_000, 2) * 2 - 1
        error = (model(x) - formula(x)).square().mean().sqrt().item()
    print(f"{name:20} {parameters} parameters, {seconds:.1f} s, error {error:.2e}\n", flush=True)
    return error


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variant", default="fused_efficient_kan", help="default: %(default)s")
    options.add_argument("--steps", type=int, default=2000, help="default: %(default)s")
    chosen = options.parse_args()
    torch.manual_seed(0)
    fit(chosen.variant, kan_impls.create_model(chosen.variant, [2, 5, 1]), chosen.steps)
    torch.manual_seed(0)
    # 151 parameters, where a spline layer of these widths has 150.
    mlp = nn.Sequential(nn.Linear(2, 10), nn.SiLU(), nn.Linear(10, 10), nn.SiLU(), nn.Linear(10, 1))
    fit("mlp", mlp, chosen.steps)


if __name__ == "__main__":
    main()
