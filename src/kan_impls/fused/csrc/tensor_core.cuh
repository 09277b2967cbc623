// Products on tensor cores in two precisions.
#pragma once
#include "problem.cuh"

enum Precision {
  ACCURATE,  // 3xTF32: as exact as float32
  TF32       // operands of 11 bits
};

// Fragment positions of a thread: see mma_m16n8k8_tf32.
struct Lane {
  int g, t;
  __device__ __forceinline__ Lane() {
    int lane = threadIdx.x % 32;
    g = lane / 4, t = lane % 4;
  }

  // Of 32 columns, column g of product c (0..3) is column 4 * quad(g) + c: a thread then finds its
  // column of all four products with one load, and holds at the end, on either side of its
  // fragment d, four neighbours of each row. Side 0 gives the first half of the 32 columns to
  // t = 0..3 in turn, and side 1 the second half backwards: a store thus fills whole sectors of
  // memory, also of bfloat16, and the loads of a stage meet no bank conflicts.
  __device__ __forceinline__ int loaded_column() const { return 4 * quad(g); }
  __device__ __forceinline__ int stored_column(int side) const { return 4 * quad(2 * t + side); }

 private:
  static __device__ __forceinline__ int quad(int column) {
    return column % 2 == 0 ? column / 2 : 7 - column / 2;
  }
};

// An operand as the tensor core reads it, without its low 13 bits: v ~ high + low.
template <int N>
struct Operand {
  u32 high[N], low[N];
};

template <Precision PRECISION, int N>
__device__ __forceinline__ Operand<N> operand(const float (&v)[N]) {
  const u32 KEPT_BITS = 0xffffe000u, HALF_OF_LAST_KEPT = 0x1000u;
  const float ROUND_UP = 1.00033844f;  // 1 + ln(2) / 2^11: rounds without bias, keeps NaN
  Operand<N> result;
  KAN_UNROLL for (int n = 0; n < N; n++) {
    if (PRECISION == ACCURATE) {
      result.high[n] = __float_as_uint(v[n]) & KEPT_BITS;
      float rest = v[n] - __uint_as_float(result.high[n]);  // exact
      result.low[n] = __float_as_uint(rest) + HALF_OF_LAST_KEPT;
    } else {
      result.high[n] = __float_as_uint(v[n] * ROUND_UP);
      result.low[n] = 0;
    }
  }
  return result;
}

// total += a * b. The tensor core rounds toward zero, so it only ever sums the 8 products of one
// step: that sum is added to the total here, rounded to nearest. A sum that stays in the tensor
// core over K = 10,000 loses two digits.
template <Precision PRECISION>
__device__ __forceinline__ void add_product(float (&total)[4], const Operand<4>& a,
                                            const Operand<2>& b) {
  float step[4] = {0.f, 0.f, 0.f, 0.f};
  if (PRECISION == ACCURATE) {  // small terms first
    mma_m16n8k8_tf32(step, a.low, b.high);
    mma_m16n8k8_tf32(step, a.high, b.low);
  }
  mma_m16n8k8_tf32(step, a.high, b.high);
  KAN_UNROLL for (int n = 0; n < 4; n++) total[n] += step[n];
}
