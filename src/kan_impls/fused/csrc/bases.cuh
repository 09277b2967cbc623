// Bases: each a struct that starts at a pair of functions of one x and steps to the next pair.
//
//   NUM_FUNCTIONS            all functions; pair h holds functions 2h (even) and 2h + 1 (odd)
//   start(x, input, pair, problem)  goes to a pair, with full accuracy
//   next()                   steps to the next pair
//   even(), odd()            the values of the pair
//   even_slope(), odd_slope()   their derivatives by x
//   NUM_PARAMS, param_grads(even, odd, add)  of a basis with trained parameters: how many numbers
//                            an input has, and add(number, derivative by it), where even and odd
//                            are the derivatives by the values of the pair
//
// Where the number of functions is odd, the last odd value is arbitrary but finite for finite x,
// and so is a pair more, where SiLU follows: the weights read as zero.
#pragma once
#include "problem.cuh"

// What a basis is without the wrappers at the end of this file.
struct Plain {
  static const bool HAS_BASE = false;   // the last function is SiLU, whose weights are base_weight
  static const bool HAS_SCALE = false;  // all weights but those take a scale
};

template <class Basis>
__device__ __forceinline__ bool is_base(int function) {
  return Basis::HAS_BASE && function == Basis::NUM_FUNCTIONS - 1;
}

// A pipeline stage holds at most MAX_CHUNK pairs, which bounds shared memory and registers for
// any number of functions; every chunk of a long basis has about the same length.
const int MAX_CHUNK = 8;

template <class Basis, int MAX_PAIRS = MAX_CHUNK>
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
__device__ __forceinline__ T* function_row(const Problem& problem, T* weight, T* base_weight,
                                           int function, long long input) {
  if (function >= Basis::NUM_FUNCTIONS || input >= problem.inputs) return nullptr;
  if (is_base<Basis>(function)) return base_weight + input * problem.outputs;
  return weight + ((long long)function * problem.inputs + input) * problem.outputs;
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
struct Fourier : Plain {
  static const int NUM_FUNCTIONS = 2 * G;

  float cos_1, sin_1;  // of x: one step
  float cos_k, sin_k;
  float k;

  __device__ __forceinline__ void start(float x, long long, int pair, const Problem&) {
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

// The G + ORDER B-splines of a uniform grid of G intervals, extended by ORDER knots on either
// side. Constants: the middle of the grid, and knots in a unit. Only ORDER + 1 neighbours differ from zero; `values` and `slopes` hold them in
// whole pairs, zero around them.
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

// Bumps of a distance z: a value, and its derivative.
struct Gaussian {  // exp(-z^2)
  static __device__ __forceinline__ float value(float z) { return expf(-z * z); }
  static __device__ __forceinline__ float slope(float z) { return -2.f * z * value(z); }
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
  __device__ __forceinline__ float value(float since, float left) const {
    float root = factor * since * left;
    return root * root;
  }
  __device__ __forceinline__ float slope(float since, float left) const {
    return 2.f * factor * (factor * since * left) * (left - since);
  }
  template <class Add>
  __device__ __forceinline__ void add_both(int function, float grad, float since, float left,
                                           Add add) const {
    float common = 2.f * factor * factor * since * left * grad;
    add(function, -common * left), add(G + function, common * since);
  }
};

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
