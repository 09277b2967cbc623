// The basis of one quotient of polynomials.
#pragma once
#include "basis.cuh"

// P(x) / Q(x), P(x) = a_0 + ... + a_5 x^5 with the a that are params0, and
// Q(x) = 1 + |b_1 x| + ... + |b_4 x^4| with the b that are params1. Beyond 1 both are polynomials
// of t = 1/x, so that no power overflows.
struct Rational : Plain {
  static const int P_ORDER = 5, Q_ORDER = 4;
  static const int NUM_FUNCTIONS = 1;
  static const int NUM_PARAMS = P_ORDER + 1 + Q_ORDER;

  const float *numerator, *denominator;
  bool is_far;
  float factor, t, above, below;  // the value is factor above / below

  __device__ __forceinline__ void start(float x, long long input, int, const Problem& problem) {
    numerator = param_row<0, P_ORDER + 1>(problem, input);
    denominator = param_row<1, Q_ORDER>(problem, input);
    is_far = fabsf(x) > 1.f;
    factor = is_far ? x : 1.f, t = is_far ? 1.f / x : x;
    above = p(P_ORDER), below = q(Q_ORDER);
    KAN_UNROLL for (int j = P_ORDER - 1; j >= 0; j--) above = fmaf(above, t, p(j));
    KAN_UNROLL for (int j = Q_ORDER - 1; j >= 0; j--) below = fmaf(below, fabsf(t), q(j));
  }
  __device__ __forceinline__ void next() {}

  __device__ __forceinline__ float even() const { return factor * above / below; }
  __device__ __forceinline__ float odd() const { return 0.f; }
  __device__ __forceinline__ float even_slope() const {
    float by_p = P_ORDER * p(P_ORDER), by_q = Q_ORDER * q(Q_ORDER), ratio = above / below;
    KAN_UNROLL for (int j = P_ORDER - 1; j > 0; j--) by_p = fmaf(by_p, t, j * p(j));
    KAN_UNROLL for (int j = Q_ORDER - 1; j > 0; j--) by_q = fmaf(by_q, fabsf(t), j * q(j));
    by_q *= t > 0.f ? 1.f : t < 0.f ? -1.f : 0.f;  // |t| has no slope at 0
    float by_t = (by_p - ratio * by_q) / below;
    return is_far ? fmaf(-t, by_t, ratio) : by_t;
  }
  __device__ __forceinline__ float odd_slope() const { return 0.f; }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float, Add add) const {
    float by_a = even * factor / below, by_b = -even * this->even() / below;
    KAN_UNROLL for (int j = 0; j <= P_ORDER; j++) add(j, by_a * power(P_ORDER, j, t));
    KAN_UNROLL for (int j = 1; j <= Q_ORDER; j++) {
      float b = denominator[j - 1], sign = b > 0.f ? 1.f : b < 0.f ? -1.f : 0.f;
      add(P_ORDER + j, sign * by_b * power(Q_ORDER, j, fabsf(t)));
    }
  }

 private:
  // The coefficients of the powers of t: both are read, as they are the same for all points.
  __device__ __forceinline__ float p(int j) const {
    float near = numerator[j], far = numerator[P_ORDER - j];
    return is_far ? far : near;
  }
  __device__ __forceinline__ float q(int j) const {
    float near = q_of(j), far = q_of(Q_ORDER - j);
    return is_far ? far : near;
  }
  __device__ __forceinline__ float q_of(int power) const {
    return power == 0 ? 1.f : fabsf(denominator[power - 1]);
  }
  // x^j, over x^order beyond 1.
  __device__ __forceinline__ float power(int order, int j, float base) const {
    float result = 1.f;
    KAN_UNROLL for (int n = 0; n < order; n++) result *= n < (is_far ? order - j : j) ? base : 1.f;
    return result;
  }
};
