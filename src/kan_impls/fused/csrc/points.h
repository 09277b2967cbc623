// A basis of bases.cuh at many points, which a compiler turns into vectors of points.
#pragma once
#include "ranges.h"

// What is read and written for some points of the same input; function f is `f * stride` further.
struct Points {
  const float* x;
  i64 count, input;
  float* values;         // written
  float* slopes;         // written
  i64 stride;            // of values and slopes
  const float* grads;    // by the values, which may take their place
  i64 grad_stride, step; // of grads; from point to point: 0 or 1
  float* grad_x;         // added to
  float* grad_params;    // added to: what each point contributes

  static constexpr i64 MOST_WITH_PARAMS = 64;  // points, of which grad_params holds so many numbers
};

// What is asked for; the rest may be null.
enum What { VALUES = 1, SLOPES = 2, GRAD = 4, PARAMS = 8 };

// Whether the struct makes a number of NaN, which the functions do not.
template <class B>
struct HidesNan {
  static const bool VALUE = false;
};
template <int G, int ORDER>
struct HidesNan<BSpline<G, ORDER>> {
  static const bool VALUE = true;
};

template <class B, int WHAT, int STEP, int COUNT>
static __forceinline__ void evaluate_chunk(const Problem& problem, const Points& points, int pair) {
  const float* x = points.x;
  const i64 first = 2 * pair, stride = points.stride, grad_stride = points.grad_stride;
  float* values = points.values + (WHAT & VALUES ? first * stride : 0);
  float* slopes = points.slopes + (WHAT & SLOPES ? first * stride : 0);
  const float* grads = points.grads + (WHAT & (GRAD | PARAMS) ? first * grad_stride : 0);
  float *grad_x = points.grad_x, *grad_params = points.grad_params;
  const i64 input = points.input;
#pragma GCC ivdep
  for (i64 n = 0; n < points.count; n++) {
    const float poison = HidesNan<B>::VALUE && x[n] != x[n] ? x[n] : 0.f;
    B basis;
    basis.start(x[n], input, pair, problem);
    float sum = poison;
    KAN_UNROLL for (int f = 0; f < COUNT; f += 2) {
      const bool both = f + 1 < COUNT;
      if (WHAT & SLOPES) {
        slopes[f * stride + n] = basis.even_slope() + poison;
        if (both) slopes[(f + 1) * stride + n] = basis.odd_slope() + poison;
      }
      if (WHAT & GRAD) {
        sum = fmaf(basis.even_slope(), grads[f * grad_stride + STEP * n], sum);
        if (both) sum = fmaf(basis.odd_slope(), grads[(f + 1) * grad_stride + STEP * n], sum);
      }
      if constexpr ((WHAT & PARAMS) != 0) {
        const float even = grads[f * grad_stride + STEP * n];
        const float odd = both ? grads[(f + 1) * grad_stride + STEP * n] : 0.f;
        basis.param_grads(even, odd, [&](int number, float value) {
          grad_params[number * Points::MOST_WITH_PARAMS + n] += value;
        });
      }
      if (WHAT & VALUES) {
        values[f * stride + n] = basis.even() + poison;
        if (both) values[(f + 1) * stride + n] = basis.odd() + poison;
      }
      basis.next();
    }
    if (WHAT & GRAD) grad_x[n] += sum;
  }
}

template <class B, int WHAT, int STEP>
static void evaluate_near(const Problem& problem, const Points& points) {
  typedef Chunks<B> Parts;
  const int LAST = Parts::COUNT - 1, REST = B::NUM_FUNCTIONS - 2 * LAST * Parts::SIZE;
  for (int chunk = 0; chunk < LAST; chunk++) {
    evaluate_chunk<B, WHAT, STEP, 2 * Parts::SIZE>(problem, points, Parts::first_pair(chunk));
  }
  evaluate_chunk<B, WHAT, STEP, REST>(problem, points, Parts::first_pair(LAST));
}

template <class B, int WHAT, int STEP>
static void evaluate_far(const Problem& problem, const Points& points, i64 n) {
  for (int f = 0; f < B::NUM_FUNCTIONS; f++) {
    float value, slope;
    Far<B>::at(problem, points.x[n], points.input, f, value, slope);
    const float grad = WHAT & (GRAD | PARAMS) ? points.grads[f * points.grad_stride + STEP * n] : 0.f;
    if (WHAT & VALUES) points.values[f * points.stride + n] = value;
    if (WHAT & SLOPES) points.slopes[f * points.stride + n] = slope;
    if (WHAT & GRAD) points.grad_x[n] += slope * grad;
    if constexpr ((WHAT & PARAMS) != 0) {
      Far<B>::param_grads(problem, points.x[n], points.input, f, grad, [&](int number, float by) {
        points.grad_params[number * Points::MOST_WITH_PARAMS + n] += by;
      });
    }
  }
}

// All points: those that are small, near and far, as ranges.h has it.
template <class B, int WHAT, int STEP = 1>
static void evaluate(const Problem& problem, Points points) {
  if (Small<B>::are(points.x, points.count)) {
    return evaluate_near<typename Small<B>::Type, WHAT, STEP>(problem, points);
  }
  if (!any_is_far<B>(points.x, points.count)) {
    return evaluate_near<B, WHAT, STEP>(problem, points);
  }
  for (i64 start = 0, n = 0, end = points.count; n <= end; n++) {  // runs of near points
    if (n < end && !is_far<B>(points.x[n])) continue;
    Points near = points;
    near.x += start, near.values += start, near.slopes += start, near.count = n - start;
    near.grads += STEP * start, near.grad_x += start, near.grad_params += start;
    evaluate_near<B, WHAT, STEP>(problem, near);
    if (n < end) evaluate_far<B, WHAT, STEP>(problem, points, n);
    start = n + 1;
  }
}
