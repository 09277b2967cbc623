// y = bias + the partial sums of the forward pass, always in the same order.
#pragma once
#include "problem.cuh"

// Grid: (blocks of 256 elements of y).
template <class T>
__global__ void __launch_bounds__(256) reduce(const Problem problem) {
  long long size = problem.rows * problem.outputs;
  long long element = (long long)blockIdx.x * 256 + threadIdx.x;
  if (element >= size) return;
  float total = 0.f;
  for (int split = 0; split < problem.splits; split++) {
    total += problem.workspace[split * size + element];
  }
  const T* bias = (const T*)problem.bias;
  if (bias != nullptr) total += to_float(bias[element % problem.outputs]);
  ((T*)problem.y)[element] = from_float<T>(total);
}
