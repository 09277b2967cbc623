// Passes by rows of weights, for few rows of x: those whose function is zero are not read.
#pragma once
#include "sum.h"

// Some inputs at all rows: x, values and slopes with the inputs first, SiLU as the last function.
struct Tile {
  static const int FUNCTIONS = KAN_FUNCTIONS + 1;
  static const int POINTS = FUNCTIONS < 512 ? 8192 / FUNCTIONS / 16 * 16 + 16 : 16;

  alignas(64) float x[POINTS];
  alignas(64) float values[FUNCTIONS * POINTS];
  alignas(64) float slopes[FUNCTIONS * POINTS];

  static int inputs(const Problem& problem) { return std::max<i64>(1, POINTS / problem.rows); }

  template <int WHAT>
  void evaluate_at(const Problem& problem, i64 input, i64 inputs) {
    const i64 rows = problem.rows, alike = problem.params0 == nullptr;
    for (i64 i = 0; i < inputs; i++) {
      for (i64 r = 0; r < rows; r++) x[i * rows + r] = problem.x[r * problem.inputs + input + i];
    }
    Points points = {x, inputs * rows, 0, values, slopes, POINTS, nullptr, 0, 0, nullptr};
    if (problem.base_weight != nullptr) {
      Points last = points;
      last.values += KAN_FUNCTIONS * POINTS, last.slopes += KAN_FUNCTIONS * POINTS;
      evaluate<Silu, WHAT>(problem, last);
    }
    if (alike) {
      evaluate<Basis, WHAT>(problem, points);
      return;
    }
    points.count = rows;
    for (i64 i = 0; i < inputs; i++) {
      points.input = input + i;
      evaluate<Basis, WHAT>(problem, points);
      points.x += rows, points.values += rows, points.slopes += rows;
    }
  }
};

// The part of y that one input of a tile makes.
static void add_input(const Problem& problem, const Tile& tile, int at, i64 input, float* y) {
  const i64 rows = problem.rows, outputs = problem.outputs;
  const float* scale = (const float*)problem.scale;
  for (i64 r = 0; r < rows; r++) {
    const float* values = tile.values + at * rows + r;
    Sum sum(y + r * outputs, scale ? scale + input * outputs : nullptr, outputs);
    for (int f = 0; f < KAN_FUNCTIONS; f++) {
      float value = values[f * Tile::POINTS];
      if (value != 0.f) sum.add(value, weights_of(problem, f, input));
    }
    sum.finish();
    if (problem.base_weight == nullptr) continue;
    sum.scale = nullptr;
    sum.add(values[KAN_FUNCTIONS * Tile::POINTS], weights_of(problem, KAN_FUNCTIONS, input));
    sum.finish();
  }
}

// The gradients of one input: weights, scale and x. A row of weights is read once.
template <bool NEEDS_X>
static void backward_input(const Problem& problem, const Tile& tile, int at, i64 input,
                           float* total) {
  const int outputs = problem.outputs;
  const i64 rows = problem.rows, own = input * outputs;
  const float* grad_y = (const float*)problem.grad_y;
  float* grad_scale = problem.grad_scale ? (float*)problem.grad_scale + own : nullptr;
  if (grad_scale) memset(grad_scale, 0, outputs * sizeof(float));
  if (NEEDS_X) {
    for (i64 r = 0; r < rows; r++) problem.grad_x[r * problem.inputs + input] = 0.f;
  }
  for (int f = 0; f < functions_of(problem); f++) {
    const float* values = tile.values + f * Tile::POINTS + at * rows;
    const float* slopes = tile.slopes + f * Tile::POINTS + at * rows;
    const float* weight = weights_of(problem, f, input);
    const float* scale = scale_of(problem, f, input);
    float* grad = grads_of(problem, f, input);
    const bool sums_scale = grad_scale != nullptr && f < KAN_FUNCTIONS;
    if (grad || sums_scale) {
      // Where there is no scale, the sum is the gradient.
      float* sum_of = grad && !scale ? grad : total;
      memset(sum_of, 0, outputs * sizeof(float));
      Sum sum(sum_of, nullptr, outputs);
      bool is_zero = true;
      for (i64 r = 0; r < rows; r++) {
        if (values[r] == 0.f) continue;
        is_zero = false;
        sum.add(values[r], grad_y + r * outputs);
      }
      sum.finish();
      if (scale && grad) {
#pragma GCC ivdep
        for (int o = 0; o < outputs; o++) grad[o] = scale[o] * sum_of[o];
      }
      if (sums_scale && !is_zero) {
#pragma GCC ivdep
        for (int o = 0; o < outputs; o++) grad_scale[o] = fmaf(sum_of[o], weight[o], grad_scale[o]);
      }
    }
    if (!NEEDS_X) continue;
    for (i64 r = 0; r < rows; r++) {
      if (slopes[r] == 0.f) continue;
      const float* cotangent = grad_y + r * outputs;
      float dot = 0.f;
      if (scale) {
#pragma omp simd reduction(+ : dot)
        for (int o = 0; o < outputs; o++) dot += cotangent[o] * scale[o] * weight[o];
      } else {
#pragma omp simd reduction(+ : dot)
        for (int o = 0; o < outputs; o++) dot += cotangent[o] * weight[o];
      }
      float& grad_x = problem.grad_x[r * problem.inputs + input];
      grad_x = fmaf(slopes[r], dot, grad_x);
    }
  }
}
