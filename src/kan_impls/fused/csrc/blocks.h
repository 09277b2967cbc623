// Passes in blocks, of one basis: what a product takes stays in the caches of a thread. The weights
// are read once, where they are; neither they with their scale nor its gradient pass through memory.
#pragma once
#include "layer.h"
#include "multiply.h"

const int WIDTH = 256;  // outputs of a block

struct InRows {  // of a block
  static const int STEP = 1, ROW = WIDTH;
};

// To whole tiles of outputs.
static i64 rounded_up(i64 size) { return (size + TILE_OUTPUTS - 1) / TILE_OUTPUTS * TILE_OUTPUTS; }

// to = row * scale, or the row where there is no scale.
static __forceinline__ void scale_row(float* __restrict to, const float* row, const float* scale,
                                      i64 count) {
  if (scale == nullptr) {
    memcpy(to, row, count * sizeof(float));
    return;
  }
#pragma GCC ivdep
  for (i64 o = 0; o < count; o++) to[o] = row[o] * scale[o];
}

// y: the functions of a few inputs, so many that they stay in the caches, meet some of their weights
// after the other. A row of these is read so far at once that the processor sees what comes next.
struct ForwardBlocks {
  static constexpr i64 DEPTH = 256;  // functions of a block, or those of one input

  const Problem& problem;
  const int functions;
  const i64 inputs_at_once;
  float *const phi, *const panels, *const values, *const x;  // of a thread

  ForwardBlocks(const Problem& problem, float* workspace)
      : problem(problem),
        functions(functions_of(problem)),
        inputs_at_once(std::max<i64>(1, DEPTH / functions)),
        phi(workspace),
        panels(phi + inputs_at_once * functions * (problem.rows + TILE_ROWS)),
        values(panels + inputs_at_once * functions * WIDTH),
        x(values + functions * problem.rows) {}

  // What it takes of memory, in floats; ways.py has the same.
  i64 floats() const { return rounded_up(x + problem.rows - phi); }

  // Add what the inputs from `first` to `end` make to y.
  void add(i64 first, i64 end, float* y) const {
    for (i64 input = first; input < end; input += inputs_at_once) {
      const i64 inputs = std::min(inputs_at_once, end - input), depth = inputs * functions;
      for (i64 i = 0; i < inputs; i++) evaluate_at(input + i, phi + i * functions * TILE_ROWS, depth);
      for (i64 o = 0; o < problem.outputs; o += WIDTH) {
        const i64 width = std::min<i64>(WIDTH, problem.outputs - o);
        pack(input, inputs, o, width);
        multiply_panels(depth, width, y + o);
      }
    }
  }

 private:
  // to[r / TILE_ROWS][f][r % TILE_ROWS], the first of `depth`: what a tile takes lies side by side.
  void evaluate_at(i64 input, float* to, i64 depth) const {
    const i64 rows = problem.rows;
    evaluate_input<VALUES>(problem, input, 0, rows, x, values, nullptr, rows);
    for (i64 r = 0; r < rows; r += TILE_ROWS, to += depth * TILE_ROWS) {
      const i64 count = std::min<i64>(TILE_ROWS, rows - r);
      for (i64 f = 0; f < functions; f++) {
        memcpy(to + f * TILE_ROWS, values + f * rows + r, count * sizeof(float));
      }
    }
  }

  // panels[o / TILE_OUTPUTS][i * functions + f][o % TILE_OUTPUTS], of `width` outputs.
  void pack(i64 input, i64 inputs, i64 output, i64 width) const {
    float* to = panels;
    for (i64 i = input; i < input + inputs; i++) {
      for (int f = 0; f < functions; f++, to += TILE_OUTPUTS) {
        const float* weight = weights_of(problem, f, i) + output;
        const float* scale = scale_of(problem, f, i);
        pack_row(to, inputs * functions * TILE_OUTPUTS, weight, scale ? scale + output : scale, width);
      }
    }
  }

  static void pack_row(float* to, i64 step, const float* weight, const float* scale, i64 width) {
    const i64 whole = width / TILE_OUTPUTS * TILE_OUTPUTS;
    for (i64 o = 0; o < whole; o += TILE_OUTPUTS, to += step) {
      scale_row(to, weight + o, scale ? scale + o : scale, TILE_OUTPUTS);
    }
    if (whole == width) return;
    scale_row(to, weight + whole, scale ? scale + whole : scale, width - whole);
    memset(to + width - whole, 0, (TILE_OUTPUTS - width + whole) * sizeof(float));
  }

  void multiply_panels(i64 depth, i64 width, float* y) const {
    const float* panel = panels;
    for (i64 o = 0; o < width; o += TILE_OUTPUTS, panel += depth * TILE_OUTPUTS) {
      const i64 count = std::min<i64>(TILE_OUTPUTS, width - o);
      for (i64 r = 0; r < problem.rows; r += TILE_ROWS) {
        const int rows = (int)std::min<i64>(TILE_ROWS, problem.rows - r);
        float* own = y + r * problem.outputs + o;
        multiply_edge(rows, count, phi + r * depth, panel, depth, own, problem.outputs);
      }
    }
  }
};

// grad_y, as the products of a backward pass take it, for all threads.
struct Cotangent {
  const Problem& problem;
  const i64 wide, high;          // outputs and rows, rounded up
  float *const panels;           // [o / TILE_OUTPUTS][r][o % TILE_OUTPUTS]
  float *const columns;          // [r / TILE_OUTPUTS][o][r % TILE_OUTPUTS], for the gradient of x

  Cotangent(const Problem& problem, float* memory)
      : problem(problem),
        wide(rounded_up(problem.outputs)),
        high(rounded_up(problem.rows)),
        panels(memory),
        columns(memory + wide * problem.rows) {}

  i64 floats() const {
    return wide * problem.rows + (problem.grad_x ? high * problem.outputs : 0);
  }
  const float* panel(i64 output) const { return panels + output * problem.rows; }
  const float* column(i64 row, i64 output) const {
    return columns + row * problem.outputs + output * TILE_OUTPUTS;
  }

  // Part `n` of `parts`.
  void pack(i64 n, i64 parts) const {
    const i64 rows = problem.rows, outputs = problem.outputs;
    const float* from = (const float*)problem.grad_y;
    const i64 panel = wide / TILE_OUTPUTS, end = start_of(panel, n + 1, parts) * TILE_OUTPUTS;
    for (i64 o = start_of(panel, n, parts) * TILE_OUTPUTS; o < end; o++) {
      float* to = panels + o / TILE_OUTPUTS * rows * TILE_OUTPUTS + o % TILE_OUTPUTS;
      for (i64 r = 0; r < rows; r++) to[r * TILE_OUTPUTS] = o < outputs ? from[r * outputs + o] : 0.f;
      if (o >= outputs || problem.grad_x == nullptr) continue;
      for (i64 r = 0; r < high; r++) {
        columns[r / TILE_OUTPUTS * outputs * TILE_OUTPUTS + o * TILE_OUTPUTS + r % TILE_OUTPUTS] =
            r < rows ? from[r * outputs + o] : 0.f;
      }
    }
  }
};

// The gradients of weights, scale and x: each input meets all columns of grad_y, `WIDTH` at a time,
// so that weights and gradients are read and written from end to end. Each input is one thread's:
// what the gradients are does not depend on the threads.
struct BackwardBlocks {
  static constexpr i64 FEW_ROWS = 8;

  const Problem& problem;
  const Cotangent& cotangent;
  const i64 functions, tiles;
  // Of a thread: gradients of the values, values[f / TILE_ROWS][r][f % TILE_ROWS] and [f][r], slopes.
  float *const grads, *const phi, *const values, *const slopes, *const x, *const used;

  BackwardBlocks(const Problem& problem, const Cotangent& cotangent, float* workspace)
      : problem(problem),
        cotangent(cotangent),
        functions(functions_of(problem)),
        tiles((functions + TILE_ROWS - 1) / TILE_ROWS),
        grads(workspace),
        phi(grads + functions * cotangent.high),
        values(phi + tiles * TILE_ROWS * problem.rows),
        slopes(values + functions * problem.rows),
        x(slopes + functions * problem.rows),
        used(x + problem.rows) {}

  // What it takes of memory, in floats; ways.py has the same.
  i64 floats() const { return rounded_up(used + functions - grads); }

  void write(i64 input) const {
    evaluate_at(input);
    for (i64 o = 0; o < problem.outputs; o += WIDTH) write_outputs(input, o);
    if (problem.grad_x != nullptr) write_grad_x(input);
  }

 private:
  void evaluate_at(i64 input) const {
    const i64 rows = problem.rows;
    if (problem.grad_x == nullptr) {
      evaluate_input<VALUES>(problem, input, 0, rows, x, values, nullptr, rows);
    } else {
      evaluate_input<VALUES | SLOPES>(problem, input, 0, rows, x, values, slopes, rows);
    }
    for (i64 f = 0; f < functions; f++) {
      float* to = phi + f / TILE_ROWS * rows * TILE_ROWS + f % TILE_ROWS;
      for (i64 r = 0; r < rows; r++) to[r * TILE_ROWS] = values[f * rows + r];
      used[f] = is_used(f);
    }
    memset(grads, 0, functions * cotangent.high * sizeof(float));
  }

  // Whether the weights of a function are read. Half of the splines are zero at one row, and with
  // more rows few are. (Where the gradient of x is asked for, leaving them out took longer.)
  bool is_used(i64 f) const {
    if (problem.rows > FEW_ROWS || problem.grad_x != nullptr) return true;
    const float* first = values + f * problem.rows;
    return std::any_of(first, first + problem.rows, [](float value) { return value != 0.f; });
  }

  // Of all functions and some outputs: one read of the weights serves all gradients.
  void write_outputs(i64 input, i64 output) const {
    const i64 count = std::min<i64>(WIDTH, problem.outputs - output);
    const bool has_sums = problem.grad_weight || problem.grad_scale || problem.grad_base_weight;
    float total[WIDTH] = {};
    for (i64 first = 0; first < functions; first += TILE_ROWS) {
      const int size = (int)std::min<i64>(TILE_ROWS, functions - first);
      float sums[TILE_ROWS * WIDTH], staged[TILE_ROWS * WIDTH];
      if (has_sums) multiply_values(first, size, output, count, sums);
      for (int f = 0; f < size; f++) {
        finish_row((int)first + f, input, output, count, sums + f * WIDTH, total, staged + f * WIDTH);
      }
      if (problem.grad_x != nullptr) add_grads(first, size, staged, output, count);
    }
    if (problem.grad_scale == nullptr) return;
    float* grad_scale = (float*)problem.grad_scale + input * problem.outputs;
    memcpy(grad_scale + output, total, count * sizeof(float));
  }

  // sums[f][o] = the product of the values and grad_y.
  void multiply_values(i64 first, int size, i64 output, i64 count, float* sums) const {
    const i64 rows = problem.rows;
    memset(sums, 0, size * WIDTH * sizeof(float));
    for (i64 o = 0; o < count; o += TILE_OUTPUTS) {
      multiply<Interleaved>(size, phi + first * rows, cotangent.panel(output + o), rows, sums + o,
                            WIDTH);
    }
  }

  // grads[f][r] += the product of weights with their scale and grad_y, over some outputs.
  void add_grads(i64 first, int size, const float* staged, i64 output, i64 count) const {
    float* own = grads + first * cotangent.high;
    for (i64 r = 0; r < problem.rows; r += TILE_OUTPUTS) {
      const float* column = cotangent.column(r, output);
      if (problem.rows - r > Vector::SIZE) {
        multiply<InRows, 2>(size, staged, column, count, own + r, cotangent.high);
      } else {
        multiply<InRows, 1>(size, staged, column, count, own + r, cotangent.high);
      }
    }
  }

  // What follows from the sums of a function: its weights' gradient, its part of the scale's, and
  // its weights with their scale.
  void finish_row(int function, i64 input, i64 output, i64 count, const float* sums, float* total,
                  float* staged) const {
    const float *weight = weights_of(problem, function, input) + output;
    const float *scale = scale_of(problem, function, input);
    float* grad = grads_of(problem, function, input);
    if (scale) scale += output;
    if (grad) grad += output;
    const bool is_read = problem.grad_scale && function < KAN_FUNCTIONS && used[function] != 0.f;
    finish(grad, is_read ? total : nullptr, problem.grad_x ? staged : nullptr, sums, weight, scale,
           count);
  }

  static __forceinline__ void finish(float* __restrict grad, float* __restrict total,
                                     float* __restrict staged, const float* sums,
                                     const float* weight, const float* scale, i64 count) {
    if (total) {
#pragma GCC ivdep
      for (i64 o = 0; o < count; o++) total[o] = fmaf(sums[o], weight[o], total[o]);
    }
    if (grad) scale_row(grad, sums, scale, count);
    if (staged) scale_row(staged, weight, scale, count);
  }

  void write_grad_x(i64 input) const {
    const i64 rows = problem.rows;
    memset(x, 0, rows * sizeof(float));
    for (i64 f = 0; f < functions; f++) {
      const float *slope = slopes + f * rows, *grad = grads + f * cotangent.high;
#pragma GCC ivdep
      for (i64 r = 0; r < rows; r++) x[r] = fmaf(slope[r], grad[r], x[r]);
    }
    for (i64 r = 0; r < rows; r++) problem.grad_x[r * problem.inputs + input] = x[r];
  }
};
