"""The interpreter of PTX does what the ISA says, on instructions and kernels written here."""

import numpy as np
import pytest

from tests.ptx.arithmetic import computed
from tests.ptx.machine import Machine
from tests.ptx.memory import Global
from tests.ptx.parse import Fault, Instruction, parse
from tests.ptx.registers import dtype_of

BIG, NAN = 2**31, np.nan

VALUES = [
    ("shr.s32", [-8, 1], -4),
    ("shr.u32", [BIG, 40], 0),
    ("shl.b32", [1, 32], 0),
    ("mul.hi.s32", [-1, 2], -1),
    ("mul.wide.s32", [-3, 5], -15),
    ("mad.lo.s32", [BIG - 1, 2, 3], 1),
    ("div.s64", [-7, 2], -3),
    ("rem.s64", [-7, 2], -1),
    ("bfi.b32", [3, 0xFF, 4, 2], 0xFF),
    ("bfi.b32", [0, 0xFF, 4, 2], 0xCF),
    ("cvt.s64.s32", [-1], -1),
    ("cvt.u16.u32", [0x12345], 0x2345),
    ("cvt.rzi.s32.f32", [-1.7], -1),
    ("cvt.rzi.s32.f32", [NAN], 0),
    ("cvt.rzi.s32.f32", [1e20], BIG - 1),
    ("cvt.rmi.f32.f32", [-0.5], -1.0),
    ("cvt.rni.f32.f32", [2.5], 2.0),
    ("cvt.sat.f32.f32", [7.0], 1.0),
    ("fma.rm.f32", [1.0, -1e-9, 1.0], np.nextafter(np.float32(1), np.float32(0))),
    ("min.f32", [NAN, 1.0], 1.0),
    ("setp.ne.f32", [NAN, 1.0], False),
    ("setp.neu.f32", [NAN, 1.0], True),
    ("setp.geu.f32", [NAN, 1.0], True),
    ("setp.ne.s32", [1, 2], True),
    ("selp.b32", [5, 6, False], 6),
]


@pytest.mark.parametrize(("name", "operands", "expected"), VALUES)
def test_values(name, operands, expected):
    arguments = ("d", *map(str, operands))
    function, result, types = computed(Instruction(name, tuple(name.split(".")), arguments))
    with np.errstate(all="ignore"):
        sources = [
            np.array([value]).astype(dtype_of(kind))
            for value, kind in zip(operands, types, strict=True)
        ]
        found = np.empty(1, dtype_of(result))
        np.copyto(found, function(*sources), casting="unsafe")
    assert found[0] == expected


HEADER = """
.visible .entry kernel(
	.param .align 8 .b8 kernel_param_0[8]
)
.maxntid 64, 1, 1
{
	.reg .pred 	%p<9>;
	.reg .f32 	%f<9>;
	.reg .b32 	%r<9>;
	.reg .b64 	%rd<9>;
	mov.u32 	%r1, %tid.x;
	ld.param.u64 	%rd1, [kernel_param_0];
	mul.wide.u32 	%rd2, %r1, 4;
	add.s64 	%rd3, %rd1, %rd2;
	setp.lt.u32 	%p1, %r1, 16;
"""
MMA = (
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1, %f2, %f3, %f4}, "
    "{%r1, %r1, %r1, %r1}, {%r1, %r1}, {%f1, %f2, %f3, %f4};"
)
STORE = "st.global.u32 [%rd3], %r1; ret;"


def run(body: str) -> np.ndarray:
    """What 64 threads write, of an output of 64 numbers at address 4096."""
    tensor = np.zeros(256, np.uint8)
    memory = Global({"y": tensor}, {"y": 4096}, {"y"})
    kernel = parse(HEADER + body.replace("; ", ";\n").replace(": ", ":\n") + "\n}\n", "kernel")
    arguments = np.int64(4096).tobytes()
    Machine(kernel, arguments, (1, 1, 1), np.zeros((1, 3), int), 64, 256, memory).run()
    memory.finish(set())
    return tensor.view(np.uint32)


def test_threads_that_took_different_ways_meet_again():
    body = f"mov.u32 %r2, 7; @%p1 bra $there; mov.u32 %r2, 9; $there: mov.u32 %r1, %r2; {STORE}"
    assert run(body).tolist() == [7] * 16 + [9] * 48


def test_a_shuffle_exchanges_lanes_also_from_both_ways_of_a_branch():
    shuffle = "shfl.sync.bfly.b32 %r1|%p2, %r1, 16, 31, -1; "
    assert run(shuffle + STORE).tolist() == [n ^ 16 for n in range(64)]
    body = f"@%p1 bra $there; {shuffle}{STORE} $there: {shuffle}{STORE}"
    assert run(body).tolist() == [n ^ 16 for n in range(64)]


FAULTS = {
    f"@%p1 bra $there; {MMA} $there: {STORE}": "only a part of the warp",
    f"@%p1 bra $there; bar.sync 0; $there: {STORE}": "have left, and others wait",
    f"@%p1 bra $there; bar.sync 0; {STORE} $there: bar.sync 0; {STORE}": "different barriers",
    f"@%p1 bra $there; shfl.sync.bfly.b32 %r1|%p2, %r1, 1, 31, -1; $there: {STORE}": "never come",
    f"add.s64 %rd3, %rd3, 4; {STORE}": "out of bounds: byte 256 from the start of y",
    f"add.s64 %rd3, %rd3, 2; {STORE}": "misaligned",
    f"@%p1 bra $there; {STORE} $there: ret;": "64 bytes of y are never written",
    f"st.global.u32 [%rd3], %r1; {STORE}": "256 bytes of y are written more than once",
    f"mov.u64 %rd3, 4096; {STORE}": "two threads write to one address at once",
    f"ld.global.u32 %r2, [%rd3]; {STORE}": "global memory that nobody wrote",
    f"mov.u32 %r3, shared; ld.shared.u32 %r2, [%r3]; {STORE}": "shared memory that nobody wrote",
    f"st.shared.u32 [shared+256], %r1; {STORE}": "shared memory out of bounds: byte 256 of 256",
    f"st.shared.u32 [shared], %r1; {STORE}": "two threads write at once",
    f"tanh.approx.f32 %f1, %f2; {STORE}": "not modelled: `tanh",
}


@pytest.mark.parametrize("body", FAULTS)
def test_faults_are_told(body):
    with pytest.raises(Fault, match=FAULTS[body]):
        run(body)
