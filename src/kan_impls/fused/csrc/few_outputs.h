// Passes of few outputs: vectors of rows, since those of outputs would be nearly empty.
#pragma once
#include "sum.h"

struct FewOutputs {
  static constexpr i64 ROWS = 512;  // at once: all that belongs to an input stays in the first cache

  const Problem& problem;
  const int functions, outputs;
  // Of a thread, each ROWS apart: values and slopes of the functions, what belongs to an output (a
  // part of y, or grad_y), and x and a sum.
  float *const values, *const slopes, *const of_outputs, *const x, *const sum;

  FewOutputs(const Problem& problem, float* workspace)
      : problem(problem),
        functions(functions_of(problem)),
        outputs(problem.outputs),
        values(workspace),
        slopes(values + functions * ROWS),
        of_outputs(slopes + functions * ROWS),
        x(of_outputs + outputs * ROWS),
        sum(x + ROWS) {}

  // What it takes of memory, in floats; ways.py has the same.
  i64 floats() const { return sum + ROWS - values; }

  // Add what the inputs from `first` to `end` make to y.
  void add(i64 first, i64 end, float* y) const {
    for (i64 row = 0; row < problem.rows; row += ROWS) {
      const i64 rows = std::min(ROWS, problem.rows - row);
      memset(of_outputs, 0, outputs * ROWS * sizeof(float));
      for (i64 input = first; input < end; input++) {
        evaluate_at<VALUES>(input, row, rows);
        for (int o = 0; o < outputs; o++) add_functions(of_outputs + o * ROWS, values, input, o, rows);
      }
      for (i64 r = 0; r < rows; r++) {
        for (int o = 0; o < outputs; o++) y[(row + r) * outputs + o] += of_outputs[o * ROWS + r];
      }
    }
  }

  // The gradients of the inputs from `first` to `end`.
  void write(i64 first, i64 end) const {
    const bool has_sums = problem.grad_weight || problem.grad_scale || problem.grad_base_weight;
    for (i64 input = first; input < end; input++) clear(input);
    for (i64 row = 0; row < problem.rows; row += ROWS) {
      const i64 rows = std::min(ROWS, problem.rows - row);
      const float* grad_y = (const float*)problem.grad_y + row * outputs;
      for (i64 r = 0; r < rows; r++) {
        for (int o = 0; o < outputs; o++) of_outputs[o * ROWS + r] = grad_y[r * outputs + o];
      }
      for (i64 input = first; input < end; input++) {
        if (problem.grad_x == nullptr) {
          evaluate_at<VALUES>(input, row, rows);
        } else {
          evaluate_at<VALUES | SLOPES>(input, row, rows);
          write_grad_x(input, row, rows);
        }
        for (int o = 0; has_sums && o < outputs; o++) add_weight_grads(input, o, rows);
      }
    }
  }

 private:
  template <int WHAT>
  void evaluate_at(i64 input, i64 row, i64 rows) const {
    evaluate_input<WHAT>(problem, input, row, rows, x, values, slopes, ROWS);
  }

  // The weight of a function with its scale.
  float factor(int function, i64 input, int o) const {
    const float* scale = scale_of(problem, function, input);
    return weights_of(problem, function, input)[o] * (scale ? scale[o] : 1.f);
  }

  // to[r] += the sum over the functions of their weights times `given`, values or slopes.
  void add_functions(float* to, const float* given, i64 input, int o, i64 rows) const {
    Sum total(to, nullptr, (int)rows);
    for (int f = 0; f < functions; f++) total.add(factor(f, input, o), given + f * ROWS);
    total.finish();
  }

  void write_grad_x(i64 input, i64 row, i64 rows) const {
    memset(x, 0, rows * sizeof(float));  // which is evaluated already
    for (int o = 0; o < outputs; o++) {
      memset(sum, 0, rows * sizeof(float));
      add_functions(sum, slopes, input, o, rows);
      const float* grad_y = of_outputs + o * ROWS;
#pragma GCC ivdep
      for (i64 r = 0; r < rows; r++) x[r] = fmaf(grad_y[r], sum[r], x[r]);
    }
    for (i64 r = 0; r < rows; r++) problem.grad_x[(row + r) * problem.inputs + input] = x[r];
  }

  void clear(i64 input) const {
    const i64 bytes = outputs * sizeof(float);
    for (int f = 0; f < functions; f++) {
      if (float* grad = grads_of(problem, f, input)) memset(grad, 0, bytes);
    }
    if (problem.grad_scale) memset((float*)problem.grad_scale + input * outputs, 0, bytes);
  }

  void add_weight_grads(i64 input, int o, i64 rows) const {
    const float* grad_y = of_outputs + o * ROWS;
    for (int f = 0; f < functions; f++) {
      const float* value = values + f * ROWS;
      float dot = 0.f;
#pragma omp simd reduction(+ : dot)
      for (i64 r = 0; r < rows; r++) dot += value[r] * grad_y[r];
      const float* scale = scale_of(problem, f, input);
      if (float* grad = grads_of(problem, f, input)) grad[o] += dot * (scale ? scale[o] : 1.f);
      if (problem.grad_scale == nullptr || f == KAN_FUNCTIONS) continue;
      ((float*)problem.grad_scale)[input * outputs + o] += dot * weights_of(problem, f, input)[o];
    }
  }
};
