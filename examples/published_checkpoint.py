"""Read a checkpoint of the published efficient-kan into a fused model, and write one."""

import argparse

import torch

import kan_impls

WIDTHS = [28 * 28, 64, 10]  # of the published MNIST example


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("file", nargs="?", help="a state_dict written by torch.save")
    options.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    chosen = options.parse_args()
    torch.manual_seed(0)
    if chosen.file:
        # weights_only: a checkpoint is data, and must not run code.
        state = torch.load(chosen.file, map_location="cpu", weights_only=True)
    else:
        state = kan_impls.upstream.export(kan_impls.create_model("efficient_kan", chosen.widths))
    for key, tensor in state.items():
        print(f"{key:32} {tuple(tensor.shape)}")

    fused = kan_impls.create_model("fused_efficient_kan", chosen.widths)
    materialising = kan_impls.create_model("efficient_kan", chosen.widths)
    for model in (fused, materialising):
        kan_impls.upstream.load(model, state)
    x = torch.rand(100, chosen.widths[0]) * 2 - 1
    difference = (fused(x) - materialising(x)).abs().max().item()
    print(f"the two forms differ by at most {difference:.1e} on 100 rows")
    written = kan_impls.upstream.export(fused)
    same = all(torch.equal(written[key], state[key]) for key in state)
    print(f"what is written again is {'the same' if same else 'ANOTHER checkpoint'}")


if __name__ == "__main__":
    main()
