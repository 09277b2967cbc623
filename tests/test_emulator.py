"""The emulator of CUDA kernels, on tiny kernels: it computes what a GPU does, and sees faults."""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from tests.emulator import build
from tests.emulator.build import EmulationError, Emulator

pytestmark = pytest.mark.skipif(
    build.find_compiler() is None, reason="g++ is not installed: CUDA kernels cannot be emulated"
)

SEEDS = range(6)
NAN = float("nan")

SOURCE = r"""
#include "cuda_emulation.h"

struct Problem { float* out; const float* in; int count; };
#define KERNEL template <int CASE = 0> __global__ void __launch_bounds__(1024)

KERNEL indices(Problem p) {  // four numbers for each thread
  int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  float* out = p.out + 4 * (block * blockDim.x + threadIdx.x);
  out[0] = blockIdx.x; out[1] = blockIdx.y; out[2] = blockIdx.z; out[3] = threadIdx.x;
}

KERNEL order(Problem p) {  // p.out[0] counts the threads that have run
  int position = ++p.out[0];
  p.out[position] = blockIdx.x * blockDim.x + threadIdx.x;
}

// Writes the input backwards, through shared memory. 1: reads one value that nobody wrote.
KERNEL reverse(Problem p) {
  DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  int count = blockDim.x, i = threadIdx.x;
  if (!(CASE == 1 && i == 3)) shared[i] = p.in[i];  // write
  __syncthreads();  // barrier
  p.out[blockIdx.x * count + i] = shared[count - 1 - i];  // read
}

KERNEL early_exit(Problem p) {  // threads that have exited keep no barrier closed
  DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  if (threadIdx.x >= p.count) return;
  shared[threadIdx.x] = p.in[threadIdx.x];
  __syncthreads();
  p.out[threadIdx.x] = shared[p.count - 1 - threadIdx.x];  // of every block
}

KERNEL diverge(Problem p) {
  if (threadIdx.x < 40) {
    __syncthreads();  // first way
  } else if (CASE == 0) {
    __syncthreads();  // second way
  } else if (CASE == 1) {
    __syncwarp();  // warp way
  }
}

KERNEL shuffle(Problem p) {  // seven numbers for each thread; all lanes add the same to theirs
  float* out = p.out + 7 * threadIdx.x;
  float mine = p.in[threadIdx.x];
  out[0] = __shfl_sync(~0u, mine, 5);
  out[1] = __shfl_sync(~0u, mine + 100, 5, 8);
  out[2] = __shfl_xor_sync(~0u, mine + 200, 9);
  out[3] = __shfl_xor_sync(~0u, mine + 300, 3, 4);
  out[4] = __shfl_xor_sync(~0u, mine + 400, 9, 8);
  out[5] = __shfl_down_sync(~0u, mine + 500, 7);
  out[6] = __shfl_down_sync(~0u, mine + 600, 7, 16);
  if (CASE == 1 && threadIdx.x < 8) __shfl_sync(0xff, mine, 0);  // part of a warp
}

// Each warp adds up its values in shared memory, pairwise.
KERNEL warp_sum(Problem p) {
  DYNAMIC_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory) + threadIdx.x / 32 * 32;
  int lane = threadIdx.x % 32;
  shared[lane] = p.in[threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) {
    if (CASE == 0) __syncwarp();
    if (CASE == 1) __shfl_sync(~0u, lane, 0);  // waits, but orders no memory
    if (lane < distance) shared[lane] += shared[lane + distance];  // sum
  }
  if (lane == 0) p.out[threadIdx.x / 32] = shared[0];
}

// in: for each thread of each warp d[4], a[4], b[2]. out: d[4]
KERNEL product(Problem p) {
  const float* in = p.in + 10 * threadIdx.x;
  float d[4];
  u32 a[4], b[2];
  for (int i = 0; i < 4; i++) d[i] = in[i], a[i] = __float_as_uint(in[4 + i]);
  for (int i = 0; i < 2; i++) b[i] = __float_as_uint(in[8 + i]);
  mma_m16n8k8_tf32(d, a, b);
  for (int i = 0; i < 4; i++) p.out[4 * threadIdx.x + i] = d[i];
}

// Copies p.count rows of the input through three stages of shared memory, the odd ones as zeros.
// BYTES: of each thread. WAIT: how many groups may stay pending; 2 is wrong.
template <int BYTES, int WAIT, bool LAST_WAIT>
__global__ void pipeline(Problem p) {
  DYNAMIC_SHARED(memory);
  int row_bytes = BYTES * blockDim.x, mine = BYTES * threadIdx.x;
  const char* in = reinterpret_cast<const char*>(p.in);
  auto issue = [&](int row) {
    bool valid = row % 2 == 0;
    if (row < p.count)
      copy_async<BYTES>(memory + row % 3 * row_bytes + mine,
                        valid ? in + row * row_bytes + mine : nullptr, valid);  // issue
    copy_commit();
  };
  issue(0);
  issue(1);
  for (int row = 0; row < p.count; row++) {
    copy_wait<WAIT>();
    __syncthreads();
    issue(row + 2);
    int other = BYTES * (blockDim.x - 1 - threadIdx.x);  // what another thread has copied
    std::memcpy(p.out + (row * row_bytes + mine) / 4, memory + row % 3 * row_bytes + other, BYTES);
  }
  copy_wait<0>();
  if (!LAST_WAIT) copy_async<BYTES>(memory + mine, in, true);  // never waited for
}

KERNEL misuse(Problem p) {
  DYNAMIC_SHARED(memory);
  if (threadIdx.x != 2) return;
  volatile float* shared = reinterpret_cast<volatile float*>(memory);
  switch (CASE) {
    case 0: p.out[0] = shared[p.count]; break;  // shared read
    case 1: shared[p.count] = 1; break;  // shared write
    case 2: copy_async<16>(memory + 4, p.in, true); break;
    case 3: copy_async<4>(memory + 4 * p.count, p.in, true); break;
    case 4: copy_async<16>(memory, p.in + 1, true); break;
    case 5: p.out[0] = *static_cast<volatile float*>(nullptr); break;
    case 6: p.out[0] = p.in[p.count]; break;  // global read
    case 7: {
      volatile char large[1 << 20];
      large[0] = 1;
      break;
    }
  }
}
"""

KERNELS = [
    *("indices<0>", "order<0>", "early_exit<0>", "product<0>", "warp_sum<0>", "warp_sum<1>"),
    *(f"{name}<{case}>" for name in ("reverse", "shuffle") for case in (0, 1)),
    *(f"diverge<{case}>" for case in (0, 1, 2)),
    *("pipeline<4, 1, true>", "pipeline<16, 1, true>"),
    *("pipeline<4, 2, true>", "pipeline<16, 1, false>"),
    *(f"misuse<{case}>" for case in range(8)),
]


def line(comment):
    """The number of the line of SOURCE that ends with this comment."""
    (number,) = [
        number
        for number, text in enumerate(SOURCE.splitlines(), start=1)
        if text.endswith(f"// {comment}")
    ]
    return number


@dataclass(frozen=True)
class Launch:
    """As the launches of kan_impls.fused.kernels."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    arguments: bytes


def pack(out, values, count=0):
    return struct.pack("PPi4x", out.ctypes.data, values.ctypes.data, count)


@dataclass
class Runner:
    """Launches kernels of one emulator with arrays of its own."""

    emulator: Emulator

    def __call__(
        self, kernel, values=(), size=0, count=0, grid=1, threads=32, shared=0, seed=0, workers=1
    ):
        """What the kernel wrote to `size` floats, NaN where it wrote nothing."""
        values = np.asarray(values, np.float32)
        out = np.full(size, NAN, np.float32)
        grid = grid if isinstance(grid, tuple) else (grid, 1, 1)
        launch = Launch(kernel, grid, threads, shared, pack(out, values, count))
        self.emulator.run(launch, seed=seed, threads=workers)
        return out


@pytest.fixture(scope="module")
def run():
    return Runner(Emulator(SOURCE, KERNELS))


def ramp(size):
    return np.arange(1, size + 1, dtype=np.float32)


each_seed = pytest.mark.parametrize("seed", SEEDS)


@each_seed
@pytest.mark.parametrize("workers", [1, 2])
def test_every_thread_of_every_block_runs(run, seed, workers):
    out = run(
        "indices<0>", size=4 * 24 * 70, grid=(3, 2, 4), threads=70, seed=seed, workers=workers
    )
    block, thread = np.divmod(np.arange(24 * 70), 70)
    expected = np.stack([block % 3, block // 3 % 2, block // 6, thread], axis=1)
    np.testing.assert_array_equal(out.reshape(-1, 4), expected)


def test_a_seed_is_an_order(run):
    def order(seed):
        out = np.zeros(1 + 4 * 48, np.float32)
        launch = Launch("order<0>", (4, 1, 1), 48, 0, pack(out, out))
        run.emulator.run(launch, seed=seed)
        assert sorted(out[1:]) == [*range(4 * 48)]
        return tuple(out[1:].astype(int))

    assert order(0) == tuple(range(4 * 48))
    orders = [order(seed) for seed in range(20)]
    assert len(set(orders)) == 20
    assert orders == [order(seed) for seed in range(20)]
    assert len({tuple(thread // 48 for thread in order) for order in orders}) > 10
    # Within a block, too; and blocks do not share an order.
    assert len({order[:48] for order in orders}) == 20
    assert order(1)[:48] != tuple(np.array(order(1)[48:96]) % 48 + order(1)[0] // 48 * 48)


@each_seed
def test_barrier(run, seed):
    out = run("reverse<0>", ramp(96), size=2 * 96, grid=2, threads=96, shared=4 * 96, seed=seed)
    np.testing.assert_array_equal(out, [*range(96, 0, -1)] * 2)


@each_seed
def test_threads_may_exit_before_a_barrier(run, seed):
    out = run("early_exit<0>", ramp(40), 40, count=40, threads=96, shared=160, seed=seed)
    np.testing.assert_array_equal(out, np.arange(40, 0, -1))


@each_seed
def test_shuffles(run, seed):
    out = run("shuffle<0>", ramp(64), size=7 * 64, threads=64, seed=seed).reshape(64, 7) - 1
    thread = np.arange(64)
    lane, warp = thread % 32, thread // 32 * 32
    expected = [
        warp + 5,
        thread // 8 * 8 + 5 + 100,
        (thread ^ 9) + 200,
        (thread ^ 3) + 300,
        # Lanes of an earlier segment of 8 can be read, those of a later one cannot.
        np.where(lane & 8, thread ^ 9, thread) + 400,
        np.where(lane + 7 < 32, thread + 7, thread) + 500,
        np.where(lane % 16 + 7 < 16, thread + 7, thread) + 600,
    ]
    np.testing.assert_array_equal(out.T, expected)


def test_a_lane_that_does_not_exist_is_nan(run):
    out = run("shuffle<0>", ramp(40), size=7 * 40, threads=40).reshape(40, 7)
    assert out[39, 0] == 38
    assert np.isnan(out[39, 5]), "lane 14 of a warp of 8"


@each_seed
def test_warp_barrier(run, seed):
    out = run("warp_sum<0>", ramp(96), size=3, threads=96, shared=4 * 96, seed=seed)
    np.testing.assert_array_equal(out, ramp(96).reshape(3, 32).sum(1))


def fragments(d, a, b):
    """Each lane's d[4], a[4], b[2] of d (16, 8), a (16, 8) and b (8, 8): PTX ISA, "Matrix
    Fragments for mma.m16n8k8"."""
    lanes = np.empty((32, 10), np.float32)
    for lane in range(32):
        group, member = lane >> 2, lane % 4
        for i in range(4):
            lanes[lane, i] = d[group + 8 * (i >= 2), 2 * member + (i & 1)]
            lanes[lane, 4 + i] = a[group + 8 * (i & 1), member + 4 * (i >= 2)]
        for i in range(2):
            lanes[lane, 8 + i] = b[member + 4 * i, group]
    return lanes


def from_fragments(lanes):
    """The matrix d (16, 8) of each lane's d[4]."""
    d = np.empty((16, 8), np.float32)
    for lane in range(32):
        for i in range(4):
            d[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2] = lanes[lane, i]
    return d


def toward_zero(exact):
    """The float32 next to the Fraction `exact`, toward zero."""
    near = np.float32(float(exact))
    if abs(Fraction(float(near))) > abs(exact):
        near = np.nextafter(near, np.float32(0))
    return near


def product(run, d, a, b, seed=0):
    lanes = fragments(d, a, b)
    return from_fragments(run("product<0>", lanes.ravel(), size=128, seed=seed).reshape(32, 4))


@each_seed
def test_matrix_product(run, seed):
    random = np.random.default_rng(seed)
    scale = 2.0 ** random.integers(-30, 30, (3, 16, 8)) if seed % 2 else np.ones((3, 16, 8))
    d, a, b = (random.standard_normal((3, 16, 8)) * scale).astype(np.float32)
    b = b[:8]
    tf32 = [(x.view(np.uint32) & 0xFFFFE000).view(np.float32) for x in (a, b)]
    assert (tf32[0] != a).any(), "the ignored bits are not zero"
    expected = np.empty((16, 8), np.float32)
    for row, column in np.ndindex(16, 8):
        exact = Fraction(float(d[row, column])) + sum(
            Fraction(float(x)) * Fraction(float(y))
            for x, y in zip(tf32[0][row], tf32[1][:, column], strict=True)
        )
        expected[row, column] = toward_zero(exact)
    np.testing.assert_array_equal(product(run, d, a, b, seed), expected)


TINY = 2.0**-70


@pytest.mark.parametrize(
    ("d", "terms", "expected"),
    [
        (1, [2**-24 * 1.5], 1),  # would round to nearest upward
        (-1, [-(2**-24) * 1.5], -1),
        (1, [-TINY], 1 - 2**-24),
        (-1, [TINY], -1 + 2**-24),
        (1, [TINY], 1),
        (2**60, [1, -(2.0**60)], 1),  # sums in double would lose the 1 next to TINY
        (2**60, [1, TINY, -(2.0**60)], 1),
        (2**60, [1, -TINY, -(2.0**60)], 1 - 2**-24),
        (2**60, [TINY, -(2.0**60), TINY], 2 * TINY),
        (0, [np.inf], np.inf),
        (np.inf, [-np.inf], NAN),
        (NAN, [1], NAN),
    ],
)
def test_matrix_product_rounds_once_toward_zero(run, d, terms, expected):
    a = np.zeros((16, 8), np.float32)
    a[3, : len(terms)] = terms
    b = np.zeros((8, 8), np.float32)
    b[: len(terms), 6] = 1
    out = product(run, np.full((16, 8), d, np.float32), a, b)
    np.testing.assert_array_equal(out[3, 6], np.float32(expected))


def rows(width, count):
    """Input of the kernel `pipeline`, and what it makes of it."""
    values = ramp(width * count).reshape(count, width)
    return values, np.where(np.arange(count)[:, None] % 2, 0, values)


@each_seed
@pytest.mark.parametrize("size", [4, 16])
def test_asynchronous_copies(run, seed, size):
    floats = size // 4
    values, expected = rows(48 * floats, 7)
    shared = 3 * 48 * size
    out = run(
        f"pipeline<{size}, 1, true>",
        values,
        values.size,
        count=7,
        threads=48,
        shared=shared,
        seed=seed,
    )
    expected = expected.reshape(7, 48, floats)[:, ::-1]
    np.testing.assert_array_equal(out, expected.ravel())


def without_barrier(text):
    return text.replace("__syncthreads();  // barrier", "// barrier")


def test_a_removed_barrier_gives_nan():
    run = Runner(Emulator(SOURCE, ["reverse<0>"], edit=without_barrier))
    for seed in SEEDS:
        out = run("reverse<0>", ramp(96), 96, threads=96, shared=384, seed=seed)
        assert np.isnan(out).any(), seed


def test_shared_memory_that_nobody_wrote_is_nan(run):
    out = run("reverse<1>", ramp(32), size=2 * 32, grid=2, shared=128)
    np.testing.assert_array_equal(np.isnan(out).nonzero(), [[31 - 3, 32 + 31 - 3]])


def test_waiting_for_too_few_copies_gives_nan(run):
    values, _ = rows(48, 7)
    for seed in SEEDS:
        out = run("pipeline<4, 2, true>", values, 48 * 7, 7, 1, 48, shared=3 * 48 * 4, seed=seed)
        # In every row: where a stage is used again, what it held before is no longer seen.
        assert np.isnan(out.reshape(7, 48)).any(axis=1).all(), seed


def assert_fails(run, message, *arguments, **keywords):
    """The launch fails with a message that matches under every seed, and harms no later one."""
    for seed in SEEDS:
        with pytest.raises(EmulationError, match=message):
            run(*arguments, **keywords, seed=seed)
    test_barrier(run, 0)


def test_a_copy_that_is_pending_at_the_end(run):
    values, _ = rows(4 * 32, 3)
    assert_fails(
        run,
        rf"thread \d+ ended with 1 .* pending, .* source.cu:{line('never waited for')}",
        "pipeline<16, 1, false>",
        values,
        4 * 32 * 3,
        3,
        shared=3 * 32 * 16,
    )


@pytest.mark.parametrize(
    ("case", "what", "other"),
    [
        (0, "divergent barrier", "__syncthreads at source.cu:{second way}"),
        (1, "deadlock", "__syncwarp at source.cu:{warp way}"),
    ],
)
def test_divergent_barriers(run, case, what, other):
    other = re.sub("{(.*)}", lambda way: str(line(way[1])), other)
    message = f"{what}: 40 of 96 threads wait in __syncthreads at source.cu:{line('first way')} "
    assert_fails(run, f"{message}.*{other}", f"diverge<{case}>", threads=96)


def test_exited_threads_leave_a_barrier_to_the_others(run):
    run("diverge<2>", threads=96)


def test_part_of_a_warp_is_refused(run):
    assert_fails(run, "mask 0xff; expected 0xffffffff", "shuffle<1>", ramp(32), 7 * 32)


@pytest.mark.parametrize("count", [4, 5, 6, 7, 8, 12, 4096, 65535])
def test_writing_beyond_the_shared_memory(run, count):
    """Float `count` of `count` or fewer: before an inaccessible page, at it, and far behind."""
    shared = 4 * min(count, 8)
    message = f"byte {4 * count} of shared memory of {shared} bytes"
    assert_fails(run, message, "misuse<1>", count=count, shared=shared)


def test_reading_beyond_the_shared_memory(run):
    assert_fails(run, "thread 2 accessed byte 32 of", "misuse<0>", size=1, count=8, shared=32)
    assert np.isnan(run("misuse<0>", size=1, count=5, shared=20)), "no page ends here"


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("misuse<2>", "thread 2 copies 16 bytes.*to byte 4.*a multiple of 16"),
        ("misuse<3>", "thread 2 copies 4 bytes.*to byte 32 of shared memory of 32 bytes"),
        ("misuse<4>", "thread 2 copies 16 bytes.*global address; expected a multiple of 16"),
        ("misuse<5>", r"thread 2 accessed the invalid address (0x0|\(nil\))"),
        ("misuse<7>", "thread 2 overflowed its stack"),
    ],
)
def test_invalid_addresses(run, kernel, message):
    assert_fails(run, message, kernel, ramp(8), size=1, count=8, shared=32)


CRASH = """
import ctypes, faulthandler
from tests.test_emulator import *
faulthandler.enable()
run = Runner(Emulator(SOURCE, KERNELS))
for _ in range(2):
    test_barrier(run, 0)
ctypes.string_at(0)
"""


@pytest.mark.usefixtures("run")
def test_faults_elsewhere_stay_what_they_are():
    command = [sys.executable, "-c", CRASH]
    done = subprocess.run(command, cwd=build.ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == -signal.SIGSEGV, done
    assert "Fatal Python error: Segmentation fault" in done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0, 1, 1)}, r"grid\[0\] is 0; expected 1 to"),
        ({"grid": (1, 65536, 1)}, r"grid\[1\] is 65536; expected 1 to 65535"),
        ({"threads": 1025}, "threads is 1025; expected 1 to 1024"),
        ({"arguments": b"1234"}, "arguments have 4 bytes; expected the kernel's 24"),
        ({"kernel": "absent<0>"}, "'absent<0>' was not compiled"),
    ],
)
def test_launches_that_a_driver_would_refuse(run, change, message):
    values = ramp(32)
    launch = {
        "kernel": "indices<0>",
        "grid": (1, 1, 1),
        "threads": 1,
        "shared_bytes": 0,
        "arguments": pack(values, values),
    }
    run.emulator.run(Launch(**launch))
    with pytest.raises(EmulationError, match=message):
        run.emulator.run(Launch(**{**launch, **change}))


def test_ucontext_instead_of_assembly():
    """What other processors than x86-64 use."""
    run = Runner(Emulator("#define EMULATION_UCONTEXT\n" + SOURCE, ["reverse<0>", "misuse<1>"]))
    test_barrier(run, 1)
    assert_fails(run, "byte 32 of shared memory", "misuse<1>", count=8, shared=32)


def test_source_that_does_not_compile():
    with pytest.raises(EmulationError, match=r"source.cu:1:18: error: .absent"):
        Emulator("int f() { return absent; }\n", [])


def test_edits():
    with pytest.raises(EmulationError, match="changes nothing"):
        Emulator(SOURCE, KERNELS, edit=lambda text: text)
    with pytest.raises(EmulationError, match=r"names \['other.cuh'\]; expected some of"):
        Emulator(SOURCE, KERNELS, edit={"other.cuh": ""})


def test_compiled_once(run):
    assert Emulator(SOURCE, KERNELS).path == run.emulator.path


def launch_under_sanitizer(sanitize, kernel, shared, count, without, workers):
    """In a process of its own: misuse<6> reads beyond the input if `count` is its size."""
    edit = without_barrier if without else None
    run = Runner(Emulator(SOURCE, SANITIZED, sanitize, edit))
    values = ramp(96 * 8)
    for seed in (0, 1):
        run(kernel, values, values.size, count, 4, 96, shared, seed, workers)


# Those that a test launches under a sanitizer: compiled together, and once.
SANITIZED = [
    *("reverse<0>", "early_exit<0>", "warp_sum<0>", "warp_sum<1>", "pipeline<4, 1, true>"),
    *("misuse<0>", "misuse<1>", "misuse<6>", "diverge<1>"),
]


def sanitized(sanitize, kernel, shared=384, count=96, without=False, workers=1):
    if build.find_runtime(sanitize) is None:
        pytest.skip(f"{sanitize} sanitizer is not installed beside g++")
    arguments = (sanitize, kernel, shared, count, without, workers)
    return build.run_in_subprocess(launch_under_sanitizer, *arguments, sanitize=sanitize)


each_sanitizer = pytest.mark.parametrize("sanitize", build.SANITIZERS)


@pytest.mark.sanitizer
@each_sanitizer
@pytest.mark.parametrize(
    ("kernel", "shared", "count"),
    [
        ("reverse<0>", 384, 0),
        ("early_exit<0>", 384, 50),
        ("warp_sum<0>", 384, 0),
        ("pipeline<4, 1, true>", 3 * 384, 7),
    ],
)
def test_sanitizers_are_quiet_about_right_kernels(sanitize, kernel, shared, count):
    done = sanitized(sanitize, kernel, shared, count)
    assert done.returncode == 0, done.stdout


@pytest.mark.sanitizer
def test_sanitizers_leave_a_failed_launch_its_message():
    # Not of threads: to it, the fibers that a deadlock abandons race with those after them.
    done = sanitized("address,undefined", "diverge<1>")
    assert "EmulationError: diverge<1>: block (0, 0, 0): deadlock" in done.stdout
    assert "Sanitizer" not in done.stdout, done.stdout


def assert_names(done, error, *comments):
    """The report names the error and each of the lines of SOURCE."""
    assert done.returncode != 0
    assert error in done.stdout, done.stdout
    for comment in comments:
        assert re.search(rf"source.cu:{line(comment)}\b", done.stdout), (comment, done.stdout)


@pytest.mark.sanitizer
def test_tsan_names_both_lines_of_a_missing_barrier():
    done = sanitized("thread", "reverse<0>", without=True)
    assert_names(done, "ThreadSanitizer: data race", "write", "read")


@pytest.mark.sanitizer
def test_tsan_names_blocks_that_write_the_same_value():
    done = sanitized("thread", "early_exit<0>", workers=2)
    assert_names(done, "ThreadSanitizer: data race", "of every block")
    assert sanitized("thread", "reverse<0>", workers=2).returncode == 0


@pytest.mark.sanitizer
def test_tsan_knows_that_shuffles_order_no_memory():
    assert_names(sanitized("thread", "warp_sum<1>"), "ThreadSanitizer: data race", "sum")


@pytest.mark.sanitizer
def test_asan_names_a_global_read_out_of_bounds():
    done = sanitized("address,undefined", "misuse<6>", count=96 * 8)
    assert_names(done, "heap-buffer-overflow", "global read")


@pytest.mark.sanitizer
@pytest.mark.parametrize(("case", "comment"), [(0, "shared read"), (1, "shared write")])
def test_asan_names_shared_memory_out_of_bounds(case, comment):
    done = sanitized("address,undefined", f"misuse<{case}>")
    assert_names(done, "use-after-poison", comment)


@pytest.mark.sanitizer
@each_sanitizer
def test_a_sanitizer_must_be_loaded_first(sanitize):
    """Loading its library later would end the process."""
    if build.find_runtime(sanitize) is None:
        pytest.skip(f"{sanitize} sanitizer is not installed beside g++")
    emulator = Emulator(
        "#include <cuda_emulation.h>\n__global__ void none(int) {}", ["none"], sanitize
    )
    with pytest.raises(EmulationError, match="launch within run_in_subprocess"):
        emulator.run(Launch("none", (1, 1, 1), 1, 0, b"1234"))
