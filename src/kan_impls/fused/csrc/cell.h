// A basis at all points of a cell of the product form, in one parallel region.
#pragma once
#include "layer.h"

#include <omp.h>

// What is read and written; x and its gradient are the user's, with strides from input to input and
// from row to row, and the rest is in columns, of shape (functions, inputs, rows).
struct Cell {
  const float* x;
  i64 x_input, x_row;
  float* values;
  i64 stride, pitch;      // from function to function, and from input to input
  const float* grads;     // by the values, which may take their place; null where no gradient is made
  i64 grad_stride, step;  // from function to function, and from point to point: 0 or 1
  float* grad_x;          // added to, if there is one
  i64 grad_input, grad_row;
};

// Less work than this, in products, takes one thread: to wake another one takes longer.
const i64 WORK_OF_THREAD = 1 << 15;  // ways.py has the same

static int threads_for(i64 work, int most) {
  return (int)std::max<i64>(1, std::min<i64>(most, work / WORK_OF_THREAD));
}

// `evaluate`, and the sums over the points of what they contribute to the parameters' gradients.
template <class B, int WHAT>
static void evaluate_with_params(const Problem& problem, Points points, float* sums) {
  const i64 MOST = Points::MOST_WITH_PARAMS, count = points.count;
  memset(points.grad_params, 0, B::NUM_PARAMS * MOST * sizeof(float));
  for (i64 n = 0; n < count; n += MOST) {
    points.count = std::min(MOST, count - n);
    evaluate<B, WHAT | PARAMS>(problem, points);
    points.x += MOST, points.values += MOST, points.grads += MOST, points.grad_x += MOST;
  }
  for (int number = 0; number < B::NUM_PARAMS; number++) {
    const float* parts = points.grad_params + number * MOST;
    float sum = 0.f;
#pragma omp simd reduction(+ : sum)
    for (i64 n = 0; n < MOST; n++) sum += parts[n];
    sums[number] = sum;
  }
}

// Some inputs at some rows: a line of memory holds several inputs of a row, so that these are put
// into columns together.
template <class B>
struct Block {
  static constexpr i64 ROWS = 512;   // at most; compiled.py has the same
  static constexpr i64 INPUTS = 8;   // or more, where the rows are few
  static constexpr i64 POINTS = ROWS * INPUTS;

  const Problem& problem;
  const Cell& cell;
  const i64 first, inputs, row, rows;
  const bool is_run;  // its inputs are alike, and no other rows are between them: all are one run
  const i64 pitch;    // of x and its gradient
  float x[POINTS], grad_x[POINTS];

  // How many inputs a block has at most.
  static i64 most_inputs(i64 pitch) { return std::max<i64>(INPUTS, ROWS / std::max<i64>(1, pitch)); }

  Block(const Problem& problem, const Cell& cell, i64 first, i64 end, i64 row)
      : problem(problem),
        cell(cell),
        first(first),
        inputs(end - first),
        row(row),
        rows(std::min<i64>(ROWS, problem.rows - row)),
        is_run(problem.params0 == nullptr && cell.pitch <= ROWS &&
               (cell.grads == nullptr || cell.step == 1)),
        pitch(is_run ? cell.pitch : rows) {}

  void run() {
    for (i64 r = 0; r < rows; r++) {
      const float* from = cell.x + first * cell.x_input + (row + r) * cell.x_row;
      for (i64 i = 0; i < inputs; i++) x[i * pitch + r] = from[i * cell.x_input];
    }
    for (i64 r = rows; r < pitch; r++) {
      for (i64 i = 0; i < inputs; i++) x[i * pitch + r] = 0.f;
    }
    if (cell.grad_x != nullptr) memset(grad_x, 0, inputs * pitch * sizeof(float));
    if (is_run) {
      evaluate_points(0, (inputs - 1) * pitch + rows);
    } else {
      for (i64 i = 0; i < inputs; i++) evaluate_points(i, rows);
    }
    if (cell.grad_x == nullptr) return;
    for (i64 r = 0; r < rows; r++) {
      float* to = cell.grad_x + first * cell.grad_input + (row + r) * cell.grad_row;
      for (i64 i = 0; i < inputs; i++) to[i * cell.grad_input] += grad_x[i * pitch + r];
    }
  }

 private:
  void evaluate_points(i64 i, i64 count) {
    const i64 input = first + i, at = input * cell.pitch + row;
    Points points = {x + i * pitch, count, input, cell.values + at, nullptr, cell.stride};
    if (cell.grads == nullptr) return evaluate<B, VALUES>(problem, points);
    points.grads = cell.grads + (cell.step ? at : input);
    points.grad_stride = cell.grad_stride;
    points.grad_x = grad_x + i * pitch;
    if constexpr (B::NUM_PARAMS > 0) {
      if (problem.grad_params != nullptr) return evaluate_params(points);
    }
    if (cell.step) {
      evaluate<B, VALUES | GRAD, 1>(problem, points);
    } else {
      evaluate<B, VALUES | GRAD, 0>(problem, points);
    }
  }

  void evaluate_params(Points points) {
    const i64 size = B::NUM_PARAMS;
    float* sums = problem.grad_params + (row / ROWS * problem.inputs + points.input) * size;
    points.grad_params = problem.workspace + omp_get_thread_num() * size * Points::MOST_WITH_PARAMS;
    if (cell.grad_x == nullptr) {
      evaluate_with_params<B, VALUES>(problem, points, sums);
    } else {
      evaluate_with_params<B, VALUES | GRAD>(problem, points, sums);
    }
  }
};

// Each block of rows has a part of grad_params; workspace: (splits, NUM_PARAMS, MOST_WITH_PARAMS).
template <class B>
static void evaluate_cell(const Problem& problem, const Cell& cell) {
  const i64 inputs = problem.inputs, most = Block<B>::most_inputs(cell.pitch);
  const i64 blocks = (problem.rows + Block<B>::ROWS - 1) / Block<B>::ROWS;
  const int threads = threads_for(4 * inputs * problem.rows * B::NUM_FUNCTIONS, problem.splits);
  // As many for each thread as for another one.
  i64 groups = (inputs + most - 1) / most;
  groups = std::min<i64>(inputs, (groups + threads - 1) / threads * threads);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (i64 item = 0; item < groups * blocks; item++) {
    const i64 group = item / blocks, row = item % blocks * Block<B>::ROWS;
    const i64 first = start_of(inputs, group, groups), end = start_of(inputs, group + 1, groups);
    Block<B>(problem, cell, first, end, row).run();
  }
}
