// y = phi W: rows x outputs, summed over K = functions x inputs.
#pragma once
#include "bases.cuh"
#include "tensor_core.cuh"
#include "tile.cuh"

// A stage of the pipeline is a group of 4 inputs and a chunk of function pairs. K may be summed in
// any order: step h takes pair h, k = 0..3 its even function of the 4 inputs and k = 4..7 its odd
// one, so that a thread holds both functions of one input and steps its own basis.
// The weights of a stage lie in shared memory in this order: row = function * 4 + input, and below
// them the 4 rows of the scale.
template <class Basis, class T>
struct ForwardTile {
  static const int INPUTS = 4;
  static const int COLUMNS = 64;
  static const int BLOCKS = COLUMNS / 32;  // a warp takes 32 columns with one load of 4
  static const int STAGES = 4;
  static const int SCALE_ROW = 2 * Chunks<Basis>::SIZE * INPUTS;
  static const int STAGE_ROWS = SCALE_ROW + (Basis::HAS_SCALE ? INPUTS : 0);
  static const int STRIDE = COLUMNS + 32 / sizeof(T);  // 32 bytes more: no bank conflicts
  static const int STAGE_SIZE = STAGE_ROWS * STRIDE;
};

template <class Basis, class T, int THREADS>
__device__ __forceinline__ void load_forward_stage(const Problem& problem, T* tile, int stage,
                                                   int column) {
  typedef ForwardTile<Basis, T> Tile;
  int first_input = stage / Chunks<Basis>::COUNT * Tile::INPUTS;
  int first_function = 2 * Chunks<Basis>::first_pair(stage % Chunks<Basis>::COUNT);
  const T *weight = (const T*)problem.weight, *base = (const T*)problem.base_weight;
  auto row_start = [&](int row) -> const T* {
    long long input = first_input + row % Tile::INPUTS;
    if (Basis::HAS_SCALE && row >= Tile::SCALE_ROW) {
      return input < problem.inputs ? (const T*)problem.scale + input * problem.outputs : nullptr;
    }
    return function_row<Basis>(problem, weight, base, first_function + row / Tile::INPUTS, input);
  };
  copy_tile<Tile::STAGE_ROWS, Tile::COLUMNS, Tile::STRIDE, THREADS>(
      tile, weight, column, problem.outputs, problem.vectorized, row_start);
}

template <class Basis, class T, Precision PRECISION, int TILES>
struct ForwardWarp {
  typedef ForwardTile<Basis, T> Tile;
  float total[TILES][Tile::BLOCKS][4][4];
  Lane lane;

  __device__ __forceinline__ ForwardWarp() {
    KAN_UNROLL for (int m = 0; m < TILES; m++) {
      KAN_UNROLL for (int j = 0; j < Tile::BLOCKS; j++) {
        KAN_UNROLL for (int n = 0; n < 16; n++) total[m][j][n / 4][n % 4] = 0.f;
      }
    }
  }

  // Adds one stage. x[m][r] is the thread's input in row g + 8r of its m-th tile of 16 rows.
  __device__ __forceinline__ void add_stage(const Problem& problem, const T* tile, long long input,
                                            int chunk, const float (&x)[TILES][2]) {
    const int first_pair = Chunks<Basis>::first_pair(chunk);
    Basis phi[TILES][2];
    KAN_UNROLL for (int m = 0; m < TILES; m++) {
      KAN_UNROLL for (int r = 0; r < 2; r++) phi[m][r].start(x[m][r], input, first_pair, problem);
    }
    const T* mine = tile + lane.t * Tile::STRIDE + lane.loaded_column();
    float scale[Tile::BLOCKS][4];
    KAN_UNROLL for (int j = 0; j < Tile::BLOCKS; j++) {
      if (Basis::HAS_SCALE) load4(scale[j], mine + Tile::SCALE_ROW * Tile::STRIDE + 32 * j);
    }

    KAN_NO_UNROLL for (int h = 0; h < Chunks<Basis>::SIZE; h++) {
      if (!Chunks<Basis>::inside(first_pair + h)) break;
      Operand<4> a[TILES];
      KAN_UNROLL for (int m = 0; m < TILES; m++) {
        float v[4] = {phi[m][0].even(), phi[m][1].even(), phi[m][0].odd(), phi[m][1].odd()};
        a[m] = operand<PRECISION>(v);
        phi[m][0].next(), phi[m][1].next();
      }
      KAN_UNROLL for (int j = 0; j < Tile::BLOCKS; j++) {
        float even[4], odd[4];
        load4(even, mine + 2 * h * Tile::INPUTS * Tile::STRIDE + 32 * j);
        load4(odd, mine + (2 * h + 1) * Tile::INPUTS * Tile::STRIDE + 32 * j);
        KAN_UNROLL for (int c = 0; c < 4; c++) {
          if (Basis::HAS_SCALE) {
            even[c] *= is_base<Basis>(2 * (first_pair + h)) ? 1.f : scale[j][c];
            odd[c] *= is_base<Basis>(2 * (first_pair + h) + 1) ? 1.f : scale[j][c];
          }
          float v[2] = {even[c], odd[c]};
          Operand<2> b = operand<PRECISION>(v);
          KAN_UNROLL for (int m = 0; m < TILES; m++) {
            add_product<PRECISION>(total[m][j][c], a[m], b);
          }
        }
      }
    }
  }

  template <class Out>
  __device__ __forceinline__ void store(const Problem& problem, Out* out, const T* bias,
                                        long long first_row, int first_column) {
    KAN_UNROLL for (int j = 0; j < Tile::BLOCKS; j++) {
      KAN_UNROLL for (int side = 0; side < 2; side++) {
        int column = first_column + 32 * j + lane.stored_column(side);
        float add[4] = {0.f, 0.f, 0.f, 0.f};
        if (bias != nullptr) load_columns(add, bias, column, problem.outputs, false);
        KAN_UNROLL for (int m = 0; m < 2 * TILES; m++) {
          long long row = first_row + lane.g + 8 * m;
          if (row >= problem.rows) continue;
          float v[4];
          KAN_UNROLL for (int c = 0; c < 4; c++) {
            v[c] = total[m / 2][j][c][m % 2 * 2 + side] + add[c];
          }
          Out* to = out + row * problem.outputs;
          store_columns(to, column, problem.outputs, problem.vectorized, v);
        }
      }
    }
  }
};

// Grid: (blocks of rows, blocks of columns, splits of K). A block takes WARPS * TILES * 16 rows.
// One split writes y, several write partial sums, which `reduce` adds.
template <class Basis, class T, Precision PRECISION, int WARPS, int TILES>
__global__ void __launch_bounds__(WARPS * 32, TILES == 1 ? 2 : 1) forward(const Problem problem) {
  typedef ForwardTile<Basis, T> Tile;
  const int THREADS = WARPS * 32, CHUNKS = Chunks<Basis>::COUNT;
  DYNAMIC_SHARED(shared);
  T* tiles = (T*)shared;

  int column = blockIdx.y * Tile::COLUMNS;
  int warp = threadIdx.x / 32;
  long long row = ((long long)blockIdx.x * WARPS + warp) * (TILES * 16);
  int all_stages = (problem.inputs + Tile::INPUTS - 1) / Tile::INPUTS * CHUNKS;
  int begin = blockIdx.z * problem.stages_per_split;
  int end = min(all_stages, begin + problem.stages_per_split);

  ForwardWarp<Basis, T, PRECISION, TILES> sum;
  float x[TILES][2];
  auto input_of = [&](int stage) {
    return (long long)(stage / CHUNKS) * Tile::INPUTS + sum.lane.t;
  };
  auto load_inputs = [&](int stage) {
    long long input = input_of(stage);
    KAN_UNROLL for (int m = 0; m < 2 * TILES; m++) {
      x[m / 2][m % 2] = stage < end ? load_x(problem, row + sum.lane.g + 8 * m, input) : 0.f;
    }
  };
  auto load_stage = [&](int stage) {
    T* tile = tiles + (stage - begin) % Tile::STAGES * Tile::STAGE_SIZE;
    if (stage < end) load_forward_stage<Basis, T, THREADS>(problem, tile, stage, column);
    copy_commit();
  };

  for (int ahead = 0; ahead < Tile::STAGES - 1; ahead++) load_stage(begin + ahead);
  load_inputs(begin);
  for (int stage = begin; stage < end; stage++) {
    copy_wait<Tile::STAGES - 2>();
    __syncthreads();  // this stage is there, and the one before it free for the next load
    load_stage(stage + Tile::STAGES - 1);
    float now[TILES][2];
    KAN_UNROLL for (int m = 0; m < 2 * TILES; m++) now[m / 2][m % 2] = x[m / 2][m % 2];
    load_inputs(stage + 1);
    const T* tile = tiles + (stage - begin) % Tile::STAGES * Tile::STAGE_SIZE;
    sum.add_stage(problem, tile, input_of(stage), stage % CHUNKS, now);
  }

  if (problem.splits == 1) {
    sum.store(problem, (T*)problem.y, (const T*)problem.bias, row, column);
  } else {
    float* part = problem.workspace + (long long)blockIdx.z * problem.rows * problem.outputs;
    sum.store(problem, part, (const T*)nullptr, row, column);
  }
}
