// d weight = phi^T grad_y: functions x inputs x outputs, summed over K = rows of the batch.
#pragma once
#include "bases.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

// Every pair takes 16 registers of a thread for its sums: more than 6 would spill.
template <class Basis>
using WeightGradChunks = Chunks<Basis, 6>;

// A warp takes 8 inputs (row g of a product: the even function of input g, row g + 8 the odd one),
// all pairs of a chunk and 32 columns. Its k is a row of the batch: rows t and t + 4 of 8.
template <class T, int WARPS>
struct WeightGradTile {
  static const int INPUTS = 8 * WARPS;
  static const int COLUMNS = 32;
  static const int ROWS = 32;
  static const int STAGES = 3;
  static const int STRIDE = COLUMNS + 32 / sizeof(T);  // 32 bytes more: no bank conflicts
  static const int STAGE_SIZE = ROWS * STRIDE;
  // The sums over so many tiles of rows move to shared memory, where larger batches add them up.
  static const int TILES_PER_PART = 32;
};

template <class Basis, class T, Precision PRECISION>
struct WeightGradWarp {
  static const int SIZE = WeightGradChunks<Basis>::SIZE;
  float total[SIZE][4][4];
  float scale_total[8];  // sum_f weight * phi^T grad_y of the 8 columns of this thread
  Lane lane;

  __device__ __forceinline__ WeightGradWarp() {
    clear();
    KAN_UNROLL for (int n = 0; n < 8; n++) scale_total[n] = 0.f;
  }

  __device__ __forceinline__ void clear() {
    KAN_UNROLL for (int h = 0; h < SIZE; h++) {
      KAN_UNROLL for (int n = 0; n < 16; n++) total[h][n / 4][n % 4] = 0.f;
    }
  }

  // Moves the sums into those of all parts: a sum of few large parts is more accurate than one of
  // thousands of steps. Every thread has its own, `THREADS` apart.
  template <int THREADS>
  __device__ __forceinline__ void move_part(float* parts, bool first) {
    KAN_UNROLL for (int n = 0; n < SIZE * 16; n++) {
      float* part = parts + n * THREADS + threadIdx.x;
      float before = first ? 0.f : *part;
      *part = before + total[n / 16][n / 4 % 4][n % 4];
    }
    clear();
  }

  template <int THREADS>
  __device__ __forceinline__ void add_parts(const float* parts) {
    KAN_UNROLL for (int n = 0; n < SIZE * 16; n++) {
      total[n / 16][n / 4 % 4][n % 4] += parts[n * THREADS + threadIdx.x];
    }
  }

  // Adds 8 rows of grad_y, with x of this thread's input in rows t and t + 4.
  __device__ __forceinline__ void add_rows(const Problem& problem, const T* grad_y, int stride,
                                           int first_pair, long long input, const float (&x)[2]) {
    Basis phi[2];
    KAN_UNROLL for (int r = 0; r < 2; r++) phi[r].start(x[r], input, first_pair, problem);
    float upper[4], lower[4];
    load4(upper, grad_y + lane.t * stride + lane.loaded_column());
    load4(lower, grad_y + (lane.t + 4) * stride + lane.loaded_column());
    Operand<2> b[4];
    KAN_UNROLL for (int c = 0; c < 4; c++) {
      float v[2] = {upper[c], lower[c]};
      b[c] = operand<PRECISION>(v);
    }
    KAN_UNROLL for (int h = 0; h < SIZE; h++) {
      if (!WeightGradChunks<Basis>::inside(first_pair + h)) break;
      float v[4] = {phi[0].even(), phi[0].odd(), phi[1].even(), phi[1].odd()};
      Operand<4> a = operand<PRECISION>(v);
      KAN_UNROLL for (int c = 0; c < 4; c++) add_product<PRECISION>(total[h][c], a, b[c]);
      phi[0].next(), phi[1].next();
    }
  }

  // Writes the gradients of a chunk and clears the sums. The thread has twice 4 neighbouring
  // columns, of both functions of every pair, of one input.
  __device__ __forceinline__ void finish_chunk(const Problem& problem, int first_pair,
                                               long long input, int first_column) {
    KAN_UNROLL for (int side = 0; side < 2; side++) {
      int column = first_column + lane.stored_column(side);
      float scale[4] = {1.f, 1.f, 1.f, 1.f};
      bool scaled = Basis::HAS_SCALE && input < problem.inputs;
      if (scaled) {
        const T* row = (const T*)problem.scale + input * problem.outputs;
        load_row(problem, scale, row, column);
      }
      KAN_UNROLL for (int n = 0; n < 2 * SIZE; n++) {
        int function = 2 * first_pair + n;
        T* row = function_row<Basis>(problem, (T*)problem.grad_weight, (T*)problem.grad_base_weight,
                                     function, input);
        if (row == nullptr) continue;
        float sum[4];
        KAN_UNROLL for (int c = 0; c < 4; c++) sum[c] = total[n / 2][c][n % 2 * 2 + side];
        if (scaled && !is_base<Basis>(function)) {
          float weight[4];
          const T* from = function_row<Basis>(problem, (const T*)problem.weight,
                                              (const T*)problem.base_weight, function, input);
          load_row(problem, weight, from, column);
          KAN_UNROLL for (int c = 0; c < 4; c++) {
            scale_total[4 * side + c] = fmaf(weight[c], sum[c], scale_total[4 * side + c]);
            sum[c] *= scale[c];
          }
        }
        store_columns(row, column, problem.outputs, problem.vectorized, sum);
      }
    }
    clear();
  }

  __device__ __forceinline__ void store_scale(const Problem& problem, long long input,
                                              int first_column) {
    if (input >= problem.inputs) return;
    KAN_UNROLL for (int side = 0; side < 2; side++) {
      float sum[4];
      KAN_UNROLL for (int c = 0; c < 4; c++) sum[c] = scale_total[4 * side + c];
      T* row = (T*)problem.grad_scale + input * problem.outputs;
      int column = first_column + lane.stored_column(side);
      store_columns(row, column, problem.outputs, problem.vectorized, sum);
    }
  }

  __device__ __forceinline__ void load_row(const Problem& problem, float (&v)[4], const T* row,
                                           int column) {
    load_columns(v, row, column, problem.outputs, problem.vectorized);
  }
};

// Grid: (blocks of columns, blocks of inputs in y and z). Every gradient is written once, by the thread that
// summed it over all rows; the chunks follow each other in the block, so that the gradient of the
// scale, a sum over functions, stays in the thread too.
template <class Basis, class T, Precision PRECISION, int WARPS>
__global__ void __launch_bounds__(WARPS * 32, 2) weight_grad(const Problem problem) {
  typedef WeightGradTile<T, WARPS> Tile;
  const int CHUNKS = WeightGradChunks<Basis>::COUNT, THREADS = WARPS * 32;
  DYNAMIC_SHARED(shared);
  T* stages = (T*)shared;
  float* parts = (float*)(stages + Tile::STAGES * Tile::STAGE_SIZE);  // of batches with several

  WeightGradWarp<Basis, T, PRECISION> sum;
  int column = blockIdx.x * Tile::COLUMNS;
  long long first_input = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * Tile::INPUTS;
  if (first_input >= problem.inputs) return;  // the whole block
  long long input = first_input + threadIdx.x / 32 * 8 + sum.lane.g;
  int tiles = (int)((problem.rows + Tile::ROWS - 1) / Tile::ROWS);

  Cursor<Tile::STAGES> loaded = {0, 0, 0};
  auto load_stage = [&]() {
    if (loaded.chunk < CHUNKS) {
      long long first_row = (long long)loaded.tile * Tile::ROWS;
      auto row_start = [&](int row) -> const T* {
        bool there = first_row + row < problem.rows;
        return there ? (const T*)problem.grad_y + (first_row + row) * problem.outputs : nullptr;
      };
      copy_tile<Tile::ROWS, Tile::COLUMNS, Tile::STRIDE, THREADS>(
          stages + loaded.stage * Tile::STAGE_SIZE, (const T*)problem.grad_y, column,
          problem.outputs, problem.vectorized, row_start);
      loaded.advance(tiles);
    }
    copy_commit();
  };
  float x[2];
  auto load_inputs = [&](long long first_row) {
    KAN_UNROLL for (int r = 0; r < 2; r++) {
      x[r] = load_x(problem, first_row + sum.lane.t + 4 * r, input);
    }
  };

  for (int ahead = 0; ahead < Tile::STAGES - 1; ahead++) load_stage();
  load_inputs(0);
  for (Cursor<Tile::STAGES> at = {0, 0, 0}; at.chunk < CHUNKS;) {
    copy_wait<Tile::STAGES - 2>();
    __syncthreads();  // this stage is there, and the one before it free for the next load
    load_stage();
    const T* stage = stages + at.stage * Tile::STAGE_SIZE;
    int first_pair = WeightGradChunks<Basis>::first_pair(at.chunk);
    long long first_row = (long long)at.tile * Tile::ROWS;
    bool first_part = at.tile < Tile::TILES_PER_PART;
    at.advance(tiles);
    int rows = (int)min((long long)Tile::ROWS, problem.rows - first_row);
    for (int step = 0; step < rows; step += 8) {
      float now[2] = {x[0], x[1]};
      bool last = step + 8 >= rows;
      load_inputs(last ? (long long)at.tile * Tile::ROWS : first_row + step + 8);
      sum.add_rows(problem, stage + step * Tile::STRIDE, Tile::STRIDE, first_pair, input, now);
    }
    if (at.tile == 0) {
      if (!first_part) sum.template add_parts<THREADS>(parts);
      sum.finish_chunk(problem, first_pair, input, column);
    } else if (at.tile % Tile::TILES_PER_PART == 0) {
      sum.template move_part<THREADS>(parts, first_part);
    }
  }
  if (Basis::HAS_SCALE) sum.store_scale(problem, input, column);
}
