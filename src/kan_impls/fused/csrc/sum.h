// Sums of vectors with factors.
#pragma once
#include "layer.h"

// y += scale * sum over c of factor[c] * row[c], over the outputs; scale may be null.
template <int COUNT>
static __forceinline__ void add_rows(float* __restrict y, const float* const* rows,
                                     const float* factors, const float* scale, int outputs) {
  if (scale == nullptr) {
#pragma GCC ivdep
    for (int o = 0; o < outputs; o++) {
      float sum = y[o];
      KAN_UNROLL for (int c = 0; c < COUNT; c++) sum = fmaf(factors[c], rows[c][o], sum);
      y[o] = sum;
    }
    return;
  }
#pragma GCC ivdep
  for (int o = 0; o < outputs; o++) {
    float sum = 0.f;
    KAN_UNROLL for (int c = 0; c < COUNT; c++) sum = fmaf(factors[c], rows[c][o], sum);
    y[o] = fmaf(scale[o], sum, y[o]);
  }
}

// Up to four terms of a sum over rows of outputs, which are added together.
struct Sum {
  float* y;
  const float* scale;
  int outputs, count;
  const float* rows[4];
  float factors[4];

  Sum(float* y, const float* scale, int outputs) : y(y), scale(scale), outputs(outputs), count(0) {}
  __forceinline__ void add(float factor, const float* row) {
    rows[count] = row, factors[count] = factor;
    if (++count == 4) finish();
  }
  __attribute__((noinline)) void finish() {
    if (count == 1) add_rows<1>(y, rows, factors, scale, outputs);
    if (count == 2) add_rows<2>(y, rows, factors, scale, outputs);
    if (count == 3) add_rows<3>(y, rows, factors, scale, outputs);
    if (count == 4) add_rows<4>(y, rows, factors, scale, outputs);
    count = 0;
  }
};
