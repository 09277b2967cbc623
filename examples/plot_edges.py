"""Train a layer on x0^2 - sin(3 x1), and draw the function that each of its edges has learned."""

import argparse

import torch
from torch import nn

import kan_impls


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--variant", default="fused_efficient_kan", help="default: %(default)s")
    options.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    options.add_argument("--out", default="edges.svg", help="default: %(default)s")
    chosen = options.parse_args()
    from matplotlib.figure import Figure

    torch.manual_seed(0)
    layer = kan_impls.create_layer(chosen.variant, 2, 1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    for _ in range(chosen.steps):
        x = torch.rand(256, 2) * 2 - 1
        target = x[:, :1].square() - torch.sin(3 * x[:, 1:])
        loss = nn.functional.mse_loss(layer(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.2e} after {chosen.steps} steps")

    figure = Figure(figsize=(8, 3), layout="constrained")
    grid = torch.linspace(-1, 1, 201)
    for edge, axes in enumerate(figure.subplots(1, 2, sharey=True)):
        x = torch.zeros(201, 2)
        x[:, edge] = grid
        with torch.no_grad():  # the sum over the edges, less the other one's value at 0
            y = layer(x) - layer(torch.zeros(1, 2))
        axes.plot(grid.numpy(), y[:, 0].numpy())
        axes.set(xlabel=f"x{edge}", ylabel="change of y")
    figure.savefig(chosen.out)
    print(f"wrote {chosen.out}")


if __name__ == "__main__":
    main()
