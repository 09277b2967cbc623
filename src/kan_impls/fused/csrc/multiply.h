// A matrix product of few registers' size, for CPUs: y += phi^T panel.
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

// y[r][o] += sum over k of phi[k][r] panel[k][o], of `ROWS` rows and `TILE_OUTPUTS` outputs.
template <int ROWS>
static __attribute__((noinline)) void multiply_tile(const float* phi, const float* panel, i64 depth,
                                                    float* y, i64 y_stride) {
  // From zero, and not from y: sums of sums round less than one long sum.
  Vector sums[ROWS][2];
  KAN_UNROLL for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = Vector::of(0.f);
  for (i64 k = 0; k < depth; k++) {
    const Vector left = Vector::load(panel), right = Vector::load(panel + Vector::SIZE);
    KAN_UNROLL for (int r = 0; r < ROWS; r++) {
      const Vector factor = Vector::of(phi[r]);
      sums[r][0].add_product(factor, left);
      sums[r][1].add_product(factor, right);
    }
    phi += TILE_ROWS, panel += TILE_OUTPUTS;
  }
  const Vector one = Vector::of(1.f);
  KAN_UNROLL for (int r = 0; r < ROWS; r++) {
    KAN_UNROLL for (int half = 0; half < 2; half++) {
      float* to = y + r * y_stride + half * Vector::SIZE;
      Vector total = Vector::load(to);
      total.add_product(sums[r][half], one);
      total.store(to);
    }
  }
}

template <int ROWS = TILE_ROWS>
static void multiply_rows(int rows, const float* phi, const float* panel, i64 depth, float* y,
                          i64 y_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) return multiply_tile<ROWS>(phi, panel, depth, y, y_stride);
    multiply_rows<ROWS - 1>(rows, phi, panel, depth, y, y_stride);
  }
}

// The same for any number of rows and up to `TILE_OUTPUTS` outputs.
static void multiply(i64 rows, i64 outputs, const float* phi, const float* panel, i64 depth,
                     float* y, i64 y_stride) {
  for (i64 r = 0; r < rows; r += TILE_ROWS, phi += depth * TILE_ROWS) {
    const int count = (int)std::min<i64>(TILE_ROWS, rows - r);
    float* own = y + r * y_stride;
    if (outputs == TILE_OUTPUTS) {
      multiply_rows(count, phi, panel, depth, own, y_stride);
      continue;
    }
    float edge[TILE_ROWS * TILE_OUTPUTS] = {};
    multiply_rows(count, phi, panel, depth, edge, TILE_OUTPUTS);
    for (int e = 0; e < count; e++) {
      for (i64 o = 0; o < outputs; o++) own[e * y_stride + o] += edge[e * TILE_OUTPUTS + o];
    }
  }
}
