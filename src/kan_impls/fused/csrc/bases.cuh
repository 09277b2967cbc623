// Bases: each a struct that starts at a pair of functions of one x and steps to the next pair.
//
//   NUM_FUNCTIONS            all functions; pair h holds functions 2h (even) and 2h + 1 (odd)
//   HAS_BASE                 function 0 is SiLU, whose weights are `base` and take no scale
//   start(x, pair, problem)  goes to a pair, with full accuracy
//   next()                   steps to the next pair
//   even(), odd()            the values of the pair
//   even_slope(), odd_slope()   their derivatives by x
//
// Where the number of functions is odd, the last odd value is arbitrary but finite for finite
// x: its weights read as zero.
#pragma once
#include "problem.cuh"

// A pipeline stage holds at most MAX_PAIRS pairs, which bounds shared memory and registers for
// any number of functions; every chunk of a long basis has about the same length.
template <class Basis, int MAX_PAIRS = 8>
struct Chunks {
  static const int PAIRS = (Basis::NUM_FUNCTIONS + 1) / 2;
  static const int COUNT = (PAIRS + MAX_PAIRS - 1) / MAX_PAIRS;
  static const int SIZE = (PAIRS + COUNT - 1) / COUNT;

  // A constant where there is one chunk, so that the steps of the basis fold.
  static __device__ __forceinline__ int first_pair(int chunk) {
    return COUNT == 1 ? 0 : chunk * SIZE;
  }
  static __device__ __forceinline__ bool inside(int pair) {
    return COUNT * SIZE == PAIRS || pair < PAIRS;
  }
};

// The weights of one function and input: a row of outputs; null outside the layer.
template <class Basis, class T>
__device__ __forceinline__ T* function_row(const Problem& problem, T* weight, T* base, int function,
                                           long long input) {
  if (function >= Basis::NUM_FUNCTIONS || input >= problem.inputs) return nullptr;
  if (Basis::HAS_BASE && function == 0) return base + input * problem.outputs;
  long long row = (long long)(function - (Basis::HAS_BASE ? 1 : 0)) * problem.inputs + input;
  return weight + row * problem.outputs;
}

// a * b rounded once. A plain product could be fused into the sum that uses it, and its
// rounding error, computed apart, would then count twice.
__device__ __forceinline__ float rounded_product(float a, float b) { return fmaf(a, b, 0.f); }

// sin and cos of angle + angle_low to 1e-7 up to |angle| = 1e8. From there the error grows in
// proportion to the angle, up to some point of the circle. angle_low is below half a unit in the last place of angle.
__device__ __forceinline__ void sincos_reduced(float angle, float angle_low, float& sine,
                                               float& cosine) {
  const float TWO_OVER_PI = 0.636619772f;
  // pi/2 in three parts: the first is a multiple of 2^-23, so that its difference is exact.
  const float HALF_PI_0 = 1.57079601e+00f, HALF_PI_1 = 3.13916473e-07f, HALF_PI_2 = 5.39030253e-15f;
  float turns = rintf(angle * TWO_OVER_PI);
  float r = fmaf(turns, -HALF_PI_0, angle);
  r = fmaf(turns, -HALF_PI_1, r);
  r = fmaf(turns, -HALF_PI_2, r) + angle_low;
  // `turns` is off by some units for a large angle: reduce what remains once more.
  float more = rintf(r * TWO_OVER_PI);
  r = fmaf(more, -HALF_PI_0, r);
  r = fmaf(more, -HALF_PI_1, r);
  float rest = turns - 4.f * floorf(0.25f * turns) + more;  // exact; its residue mod 4 counts
  rest -= 4.f * floorf(0.25f * rest);

  float z = r * r;
  float odd = fmaf(fmaf(2.86567956e-6f, z, -1.98559923e-4f), z, 8.33338592e-3f);
  odd = fmaf(odd, z, -1.66666672e-1f);
  odd = fmaf(odd * z, r, r);  // sin r for |r| <= pi/4
  float even = fmaf(fmaf(2.44677067e-5f, z, -1.38877297e-3f), z, 4.16666567e-2f);
  even = fmaf(fmaf(even, z, -5.00000000e-1f), z, 1.f);  // cos r
  bool swapped = rest == 1.f || rest == 3.f;
  sine = swapped ? even : odd;
  cosine = swapped ? odd : even;
  sine = rest >= 2.f ? -sine : sine;
  cosine = rest == 1.f || rest == 2.f ? -cosine : cosine;
}

// cos(kx), sin(kx) for k = 1 to G.
template <int G>
struct Fourier {
  static const int NUM_FUNCTIONS = 2 * G;
  static const bool HAS_BASE = false;

  float cos_1, sin_1;  // of x: one step
  float cos_k, sin_k;
  float k;

  __device__ __forceinline__ void start(float x, int pair, const Problem&) {
    k = (float)(pair + 1);
    // From here neighbouring floats are 2^15 apart and reductions leave no digit: any point of the
    // circle is as good, but NaN where x is infinite.
    const float LAST_ANGLE = 3e11f;
    x = fabsf(x) > LAST_ANGLE ? x - x : x;
    sincos_reduced(x, 0.f, sin_1, cos_1);
    sin_k = sin_1, cos_k = cos_1;
    if (pair == 0) return;
    float angle = rounded_product(k, x);
    sincos_reduced(angle, fmaf(k, x, -angle), sin_k, cos_k);
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

// SiLU, then the G + ORDER B-splines of a uniform grid of G intervals, extended by ORDER knots
// on either side. Only ORDER + 1 neighbours differ from zero; `values` and `slopes` hold them in
// whole pairs, zero around them.
template <int G, int ORDER>
struct BSpline {
  static const int NUM_FUNCTIONS = 1 + G + ORDER;
  static const bool HAS_BASE = true;
  static const int SLOTS = (ORDER + 1) / 2 + 1;  // pairs that ORDER + 1 neighbours can touch

  float values[2 * SLOTS], slopes[2 * SLOTS];
  float silu, silu_slope;
  int first;  // the pair of values[0]
  int current;

  __device__ __forceinline__ void start(float x, int pair, const Problem& problem) {
    current = pair;
    silu = silu_slope = 0.f;
    if (pair == 0) start_silu(x);

    float cell, u;
    locate(x, problem, cell, u);
    bool inside = cell >= 0.f && cell < (float)(G + 2 * ORDER);  // false for NaN
    // The splines that are not zero are cell - ORDER to cell; SiLU moves them up by one.
    int function = (inside ? (int)cell : 0) - ORDER + 1;
    first = inside ? function >> 1 : NUM_FUNCTIONS;
    fill(u, (function & 1) != 0, problem.inverse_step);
  }

  __device__ __forceinline__ void next() { current++; }
  __device__ __forceinline__ float even() const { return current == 0 ? silu : pick(values, 0); }
  __device__ __forceinline__ float odd() const { return pick(values, 1); }
  __device__ __forceinline__ float even_slope() const {
    return current == 0 ? silu_slope : pick(slopes, 0);
  }
  __device__ __forceinline__ float odd_slope() const { return pick(slopes, 1); }

 private:
  __device__ __forceinline__ float pick(const float (&window)[2 * SLOTS], int parity) const {
    float value = 0.f;
    KAN_UNROLL for (int slot = 0; slot < SLOTS; slot++) {
      float candidate = window[2 * slot + parity];
      value = current - first == slot ? candidate : value;
    }
    return value;
  }

  __device__ __forceinline__ void start_silu(float x) {
    float sigmoid = __fdividef(1.f, 1.f + expf(-x));
    silu = x * sigmoid;
    silu_slope = sigmoid * fmaf(x, 1.f - sigmoid, 1.f);
  }

  // The knot interval `cell` that holds x, counted from the first knot, and x's place u in it,
  // 0 to 1. x is measured from the middle of the grid, in two floats, so that u keeps its
  // accuracy on fine grids.
  static __device__ __forceinline__ void locate(float x, const Problem& problem, float& cell,
                                                float& u) {
    const float MIDDLE = 0.5f * G + ORDER;
    float distance = x - problem.center;
    float back = distance - x;
    float distance_low = (x - (distance - back)) - (problem.center + back) - problem.center_low;
    float place = rounded_product(distance, problem.inverse_step);
    float place_low = fmaf(distance, problem.inverse_step, -place);
    place_low += distance_low * problem.inverse_step + distance * problem.inverse_step_low;
    cell = floorf(place + MIDDLE);
    u = (place - (cell - MIDDLE)) + place_low;
    float shift = floorf(u);  // -1 or 1 where the rounding crossed a knot
    cell += shift;
    u -= shift;
  }

  // The recurrence of Cox and de Boor on unit intervals: sums of positive terms.
  __device__ __forceinline__ void fill(float u, bool odd_start, float inverse_step) {
    float spline[ORDER + 1], slope[ORDER + 1];
    spline[0] = 1.f;
    KAN_UNROLL for (int degree = 1; degree <= ORDER; degree++) {
      if (degree == ORDER) {  // the derivative is a difference of splines of one degree less
        KAN_UNROLL for (int n = 0; n <= ORDER; n++) {
          slope[n] = (n > 0 ? spline[n - 1] : 0.f) - (n < ORDER ? spline[n] : 0.f);
        }
      }
      float rising = 0.f;
      KAN_UNROLL for (int n = 0; n < degree; n++) {
        float part = spline[n] * (1.f / degree);
        spline[n] = fmaf((float)(n + 1) - u, part, rising);
        rising = (u + (float)(degree - 1 - n)) * part;
      }
      spline[degree] = rising;
    }
    KAN_UNROLL for (int n = 0; n < 2 * SLOTS; n++) {
      bool here = n <= ORDER, before = n > 0 && n <= ORDER + 1;
      float value_here = here ? spline[n] : 0.f, value_before = before ? spline[n - 1] : 0.f;
      float slope_here = here ? slope[n] : 0.f, slope_before = before ? slope[n - 1] : 0.f;
      values[n] = odd_start ? value_before : value_here;
      slopes[n] = (odd_start ? slope_before : slope_here) * inverse_step;
    }
  }
};
