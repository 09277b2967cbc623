"""DistributedDataParallel over two processes: the gradient of the whole batch, on both."""

import datetime
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import kan_impls

PROCESSES = 2
ROWS = 6
TIMEOUT = datetime.timedelta(seconds=60)


def model_and_batch(name):
    torch.manual_seed(0)
    # A BatchNorm in training would take the statistics of each process's own share.
    model = kan_impls.create_model(name, [5, 4, 2], dtype=torch.float64).eval()
    return model, torch.randn(PROCESSES * ROWS, 5, dtype=torch.float64)


def loss_of(y):
    return y.square().mean()


def train(rank, folder, names):
    """Save the gradients of this process's share of the batch, for each implementation."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", f"file://{folder}/meet", timeout=TIMEOUT, rank=rank, world_size=PROCESSES
    )
    grads = {}
    for name in names:
        model, x = model_and_batch(name)
        # wav_kan has weights that nothing uses, as published.
        parallel = DistributedDataParallel(model, find_unused_parameters="wav_kan" in name)
        loss_of(parallel(x[rank * ROWS : (rank + 1) * ROWS])).backward()
        grads[name] = {key: p.grad for key, p in model.named_parameters()}
    torch.save(grads, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch is built without gloo")
def test_two_processes_share_the_gradient_of_the_whole_batch(tmp_path):
    names = kan_impls.list_variants()
    mp.spawn(train, (str(tmp_path), names), PROCESSES)
    for rank in range(PROCESSES):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in names:
            model, x = model_and_batch(name)
            loss_of(model(x)).backward()
            for key, parameter in model.named_parameters():
                # Two halves and their mean, in another order.
                torch.testing.assert_close(
                    found[name][key], parameter.grad, rtol=1e-12, atol=1e-14, msg=f"{name} {key}"
                )
