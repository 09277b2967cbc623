// The basis of Fourier layers.
#pragma once
#include "angles.cuh"
#include "basis.cuh"

// cos(kx), sin(kx) for k = 1 to G.
template <int G>
struct Fourier : Plain {
  static const int NUM_FUNCTIONS = 2 * G;

  float cos_1, sin_1;  // of x: one step
  float cos_k, sin_k;
  float k;

  __device__ __forceinline__ void start(float x, long long, int pair, const Problem&) {
    // From here neighbouring floats are 2^15 apart and reductions leave no digit: any point of the
    // circle is as good, but NaN where x is infinite.
    const float LAST_ANGLE = 3e11f;
    start_at<false>(fabsf(x) > LAST_ANGLE ? x - x : x, pair);
  }

  template <bool SMALL>
  __device__ __forceinline__ void start_at(float x, int pair) {
    k = (float)(pair + 1);
    sincos_reduced<SMALL>(x, 0.f, sin_1, cos_1);
    sin_k = sin_1, cos_k = cos_1;
    if (pair == 0) return;
    float angle = rounded_product(k, x);
    sincos_reduced<SMALL>(angle, fmaf(k, x, -angle), sin_k, cos_k);
  }

  // By rotation: the error grows by 1e-7 a step, and a chunk has few steps.
  __device__ __forceinline__ void next() {
    float cosine = fmaf(cos_k, cos_1, -sin_k * sin_1);
    sin_k = fmaf(sin_k, cos_1, cos_k * sin_1);
    cos_k = cosine;
    k += 1.f;
  }

  __device__ __forceinline__ float even() const { return cos_k; }
  __device__ __forceinline__ float odd() const { return sin_k; }
  __device__ __forceinline__ float even_slope() const { return -k * sin_k; }
  __device__ __forceinline__ float odd_slope() const { return k * cos_k; }
};
