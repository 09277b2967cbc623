// What the product form takes of a basis, of x in columns: a thread for each element of x.
#pragma once
#include "bases.cuh"

// Calls visit(function, value, slope) for every function at x. Long bases start anew in each
// chunk, which bounds the errors of their steps.
template <class Basis, class Visit>
__device__ __forceinline__ void for_each_function(const Problem& problem, float x, long long input,
                                                  Visit visit) {
  typedef Chunks<Basis> All;
  for (int chunk = 0; chunk < All::COUNT; chunk++) {
    int first = All::first_pair(chunk);
    Basis phi;
    phi.start(x, input, first, problem);
    KAN_UNROLL for (int h = 0; h < All::SIZE; h++) {
      int pair = first + h;
      if (!All::inside(pair)) break;
      visit(2 * pair, phi.even(), phi.even_slope());
      if (2 * pair + 1 < Basis::NUM_FUNCTIONS) visit(2 * pair + 1, phi.odd(), phi.odd_slope());
      phi.next();
    }
  }
}

// y[f,i,b] = phi_f(x[i,b]), in float32. Grid: (blocks of 256 elements of x).
template <class Basis>
__global__ void __launch_bounds__(256) basis_values(const Problem problem) {
  long long size = problem.rows * problem.inputs;
  long long element = (long long)blockIdx.x * 256 + threadIdx.x;
  if (element >= size) return;
  float* to = (float*)problem.y + element;
  for_each_function<Basis>(
      problem, problem.x[element], element / problem.rows,
      [&](int function, float value, float) { to[function * size] = value; });
}

// grad_x[i,b] += sum_f phi_f'(x[i,b]) * grad_y[f,i,b], in float32; with one split for all rows
// grad_y[f,i]. Grid: as above.
template <class Basis>
__global__ void __launch_bounds__(256) basis_slopes(const Problem problem) {
  long long size = problem.rows * problem.inputs;
  long long element = (long long)blockIdx.x * 256 + threadIdx.x;
  if (element >= size) return;
  long long input = element / problem.rows;
  bool is_shared = problem.splits == 1;
  const float* grads = (const float*)problem.grad_y + (is_shared ? input : element);
  long long step = is_shared ? problem.inputs : size;
  const int TERMS = 16;  // of a partial sum, so that hundreds of functions keep its digits
  float total = 0.f, part = 0.f;
  for_each_function<Basis>(problem, problem.x[element], input,
                           [&](int function, float, float slope) {
                             if (function % TERMS == 0) total += part, part = 0.f;
                             part = fmaf(slope, grads[function * step], part);
                           });
  problem.grad_x[element] += total + part;
}
