// The basis of sines with trained frequencies.
#pragma once
#include "angles.cuh"
#include "basis.cuh"

// sin(f x + p) for G frequencies f, which are params0, and G phases p, which are params1.
template <int G>
struct Sines : Plain {
  static const int NUM_FUNCTIONS = G;
  static const int NUM_PARAMS = 2 * G;

  const float *frequencies, *phases;
  float x;
  float sine[2], cosine[2];
  int current;

  __device__ __forceinline__ void start(float x_, long long input, int pair,
                                        const Problem& problem) {
    frequencies = param_row<0, G>(problem, input), phases = param_row<1, G>(problem, input);
    x = x_;
    go_to(pair);
  }
  __device__ __forceinline__ void next() { go_to(current + 1); }

  __device__ __forceinline__ float even() const { return sine[0]; }
  __device__ __forceinline__ float odd() const { return sine[1]; }
  __device__ __forceinline__ float even_slope() const { return frequencies[at(0)] * cosine[0]; }
  __device__ __forceinline__ float odd_slope() const { return frequencies[at(1)] * cosine[1]; }

  template <class Add>
  __device__ __forceinline__ void param_grads(float even, float odd, Add add) const {
    add_grads(0, even, add);
    if (2 * current + 1 < G) add_grads(1, odd, add);
  }

 private:
  // Past the last function it is that one, whose values are finite.
  __device__ __forceinline__ int at(int side) const { return min(2 * current + side, G - 1); }

  template <class Add>
  __device__ __forceinline__ void add_grads(int side, float grad, Add add) const {
    add(at(side), x * grad * cosine[side]);
    add(G + at(side), grad * cosine[side]);
  }

  __device__ __forceinline__ void go_to(int pair) {
    current = pair;
    KAN_UNROLL for (int side = 0; side < 2; side++) {
      float frequency = frequencies[at(side)], phase = phases[at(side)];
      float product = rounded_product(frequency, x), rest = fmaf(frequency, x, -product);
      float angle = product + phase, added = angle - product;
      rest += (product - (angle - added)) + (phase - added);  // what the sum has lost
      // As in Fourier, any point of the circle is as good from here; NaN where x is infinite.
      const float LAST_ANGLE = 3e11f;
      bool is_far = fabsf(angle) > LAST_ANGLE;
      angle = is_far ? angle - angle : angle;
      sincos_reduced(angle, is_far ? 0.f : rest, sine[side], cosine[side]);
    }
  }
};
