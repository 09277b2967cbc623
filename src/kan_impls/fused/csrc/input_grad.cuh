// The gradient by the values of the basis, and from it that of x:
// d x[b,i] = sum_f phi'_f(x[b,i]) * (sum_o grad_y[b,o] W[f,i,o]): rows x inputs, K = outputs.
#pragma once
#include "bases.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

// A product takes 16 rows of the batch and 8 columns: one function pair of 4 inputs, column
// n = 2 * input + parity. The sums of input t, even and odd, thus end in one thread, which
// multiplies them by the derivatives. A stage holds 32 outputs of the weights of GROUPS * 4 inputs
// and a chunk of pairs, of the scale, and of grad_y. Each warp takes 16 rows and one group of 4
// inputs: several groups share what is read of grad_y.
// K may be summed in any order: a thread reads 8 outputs, in two halves of 4 neighbours from
// `offset` on, and step s (0..3) takes number 2s of them as k = t and 2s + 1 as k = t + 4.
template <class Basis, class T, int WARPS>
struct InputGradTile {
  static const int GROUPS = Chunks<Basis>::SIZE <= 5 ? 2 : 1;  // as shared memory allows
  static const int THREADS = 32 * WARPS * GROUPS;
  static const int INPUTS = 4 * GROUPS;
  static const int OUTPUTS = 32;
  static const int ROWS = 16 * WARPS;
  static const int STAGES = 3;
  // Rows of a stage: weights (group, pair, input, parity), scale (input), grad_y (row).
  static const int SCALE_ROW = GROUPS * Chunks<Basis>::SIZE * 8;
  static const int GRAD_ROW = SCALE_ROW + (Basis::HAS_SCALE ? INPUTS : 0);
  static const int STAGE_ROWS = GRAD_ROW + ROWS;
  // Without bank conflicts: 8 rows and 4 threads reach different banks, 8 threads (16 bytes each)
  // or 16 threads (8 bytes each) at a time.
  static const int STRIDE = sizeof(T) == 4 ? OUTPUTS + 4 : OUTPUTS + 16;
  static __device__ __forceinline__ int offset(int t, int half) {
    return sizeof(T) == 4 ? 8 * t + 4 * half : 4 * t + 16 * half;
  }
  static const int STAGE_SIZE = STAGE_ROWS * STRIDE;
};

template <class Basis, class T, int WARPS>
__device__ __forceinline__ void load_input_grad_stage(const Problem& problem, T* stage, int chunk,
                                                      int tile, long long first_input,
                                                      long long first_row) {
  typedef InputGradTile<Basis, T, WARPS> Tile;
  int first_function = 2 * Chunks<Basis>::first_pair(chunk);
  auto row_start = [&](int row) -> const T* {
    if (row >= Tile::GRAD_ROW) {
      long long b = first_row + row - Tile::GRAD_ROW;
      return b < problem.rows ? (const T*)problem.grad_y + b * problem.outputs : nullptr;
    }
    if (Basis::HAS_SCALE && row >= Tile::SCALE_ROW) {
      long long input = first_input + row - Tile::SCALE_ROW;
      return input < problem.inputs ? (const T*)problem.scale + input * problem.outputs : nullptr;
    }
    int group = row / (8 * Chunks<Basis>::SIZE), pair = row / 8 % Chunks<Basis>::SIZE;
    return function_row<Basis>(problem, (const T*)problem.weight, (const T*)problem.base_weight,
                               first_function + 2 * pair + row % 2,
                               first_input + 4 * group + row % 8 / 2);
  };
  copy_tile<Tile::STAGE_ROWS, Tile::OUTPUTS, Tile::STRIDE, Tile::THREADS>(
      stage, (const T*)problem.grad_y, tile * Tile::OUTPUTS, problem.outputs, problem.vectorized,
      row_start);
}

template <class Basis, class T, Precision PRECISION, int WARPS>
struct ValueGradWarp {
  typedef InputGradTile<Basis, T, WARPS> Tile;
  static const int SIZE = Chunks<Basis>::SIZE;
  float total[SIZE][4];  // (row g, even), (g, odd), (g + 8, even), (g + 8, odd)
  int row_tile, group;
  Lane lane;

  __device__ __forceinline__ ValueGradWarp() {
    row_tile = threadIdx.x / 32 % WARPS, group = threadIdx.x / 32 / WARPS;
    clear();
  }

  __device__ __forceinline__ void clear() {
    KAN_UNROLL for (int n = 0; n < SIZE * 4; n++) total[n / 4][n % 4] = 0.f;
  }

  __device__ __forceinline__ void add_stage(const Problem& problem, const T* stage,
                                            int first_pair) {
    const T* grad_y = stage + (Tile::GRAD_ROW + 16 * row_tile + lane.g) * Tile::STRIDE;
    Operand<4> a[4];
    KAN_UNROLL for (int half = 0; half < 2; half++) {
      float upper[4], lower[4];
      load4(upper, grad_y + Tile::offset(lane.t, half));
      load4(lower, grad_y + 8 * Tile::STRIDE + Tile::offset(lane.t, half));
      KAN_UNROLL for (int s = 0; s < 2; s++) {
        float v[4] = {upper[2 * s], lower[2 * s], upper[2 * s + 1], lower[2 * s + 1]};
        a[2 * half + s] = operand<PRECISION>(v);
      }
    }
    add_products(problem, stage, first_pair, a);
  }

  __device__ __forceinline__ void add_products(const Problem& problem, const T* stage,
                                               int first_pair, const Operand<4> (&a)[4]) {
    float scale[8] = {1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f, 1.f};
    if (Basis::HAS_SCALE) {
      load_halves(scale, stage + (Tile::SCALE_ROW + 4 * group + lane.g / 2) * Tile::STRIDE);
    }
    KAN_UNROLL for (int h = 0; h < SIZE; h++) {
      if (!Chunks<Basis>::inside(first_pair + h)) break;
      float weight[8];
      load_halves(weight, stage + ((group * SIZE + h) * 8 + lane.g) * Tile::STRIDE);
      if (Basis::HAS_SCALE) {
        bool scaled = !is_base<Basis>(2 * (first_pair + h) + lane.g % 2);
        KAN_UNROLL for (int n = 0; n < 8; n++) weight[n] *= scaled ? scale[n] : 1.f;
      }
      // The stage on its own first: a long sum of few large parts is more accurate.
      float part[4] = {0.f, 0.f, 0.f, 0.f};
      KAN_UNROLL for (int s = 0; s < 4; s++) {
        float v[2] = {weight[2 * s], weight[2 * s + 1]};
        add_product<PRECISION>(part, a[s], operand<PRECISION>(v));
      }
      KAN_UNROLL for (int n = 0; n < 4; n++) total[h][n] += part[n];
    }
  }

  __device__ __forceinline__ void load_halves(float (&v)[8], const T* row) {
    KAN_UNROLL for (int half = 0; half < 2; half++) {
      float part[4];
      load4(part, row + Tile::offset(lane.t, half));
      KAN_UNROLL for (int n = 0; n < 4; n++) v[4 * half + n] = part[n];
    }
  }

  __device__ __forceinline__ long long row(long long block_row, int r) const {
    return block_row + 16 * row_tile + lane.g + 8 * r;
  }
  __device__ __forceinline__ long long input(long long block_input) const {
    return block_input + 4 * group + lane.t;
  }
};

template <class Basis, class T, Precision PRECISION, int WARPS>
struct InputGradWarp : ValueGradWarp<Basis, T, PRECISION, WARPS> {
  static const int SIZE = Chunks<Basis>::SIZE;
  float grad[2];  // of input t in rows g and g + 8, over the chunks so far

  __device__ __forceinline__ InputGradWarp() { grad[0] = grad[1] = 0.f; }

  // Multiplies the sums of a chunk by the derivatives, and clears them.
  __device__ __forceinline__ void finish_chunk(const Problem& problem, int first_pair,
                                               long long block_row, long long block_input) {
    KAN_UNROLL for (int r = 0; r < 2; r++) {
      Basis phi;
      long long own = this->input(block_input);
      phi.start(load_x(problem, this->row(block_row, r), own), own, first_pair, problem);
      KAN_UNROLL for (int h = 0; h < SIZE; h++) {
        if (!Chunks<Basis>::inside(first_pair + h)) break;
        grad[r] = fmaf(phi.even_slope(), this->total[h][2 * r], grad[r]);
        if (2 * (first_pair + h) + 1 < Basis::NUM_FUNCTIONS) {
          grad[r] = fmaf(phi.odd_slope(), this->total[h][2 * r + 1], grad[r]);
        }
        phi.next();
      }
    }
    this->clear();
  }

  __device__ __forceinline__ void store(const Problem& problem, long long block_row,
                                        long long block_input) {
    KAN_UNROLL for (int r = 0; r < 2; r++) {
      if (this->row(block_row, r) < problem.rows && this->input(block_input) < problem.inputs) {
        problem.grad_x[this->row(block_row, r) * problem.inputs + this->input(block_input)] = grad[r];
      }
    }
  }
};

// Blocks that the compiler shall let a multiprocessor hold, by its registers. Asked for two, or for
// nothing, some of the large accurate kernels would spill.
template <class Basis, class T, Precision PRECISION, int WARPS>
constexpr int input_grad_blocks() {
  const int THREADS = InputGradTile<Basis, T, WARPS>::THREADS;
  return PRECISION == ACCURATE && THREADS > 128 || THREADS > 256 ? 1 : 2;
}

// All stages of a block, through an InputGradWarp or its like.
template <class Warp, class Basis, class T, int WARPS>
__device__ __forceinline__ Warp add_all_stages(const Problem& problem, T* stages,
                                               long long block_row, long long first_input) {
  typedef InputGradTile<Basis, T, WARPS> Tile;
  const int CHUNKS = Chunks<Basis>::COUNT;
  int tiles = (problem.outputs + Tile::OUTPUTS - 1) / Tile::OUTPUTS;
  Cursor<Tile::STAGES> loaded = {0, 0, 0};
  auto load_stage = [&]() {
    if (loaded.chunk < CHUNKS) {
      T* stage = stages + loaded.stage * Tile::STAGE_SIZE;
      load_input_grad_stage<Basis, T, WARPS>(problem, stage, loaded.chunk, loaded.tile, first_input,
                                             block_row);
      loaded.advance(tiles);
    }
    copy_commit();
  };

  for (int ahead = 0; ahead < Tile::STAGES - 1; ahead++) load_stage();
  Warp sum;  // not earlier: its zeros would take registers
  for (Cursor<Tile::STAGES> at = {0, 0, 0}; at.chunk < CHUNKS;) {
    copy_wait<Tile::STAGES - 2>();
    __syncthreads();  // this stage is there, and the one before it free for the next load
    load_stage();
    int first_pair = Chunks<Basis>::first_pair(at.chunk);
    sum.add_stage(problem, stages + at.stage * Tile::STAGE_SIZE, first_pair);
    at.advance(tiles);
    if (at.tile == 0) sum.finish_chunk(problem, first_pair, block_row, first_input);
  }
  return sum;
}

// Grid: (blocks of rows, blocks of inputs in y and z).
template <class Basis, class T, Precision PRECISION, int WARPS>
__global__ void __launch_bounds__(InputGradTile<Basis, T, WARPS>::THREADS,
                                  input_grad_blocks<Basis, T, PRECISION, WARPS>())
    input_grad(const Problem problem) {
  typedef InputGradTile<Basis, T, WARPS> Tile;
  DYNAMIC_SHARED(shared);
  long long first_input = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * Tile::INPUTS;
  long long block_row = (long long)blockIdx.x * Tile::ROWS;
  if (first_input >= problem.inputs) return;  // the whole block
  typedef InputGradWarp<Basis, T, PRECISION, WARPS> Warp;
  Warp sum = add_all_stages<Warp, Basis, T, WARPS>(problem, (T*)shared, block_row, first_input);
  sum.store(problem, block_row, first_input);
}
