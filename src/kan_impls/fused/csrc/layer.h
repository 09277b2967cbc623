// The layer of one basis, as a library of a CPU has it.
//   KAN_BASIS      a struct of bases.cuh
//   KAN_FUNCTIONS  how many functions it has
#pragma once
#include "points.h"

typedef KAN_BASIS Basis;
static_assert(Basis::NUM_FUNCTIONS == KAN_FUNCTIONS, "cpu.py says how many functions there are");

// With SiLU, the last one, where it has weights.
static int functions_of(const Problem& problem) {
  return KAN_FUNCTIONS + (problem.base_weight != nullptr);
}

// The row of weights of a function and an input.
static const float* weights_of(const Problem& problem, int function, i64 input) {
  if (function == KAN_FUNCTIONS) return (const float*)problem.base_weight + input * problem.outputs;
  return (const float*)problem.weight + (function * (i64)problem.inputs + input) * problem.outputs;
}

// The row of scales of a function and an input, or null.
static const float* scale_of(const Problem& problem, int function, i64 input) {
  if (problem.scale == nullptr || function == KAN_FUNCTIONS) return nullptr;
  return (const float*)problem.scale + input * problem.outputs;
}

// The row of the gradient of `weights_of`, or null where none is asked for.
static float* grads_of(const Problem& problem, int function, i64 input) {
  float* all = (float*)(function == KAN_FUNCTIONS ? problem.grad_base_weight : problem.grad_weight);
  if (all == nullptr) return nullptr;
  const i64 row = function == KAN_FUNCTIONS ? input : function * (i64)problem.inputs + input;
  return all + row * problem.outputs;
}

// All functions of an input at some rows, and their slopes if WHAT says so, each `stride` further; x is
// memory for those rows.
template <int WHAT>
static void evaluate_input(const Problem& problem, i64 input, i64 row, i64 rows, float* x,
                           float* values, float* slopes, i64 stride) {
  for (i64 r = 0; r < rows; r++) x[r] = problem.x[(row + r) * problem.inputs + input];
  Points points = {x, rows, input, values, slopes, stride, nullptr, 0, 0, nullptr};
  evaluate<Basis, WHAT>(problem, points);
  points.values += KAN_FUNCTIONS * stride;
  if (WHAT & SLOPES) points.slopes += KAN_FUNCTIONS * stride;
  if (problem.base_weight != nullptr) evaluate<Silu, WHAT>(problem, points);
}

// Part `n` of a size that so many threads share, nearly equal ones.
static i64 start_of(i64 size, i64 n, i64 threads) { return size * n / threads; }
