// Polynomials of tanh x, by recurrence.
#pragma once
#include "basis.cuh"

__device__ __forceinline__ float sech(float x) {
  float decay = expf(-fabsf(x));
  return __fdividef(2.f * decay, fmaf(decay, decay, 1.f));
}

// T_k(tanh x) = cos(k a) for k = 0 to D, where cos a = tanh x and sin a = sech x.
template <int D>
struct Chebyshev : Plain {
  static const int NUM_FUNCTIONS = D + 1;

  float cos_1, sin_1, cos_2, sin_2;  // of one and of two steps
  float cos_k, sin_k;                // of the even function
  float k;

  __device__ __forceinline__ void start(float x, long long, int pair, const Problem&) {
    cos_1 = tanhf(x), sin_1 = sech(x);
    cos_2 = fmaf(-2.f * sin_1, sin_1, 1.f), sin_2 = 2.f * sin_1 * cos_1;
    cos_k = 1.f, sin_k = 0.f, k = 0.f;
    for (int h = 0; h < pair; h++) next();
  }
  __device__ __forceinline__ void next() {
    float cosine = fmaf(cos_k, cos_2, -sin_k * sin_2);
    sin_k = fmaf(sin_k, cos_2, cos_k * sin_2), cos_k = cosine;
    k += 2.f;
  }
  __device__ __forceinline__ float even() const { return cos_k; }
  __device__ __forceinline__ float odd() const { return fmaf(cos_k, cos_1, -sin_k * sin_1); }
  __device__ __forceinline__ float even_slope() const { return k * sin_k * sin_1; }
  __device__ __forceinline__ float odd_slope() const {
    return (k + 1.f) * fmaf(sin_k, cos_1, cos_k * sin_1) * sin_1;
  }
};

// The Jacobi polynomials of degree 0 to D of tanh x, with the exponents A2 / 2 and B2 / 2. What the
// steps multiply with are constants where there is one chunk.
template <int D, int A2, int B2>
struct Jacobi : Plain {
  static const int NUM_FUNCTIONS = D + 1;

  float t, rate;  // tanh x, and its derivative
  float value[2], slope[2];  // of the pair, slopes by t
  int current;

  __device__ __forceinline__ void start(float x, long long, int pair, const Problem&) {
    const float A = 0.5f * A2, B = 0.5f * B2;
    t = tanhf(x), rate = sech(x), rate *= rate;
    value[0] = 1.f, slope[0] = 0.f;
    slope[1] = 0.5f * (A + B) + 1.f, value[1] = fmaf(slope[1], t, 0.5f * (A - B));
    current = 0;
    for (int h = 0; h < pair; h++) next();
  }
  __device__ __forceinline__ void next() {
    current++;
    step(2 * current, value[1], slope[1], value[0], slope[0]);
    step(2 * current + 1, value[0], slope[0], value[1], slope[1]);
  }
  __device__ __forceinline__ float even() const { return value[0]; }
  __device__ __forceinline__ float odd() const { return value[1]; }
  __device__ __forceinline__ float even_slope() const { return slope[0] * rate; }
  __device__ __forceinline__ float odd_slope() const { return slope[1] * rate; }

 private:
  // From degree n - 1 to degree n, which takes the place of n - 2.
  __device__ __forceinline__ void step(int n, float last, float last_slope, float& p,
                                       float& p_slope) const {
    const float A = 0.5f * A2, B = 0.5f * B2;
    float total = 2.f * n + A + B, least = 2.f * n * (n + A + B), less = total - 2.f;
    float scale = total * (total - 1.f) / least;
    float shift = (total - 1.f) * (A * A - B * B) / (least * less);
    float back = 2.f * (n + A - 1.f) * (n + B - 1.f) * total / (least * less);
    float factor = fmaf(scale, t, shift);
    p_slope = fmaf(factor, last_slope, fmaf(scale, last, -back * p_slope));
    p = fmaf(factor, last, -back * p);
  }
};

// P_k(t) = t P_(k-1)(t) - c_k w_(k-1) P_(k-2)(t) for k = 0 to D, where t = tanh x; the weights w are
// params0.
template <int D>
struct Gram : Plain {
  static const int NUM_FUNCTIONS = D + 1;
  static const int NUM_PARAMS = D + 1;

  const float* weights;
  float t, rate;             // tanh x, and its derivative
  float value[2], slope[2];  // of the pair, slopes by t
  float by_weight[2][D + 1];
  int current;

  __device__ __forceinline__ void start(float x, long long input, int pair,
                                        const Problem& problem) {
    weights = param_row<0, D + 1>(problem, input);
    t = tanhf(x), rate = sech(x), rate *= rate;
    value[0] = 1.f, slope[0] = 0.f, value[1] = t, slope[1] = 1.f;
    KAN_UNROLL for (int m = 0; m <= D; m++) by_weight[0][m] = by_weight[1][m] = 0.f;
    current = 0;
    for (int h = 0; h < pair; h++) next();
  }
  __device__ __forceinline__ void next() {
    current++;
    step<0>(2 * current);
    step<1>(2 * current + 1);
  }
  __device__ __forceinline__ float even() const { return value[0]; }
  __device__ __forceinline__ float odd() const { return value[1]; }
  __device__ __forceinline__ float even_slope() const { return slope[0] * rate; }
  __device__ __forceinline__ float odd_slope() const { return slope[1] * rate; }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float odd, Add add) const {
    KAN_UNROLL for (int m = 1; m < D; m++) {
      add(m, fmaf(even, by_weight[0][m], odd * by_weight[1][m]));
    }
  }

 private:
  // From degree n - 1 to degree n, which takes the place of n - 2.
  template <int SIDE>
  __device__ __forceinline__ void step(int n) {
    if (n > D) return;
    const int LAST = 1 - SIDE;
    float m_squared = (n - 1.f) * (n - 1.f);
    float factor = (2.f * n - 1.f) * m_squared * (4.f * m_squared - 1.f) / ((float)n * n);
    float back = factor * weights[n - 1];
    KAN_UNROLL for (int m = 1; m < D; m++) {
      float own = m == n - 1 ? factor * value[SIDE] : 0.f;
      by_weight[SIDE][m] = fmaf(t, by_weight[LAST][m], -fmaf(back, by_weight[SIDE][m], own));
    }
    slope[SIDE] = fmaf(t, slope[LAST], fmaf(-back, slope[SIDE], value[LAST]));
    value[SIDE] = fmaf(t, value[LAST], -back * value[SIDE]);
  }
};
