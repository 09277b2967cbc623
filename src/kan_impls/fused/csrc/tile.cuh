// Copies of tiles into shared memory, ahead of their use.
#pragma once
#include "problem.cuh"

__device__ __forceinline__ void copy_element(float* to, const float* from, bool valid) {
  copy_async<4>(to, from, valid);
}

__device__ __forceinline__ void copy_element(bfloat16* to, const bfloat16* from, bool valid) {
  bfloat16 zero = {0};  // cp.async has no copy of two bytes: this one is there at the next barrier
  *to = valid ? *from : zero;
}

// Copies COLUMNS columns from `column` on of ROWS rows, zeros past the last column and where
// `row_start(row)` is null. `readable` is any valid address.
template <int ROWS, int COLUMNS, int STRIDE, int THREADS, class T, class RowStart>
__device__ __forceinline__ void copy_tile(T* tile, const T* readable, int column, int columns,
                                          bool vectorized, RowStart row_start) {
  if (vectorized) {
    const int VECTOR = 16 / sizeof(T), PER_ROW = COLUMNS / VECTOR;
    KAN_NO_UNROLL for (int n = threadIdx.x; n < ROWS * PER_ROW; n += THREADS) {
      int row = n / PER_ROW, offset = n % PER_ROW * VECTOR;
      const T* from = row_start(row);
      bool valid = from != nullptr && column + offset < columns;
      if (valid) from += column + offset;
      copy_async<16>(tile + row * STRIDE + offset, valid ? from : readable, valid);
    }
  } else {
    KAN_NO_UNROLL for (int n = threadIdx.x; n < ROWS * COLUMNS; n += THREADS) {
      int row = n / COLUMNS, offset = n % COLUMNS;
      const T* from = row_start(row);
      bool valid = from != nullptr && column + offset < columns;
      if (valid) from += column + offset;
      copy_element(tile + row * STRIDE + offset, valid ? from : readable, valid);
    }
  }
}

// Where a loop over chunks, and within each over tiles, has arrived, and its stage of the pipeline.
template <int STAGES>
struct Cursor {
  int chunk, tile, stage;
  __device__ __forceinline__ void advance(int tiles) {
    if (++tile == tiles) tile = 0, chunk++;
    if (++stage == STAGES) stage = 0;
  }
};
