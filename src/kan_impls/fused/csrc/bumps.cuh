// Bumps around centres that are parameters.
#pragma once
#include "basis.cuh"

// Bumps of a distance z: a value, and its derivative.
struct Gaussian {  // exp(-z^2)
  static __device__ __forceinline__ float value(float z) { return expf(-z * z); }
  static __device__ __forceinline__ float slope(float z) { return -2.f * (z * value(z)); }
};

struct Switch {  // sech^2(z), of which cosh would overflow
  static __device__ __forceinline__ float value(float z) {
    float decay = expf(-2.f * fabsf(z)), inverse = __fdividef(1.f, 1.f + decay);
    return 4.f * decay * inverse * inverse;
  }
  static __device__ __forceinline__ float slope(float z) { return -2.f * tanhf(z) * value(z); }
};

// Bumps around G centres, which are params0. Constant: widths of a bump in a unit.
template <class Bump, int G>
struct Radial : Plain {
  static const int NUM_FUNCTIONS = G;
  static const int NUM_PARAMS = G;

  const float* centres;
  float x, inverse_width;
  int current;

  __device__ __forceinline__ void start(float x_, long long input, int pair,
                                        const Problem& problem) {
    centres = param_row<0, G>(problem, input);
    x = x_, inverse_width = problem.constants[0].high, current = pair;
  }
  __device__ __forceinline__ void next() { current++; }

  __device__ __forceinline__ float even() const { return Bump::value(distance(0)); }
  __device__ __forceinline__ float odd() const { return Bump::value(distance(1)); }
  __device__ __forceinline__ float even_slope() const {
    return Bump::slope(distance(0)) * inverse_width;
  }
  __device__ __forceinline__ float odd_slope() const {
    return Bump::slope(distance(1)) * inverse_width;
  }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float odd, Add add) const {
    add(2 * current, -even * even_slope());
    if (2 * current + 1 < G) add(2 * current + 1, -odd * odd_slope());
  }

 private:
  __device__ __forceinline__ float distance(int parity) const {
    return (x - centres[min(2 * current + parity, G - 1)]) * inverse_width;
  }
};

// (r relu(end - x) relu(x - start))^2 for G starts, which are params0, and ends, which are params1.
// Constant: r.
template <int G>
struct ReluBumps : Plain {
  static const int NUM_FUNCTIONS = G;
  static const int NUM_PARAMS = 2 * G;

  const float *starts, *ends;
  float x, factor;
  float even_since, even_left, odd_since, odd_left;  // distances from start and end, or 0
  int current;

  __device__ __forceinline__ void start(float x_, long long input, int pair,
                                        const Problem& problem) {
    starts = param_row<0, G>(problem, input), ends = param_row<1, G>(problem, input);
    x = x_, factor = problem.constants[0].high;
    go_to(pair);
  }
  __device__ __forceinline__ void next() { go_to(current + 1); }

  __device__ __forceinline__ float even() const { return value(even_since, even_left); }
  __device__ __forceinline__ float odd() const { return value(odd_since, odd_left); }
  __device__ __forceinline__ float even_slope() const { return slope(even_since, even_left); }
  __device__ __forceinline__ float odd_slope() const { return slope(odd_since, odd_left); }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float odd, Add add) const {
    add_both(2 * current, even, even_since, even_left, add);
    if (2 * current + 1 < G) add_both(2 * current + 1, odd, odd_since, odd_left, add);
  }

 private:
  // Unlike fmaxf, NaN for NaN.
  static __device__ __forceinline__ float relu(float v) { return v < 0.f ? 0.f : v; }

  __device__ __forceinline__ void go_to(int pair) {
    current = pair;
    int even = min(2 * pair, G - 1), odd = min(2 * pair + 1, G - 1);
    even_since = relu(x - starts[even]), even_left = relu(ends[even] - x);
    odd_since = relu(x - starts[odd]), odd_left = relu(ends[odd] - x);
  }
  // Outside of the bump one of the two is 0, and the other may be as large as x: together they are 0.
  __device__ __forceinline__ float value(float since, float left) const {
    float root = factor * (since * left);
    return root * root;
  }
  __device__ __forceinline__ float slope(float since, float left) const {
    return 2.f * factor * (factor * (since * left)) * (left - since);
  }
  template <class Add>
  __device__ __forceinline__ void add_both(int function, float grad, float since, float left,
                                           Add add) const {
    float common = 2.f * factor * grad * (factor * (since * left));
    add(function, -common * left), add(G + function, common * since);
  }
};
