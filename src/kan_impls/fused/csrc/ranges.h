// Where a basis takes less work, and where it loses its digits.
#pragma once
#include "bases.cuh"

typedef long long i64;

// Points for which a basis has another struct, which takes less work for the same bits.
template <class B>
struct Small {
  typedef B Type;
  static bool are(const float*, i64) { return false; }
};
template <int G>
struct SmallFourier : Fourier<G> {
  __device__ __forceinline__ void start(float x, long long, int pair, const Problem&) {
    this->template start_at<true>(x, pair);
  }
};
template <int G>
struct Small<Fourier<G>> {
  typedef SmallFourier<G> Type;
  static bool are(const float* x, i64 count) {
    int others = 0;
    for (i64 n = 0; n < count; n++) others |= !(fabsf(x[n]) <= 1000.f / G);
    return others == 0;
  }
};

// From where a basis loses its digits, and what takes its place there, one point at a time.
template <class B>
struct Far {
  static constexpr float FROM = INFINITY;
  static void at(const Problem&, float, i64, int, float&, float&) {}
  template <class Add>
  static void param_grads(const Problem&, float, i64, int, float, Add) {}
};
template <int G>
struct Far<Fourier<G>> {
  static constexpr float FROM = 1e8f / G;
  static void at(const Problem&, float x, i64, int function, float& value, float& slope) {
    const double k = function / 2 + 1, cosine = cos(k * x), sine = sin(k * x);
    value = (float)(function % 2 ? sine : cosine);
    slope = (float)(function % 2 ? k * cosine : -k * sine);
  }
};
template <int G>
struct Far<Sines<G>> {
  static constexpr float FROM = 1e5f;
  static void at(const Problem& problem, float x, i64 input, int function, float& value,
                 float& slope) {
    const double angle = angle_of(problem, x, input, function);
    value = (float)sin(angle);
    slope = (float)(param_row<0, G>(problem, input)[function] * cos(angle));
  }
  template <class Add>
  static void param_grads(const Problem& problem, float x, i64 input, int function, float grad,
                          Add add) {
    const double by_phase = grad * cos(angle_of(problem, x, input, function));
    add(function, (float)(x * by_phase)), add(G + function, (float)by_phase);
  }

 private:
  static double angle_of(const Problem& problem, double x, i64 input, int function) {
    return param_row<0, G>(problem, input)[function] * x + param_row<1, G>(problem, input)[function];
  }
};

template <class B>
static __forceinline__ bool is_far(float x) {
  return fabsf(x) > Far<B>::FROM && fabsf(x) < INFINITY;
}

template <class B>
static bool any_is_far(const float* x, i64 count) {
  int found = 0;
  for (i64 n = 0; n < count; n++) found |= is_far<B>(x[n]);
  return found != 0;
}
