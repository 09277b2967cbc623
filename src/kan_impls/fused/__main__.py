"""What the fused CUDA kernels need, take and cost."""

from __future__ import annotations

import argparse
import ast
import sys
import time
from typing import Any

import torch

from kan_impls.basis.fourier import FourierBasis
from kan_impls.basis.uniform_bspline import UniformBSplineBasis
from kan_impls.checks import check_size
from kan_impls.fused import choosing, cubin_cache, doctor, forms, jit, kernels, tuning
from kan_impls.fused.kernels import Device, Element, Functions, Layer, Precision
from kan_impls.registry import create_layer

# One for each tensor core generation that the kernels were written for: A100, A10 and
# RTX A5000, H100 and H200.
_ARCHS = ("sm_80", "sm_86", "sm_90")
# A100, H100 with PCI Express, H100 and H200, a full GH100.
_SMS = (108, 114, 132, 144)


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the command line; returns its exit status."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except (jit.KernelUnavailable, jit.CompileError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m kan_impls.fused`."""
    whole = argparse.ArgumentParser(prog="python -m kan_impls.fused", description=__doc__)
    commands = whole.add_subparsers(required=True)

    command = commands.add_parser("doctor", help="what is there, what is missing, what to do")
    command.set_defaults(run=_doctor)

    command = commands.add_parser("warmup", help="compile the kernels ahead, into the cache")
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--device", type=_device, default="cuda:0", help="for this GPU (default: cuda:0)"
    )
    where.add_argument("--arch", help="for this architecture, such as sm_90; needs no GPU")
    command.add_argument(
        "--fourier",
        type=_size,
        action="append",
        default=[],
        metavar="GRID_SIZE",
        help="for fused_fourier_kan layers of this grid",
    )
    command.add_argument(
        "--bspline",
        type=_size,
        nargs=2,
        action="append",
        default=[],
        metavar=("GRID_SIZE", "ORDER"),
        help="for fused_efficient_kan layers of this grid; without either, for grid size 5",
    )
    command.set_defaults(run=_warmup)

    command = commands.add_parser(
        "tune", help="choose the fastest forms of a layer by measurement, ahead, on a GPU"
    )
    command.add_argument("--variant", required=True, help="such as fused_fourier_kan")
    command.add_argument(
        "--shape",
        type=_size,
        nargs=3,
        action="append",
        required=True,
        metavar=("ROWS", "INPUTS", "OUTPUTS"),
        help="of a layer; may be given several times",
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="of the variant, such as grid_size=8",
    )
    command.add_argument("--dtype", default="float32", choices=("float32", "float64", "bfloat16"))
    command.add_argument("--device", type=_device, default="cuda:0", help="default: cuda:0")
    command.set_defaults(run=_tune)

    command = commands.add_parser("registers", help="registers and spills of every kernel")
    command.add_argument("--arch", nargs="+", default=_ARCHS, help=f"default: {' '.join(_ARCHS)}")
    command.set_defaults(run=_registers)

    command = commands.add_parser("waves", help="how whole the waves of the forward pass are")
    command.add_argument(
        "--sms",
        type=_size,
        nargs="+",
        default=_SMS,
        help=f"multiprocessors of the GPUs (default: {' '.join(map(str, _SMS))})",
    )
    command.add_argument(
        "--layer",
        type=_size,
        nargs=2,
        default=(1000, 1000),
        metavar=("INPUTS", "OUTPUTS"),
        help="default: 1000 1000",
    )
    command.add_argument(
        "--rows", type=_size, default=512, help="batches up to this (default: 512)"
    )
    command.set_defaults(run=_waves)
    return whole


def _doctor(options: argparse.Namespace) -> int:
    lines, is_usable = doctor.report()
    print("\n".join(lines))
    return 0 if is_usable else 1


def _warmup(options: argparse.Namespace) -> int:
    grids = options.bspline if options.bspline or options.fourier else [(5, 3)]
    sizes = options.fourier if options.bspline or options.fourier else [5]
    layers = [Functions(FourierBasis(size)) for size in sizes]
    layers += [Functions(UniformBSplineBasis.over(-1, 1, *grid), True, True) for grid in grids]
    names = [*kernels.kernels_of_all(layers), *kernels.evaluating(layers)]
    start, failed = time.perf_counter(), len(cubin_cache.failures)
    if options.arch:
        jit.compile_kernels(names, options.arch)
    else:
        jit.warmup(names, options.device)
    if lost := cubin_cache.failures[failed:]:
        print(
            f"{len(lost)} of {len(names)} kernels are not stored ({lost[0]}), so that they will be "
            f"compiled again; expected a folder that can be written: free space there, or set "
            f"{cubin_cache.VARIABLE} to another one",
            file=sys.stderr,
        )
        return 1
    seconds = time.perf_counter() - start
    place = options.arch or options.device
    print(f"{len(names)} kernels for {place} in {seconds:.1f} s, cache: {cubin_cache.folder()}")
    return 0


def _size(text: str) -> int:
    try:
        return check_size("the number", int(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} came: {error}") from error


def _device(text: str) -> torch.device:
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no device; expected one such as cuda:0"
        ) from error


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} came; expected NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _tune(options: argparse.Namespace) -> int:
    """Run a layer of each shape as the first one of a network and as a later one."""
    device, dtype = options.device, getattr(torch, options.dtype)
    if tuning.mode() == "0" or not choosing.is_measured(device):
        raise ValueError(
            f"the device is {options.device} and {tuning.VARIABLE} is {tuning.mode()}; expected a "
            f"GPU, and 1 or refresh: forms are measured there, and fixed elsewhere"
        )
    for rows, inputs, outputs in options.shape:
        layer = create_layer(
            options.variant, inputs, outputs, device=device, dtype=dtype, **dict(options.option)
        )
        with forms.watched() as ran:
            for needs_grad in (False, True):
                x = torch.rand(rows, inputs, device=device, dtype=dtype, requires_grad=needs_grad)
                layer(x).sum().backward()
        if not ran:
            raise ValueError(
                f"{options.variant} has one form only; expected a variant whose name begins with "
                f"fused_"
            )
        shape = choosing.shape_in_words(rows, inputs, outputs)
        for subject, choice in tuning.choices(device):
            if shape in subject:
                print(f"{subject}: {choice}")
    return 0


def _registers(options: argparse.Namespace) -> int:
    names = kernels.kernels_of_all()
    columns = [jit.compile_kernels(names, arch) for arch in options.arch]
    print(f"| kernel | {' | '.join(options.arch)} |")
    print("|---|" + "---:|" * len(columns))
    for name in names:
        cells = [_cell(column[name].resources) for column in columns]
        print(f"| `{name}` | {' | '.join(cells)} |")
    return 0


def _waves(options: argparse.Namespace) -> int:
    """A line for each group of batches with the same waves on all GPUs."""
    functions, (inputs, outputs) = Functions(FourierBasis(5)), options.layer
    groups: list[tuple[int, list[float]]] = []
    for rows in range(1, options.rows + 1):
        waves = [
            kernels.forward_waves(
                Layer(functions, rows, inputs, outputs, Element.FLOAT, Precision.ACCURATE, device)
            )
            for device in (Device(90, sms) for sms in options.sms)
        ]
        if not groups or groups[-1][1] != waves:
            groups.append((rows, waves))
    print(f"| rows from | {' | '.join(f'{sms} SMs' for sms in options.sms)} |")
    print("|---:|" + "---:|" * len(options.sms))
    for rows, waves in groups:
        print(f"| {rows} | {' | '.join(f'{count:.2f}' for count in waves)} |")
    return 0


def _cell(resources: jit.Resources | None) -> str:
    """Registers of a thread, and what else a kernel takes that it better had not."""
    if resources is None:
        return "PTX"
    cell = str(resources.registers)
    if resources.spills:
        cell += f", spills {resources.spill_stores}/{resources.spill_loads} B"
    if resources.stack:
        cell += f", stack {resources.stack} B"
    if resources.shared:
        cell += f", shared {resources.shared} B"
    return cell


if __name__ == "__main__":
    sys.exit(main())
