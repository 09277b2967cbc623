// The basis of spline layers.
#pragma once
#include "basis.cuh"

// The G + ORDER B-splines of a uniform grid of G intervals, extended by ORDER knots on either
// side. Constants: the middle of the grid, and knots in a unit. Only ORDER + 1 neighbours differ
// from zero; `values` and `slopes` hold them in whole pairs, zero around them.
template <int G, int ORDER>
struct BSpline : Plain {
  static const int NUM_FUNCTIONS = G + ORDER;
  static const int SLOTS = (ORDER + 1) / 2 + 1;  // pairs that ORDER + 1 neighbours can touch

  float values[2 * SLOTS], slopes[2 * SLOTS];
  int first;  // the pair of values[0]
  int current;

  __device__ __forceinline__ void start(float x, long long, int pair, const Problem& problem) {
    current = pair;
    float cell, u;
    locate(x, problem, cell, u);
    bool inside = cell >= 0.f && cell < (float)(G + 2 * ORDER);  // false for NaN
    // The splines that are not zero are cell - ORDER to cell.
    int function = (inside ? (int)cell : 0) - ORDER;
    first = inside ? function >> 1 : NUM_FUNCTIONS + 2;  // no pair comes so far
    fill(u, (function & 1) != 0, problem.constants[1].high);
  }

  __device__ __forceinline__ void next() { current++; }
  __device__ __forceinline__ float even() const { return pick(values, 0); }
  __device__ __forceinline__ float odd() const { return pick(values, 1); }
  __device__ __forceinline__ float even_slope() const { return pick(slopes, 0); }
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

  // The knot interval `cell` that holds x, counted from the first knot, and x's place u in it,
  // 0 to 1. x is measured from the middle of the grid, in two floats, so that u keeps its
  // accuracy on fine grids.
  static __device__ __forceinline__ void locate(float x, const Problem& problem, float& cell,
                                                float& u) {
    const float MIDDLE = 0.5f * G + ORDER;
    const Constant &center = problem.constants[0], &inverse_step = problem.constants[1];
    float distance = x - center.high;
    float back = distance - x;
    float distance_low = (x - (distance - back)) - (center.high + back) - center.low;
    float place = rounded_product(distance, inverse_step.high);
    float place_low = fmaf(distance, inverse_step.high, -place);
    place_low += distance_low * inverse_step.high + distance * inverse_step.low;
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
