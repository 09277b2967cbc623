// All bases, and what surrounds one: SiLU as its last function, and a scale.
#pragma once
#include "bspline.cuh"
#include "bumps.cuh"
#include "fourier.cuh"
#include "polynomials.cuh"
#include "rational.cuh"
#include "sines.cuh"

// SiLU(x) = x sigmoid(x).
struct Silu : Plain {
  static const int NUM_FUNCTIONS = 1;

  float value, slope;

  __device__ __forceinline__ void start(float x, long long, int, const Problem&) {
    float sigmoid = __fdividef(1.f, 1.f + expf(-x));
    value = x * sigmoid;
    slope = sigmoid * fmaf(x, 1.f - sigmoid, 1.f);
  }
  __device__ __forceinline__ void next() {}
  __device__ __forceinline__ float even() const { return value; }
  __device__ __forceinline__ float odd() const { return 0.f; }
  __device__ __forceinline__ float even_slope() const { return slope; }
  __device__ __forceinline__ float odd_slope() const { return 0.f; }
};

// The functions of a basis, and SiLU as the last one.
template <class Basis>
struct WithSilu : Basis {
  static const bool HAS_BASE = true;
  static const int NUM_FUNCTIONS = Basis::NUM_FUNCTIONS + 1;
  static const int LAST_PAIR = Basis::NUM_FUNCTIONS / 2, PARITY = Basis::NUM_FUNCTIONS % 2;

  Silu silu;
  int at;  // the pair

  __device__ __forceinline__ void start(float x, long long input, int pair,
                                        const Problem& problem) {
    Basis::start(x, input, pair, problem);
    at = pair;
    silu.value = silu.slope = 0.f;
    if (LAST_PAIR < pair + MAX_CHUNK) silu.start(x, input, pair, problem);
  }
  __device__ __forceinline__ void next() { Basis::next(), at++; }

  __device__ __forceinline__ float even() const { return is_silu(0) ? silu.value : Basis::even(); }
  __device__ __forceinline__ float odd() const { return is_silu(1) ? silu.value : Basis::odd(); }
  __device__ __forceinline__ float even_slope() const {
    return is_silu(0) ? silu.slope : Basis::even_slope();
  }
  __device__ __forceinline__ float odd_slope() const {
    return is_silu(1) ? silu.slope : Basis::odd_slope();
  }

 private:
  __device__ __forceinline__ bool is_silu(int parity) const {
    return PARITY == parity && at == LAST_PAIR;
  }
};

// A basis, with or without SiLU, whose weights take a scale.
template <class Basis>
struct Scaled : Basis {
  static const bool HAS_SCALE = true;
};
