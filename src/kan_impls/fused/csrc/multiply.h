// A matrix product of few registers' size, for CPUs.
#pragma once
#include "points.h"

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

// A vector of floats, in a register.
#if defined(__AVX512F__)
struct Vector {
  static const int SIZE = 16;
  __m512 v;
  static __forceinline__ Vector load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static __forceinline__ Vector of(float x) { return {_mm512_set1_ps(x)}; }
  __forceinline__ void store(float* p) const { _mm512_storeu_ps(p, v); }
  __forceinline__ void add_product(Vector a, Vector b) { v = _mm512_fmadd_ps(a.v, b.v, v); }
};
const int TILE_ROWS = 12;  // with two vectors of outputs 24 sums, of 32 registers
#elif defined(__AVX__)
struct Vector {
  static const int SIZE = 8;
  __m256 v;
  static __forceinline__ Vector load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static __forceinline__ Vector of(float x) { return {_mm256_set1_ps(x)}; }
  __forceinline__ void store(float* p) const { _mm256_storeu_ps(p, v); }
  __forceinline__ void add_product(Vector a, Vector b) { v = _mm256_fmadd_ps(a.v, b.v, v); }
};
const int TILE_ROWS = 6;  // 12 sums, of 16 registers
#else
struct Vector {
  static const int SIZE = 4;
  float v[SIZE];
  static __forceinline__ Vector load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static __forceinline__ Vector of(float x) { return {{x, x, x, x}}; }
  __forceinline__ void store(float* p) const { memcpy(p, v, sizeof v); }
  __forceinline__ void add_product(Vector a, Vector b) {
    for (int n = 0; n < SIZE; n++) v[n] = fmaf(a.v[n], b.v[n], v[n]);
  }
};
const int TILE_ROWS = 6;
#endif

const int TILE_OUTPUTS = 2 * Vector::SIZE;

// Where the left factor of a product has term k of row r: at `k * STEP + r * ROW`.
struct Interleaved {  // the rows of a tile side by side, which `TILE_ROWS` take even if they are fewer
  static const int STEP = TILE_ROWS, ROW = 1;
};

// y[r][o] += sum over k of left[k, r] panel[k][o], of `ROWS` rows and `VECTORS` vectors of outputs; a
// row of the panel has `TILE_OUTPUTS`.
template <class Left, int VECTORS, int ROWS>
static __attribute__((noinline)) void multiply_tile(const float* left, const float* panel,
                                                    i64 depth, float* y, i64 y_stride) {
  // From zero, and not from y: sums of sums round less than one long sum.
  Vector sums[ROWS][VECTORS];
  KAN_UNROLL for (int r = 0; r < ROWS; r++) {
    KAN_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v] = Vector::of(0.f);
  }
  for (i64 k = 0; k < depth; k++) {
    Vector right[VECTORS];
    KAN_UNROLL for (int v = 0; v < VECTORS; v++) right[v] = Vector::load(panel + v * Vector::SIZE);
    KAN_UNROLL for (int r = 0; r < ROWS; r++) {
      const Vector factor = Vector::of(left[r * Left::ROW]);
      KAN_UNROLL for (int v = 0; v < VECTORS; v++) sums[r][v].add_product(factor, right[v]);
    }
    left += Left::STEP, panel += TILE_OUTPUTS;
  }
  const Vector one = Vector::of(1.f);
  KAN_UNROLL for (int r = 0; r < ROWS; r++) {
    KAN_UNROLL for (int v = 0; v < VECTORS; v++) {
      float* to = y + r * y_stride + v * Vector::SIZE;
      Vector total = Vector::load(to);
      total.add_product(sums[r][v], one);
      total.store(to);
    }
  }
}

// The same for up to `TILE_ROWS` rows.
template <class Left, int VECTORS = 2, int ROWS = TILE_ROWS>
static void multiply(int rows, const float* left, const float* panel, i64 depth, float* y,
                     i64 y_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) return multiply_tile<Left, VECTORS, ROWS>(left, panel, depth, y, y_stride);
    multiply<Left, VECTORS, ROWS - 1>(rows, left, panel, depth, y, y_stride);
  }
}

// The same for up to `TILE_OUTPUTS` outputs, too.
static void multiply_edge(int rows, i64 outputs, const float* left, const float* panel, i64 depth,
                          float* y, i64 y_stride) {
  if (outputs == TILE_OUTPUTS) return multiply<Interleaved>(rows, left, panel, depth, y, y_stride);
  float edge[TILE_ROWS * TILE_OUTPUTS] = {};
  multiply<Interleaved>(rows, left, panel, depth, edge, TILE_OUTPUTS);
  for (int r = 0; r < rows; r++) {
    for (i64 o = 0; o < outputs; o++) y[r * y_stride + o] += edge[r * TILE_OUTPUTS + o];
  }
}
