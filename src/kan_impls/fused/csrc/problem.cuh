// The argument of every kernel, and the types of its elements.
#pragma once
#include "primitives.cuh"

// The sum of two floats.
struct Constant {
  float high, low;
};

// y[b,o] = bias[o] + sum_i ( SiLU(x[b,i]) * base_weight[i,o]
//                          + sum_f phi_f(x[b,i]) * scale[i,o] * weight[f,i,o] )
// All tensors are contiguous. x, params, grad_x, grad_params and the workspace are float32, the
// rest has the element type of the kernel. A null bias means 0. Packed by problem.py, by name.
struct Problem {
  const float* x;           // (rows, inputs)
  const void* weight;       // (functions, inputs, outputs)
  const void* scale;        // (inputs, outputs)
  const void* base_weight;  // (inputs, outputs)
  const void* bias;         // (outputs)
  const float* params0;     // of the basis: (sets, its size)
  const float* params1;
  const void* grad_y;  // (rows, outputs)
  void* y;             // (rows, outputs)
  float* workspace;    // (splits, rows, outputs)
  float* grad_x;       // as x, and so on
  void* grad_weight;
  void* grad_scale;
  void* grad_base_weight;
  float* grad_params;  // (parts, inputs, sizes of all params)
  long long rows;
  int inputs;
  int outputs;
  int splits;                // forward: partial sums over K
  int stages_per_split;      // forward: pipeline stages of one partial sum
  int vectorized;            // every tensor starts, and every row of outputs ends, at 16 bytes
  int inputs_per_set[2];     // of params0 and params1: neighbouring inputs that share a row
  Constant constants[4];     // of the basis
};
static_assert(sizeof(Problem) == 192, "problem.py packs 192 bytes");

// The row of params0 (N = 0) or params1 that belongs to an input, of SIZE numbers. Past the last
// input it is that of the last one: what is computed there is finite, and meets zeros.
template <int N, int SIZE>
__device__ __forceinline__ const float* param_row(const Problem& problem, long long input) {
  long long own = min(input, (long long)problem.inputs - 1) / problem.inputs_per_set[N];
  return (N == 0 ? problem.params0 : problem.params1) + own * SIZE;
}

struct bfloat16 {
  unsigned short bits;
};

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bfloat16 v) { return __uint_as_float((u32)v.bits << 16); }

template <class T>
__device__ __forceinline__ T from_float(float v);

template <>
__device__ __forceinline__ float from_float<float>(float v) {
  return v;
}

template <>
__device__ __forceinline__ bfloat16 from_float<bfloat16>(float v) {
  u32 bits = __float_as_uint(v);
  bfloat16 result;
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    result.bits = 0x7fff;  // NaN, whose payload the carry of the rounding could overflow
  } else {
    result.bits = (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // ties to even
  }
  return result;
}

// Four neighbours at once; the address is a multiple of their size.
__device__ __forceinline__ void load4(float (&v)[4], const float* from) {
  float4 q = *(const float4*)from;
  v[0] = q.x, v[1] = q.y, v[2] = q.z, v[3] = q.w;
}

__device__ __forceinline__ void load4(float (&v)[4], const bfloat16* from) {
  int2 q = *(const int2*)from;  // the first of two elements is in the low half
  v[0] = __uint_as_float((u32)q.x << 16), v[1] = __uint_as_float((u32)q.x & 0xffff0000u);
  v[2] = __uint_as_float((u32)q.y << 16), v[3] = __uint_as_float((u32)q.y & 0xffff0000u);
}

__device__ __forceinline__ void store4(float* to, const float (&v)[4]) {
  *(float4*)to = make_float4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void store4(bfloat16* to, const float (&v)[4]) {
  u32 half[4];
  KAN_UNROLL for (int c = 0; c < 4; c++) half[c] = from_float<bfloat16>(v[c]).bits;
  int2 q;
  q.x = (int)(half[0] | half[1] << 16), q.y = (int)(half[2] | half[3] << 16);
  *(int2*)to = q;
}

// The same for columns `column` to `column + 3` of a row of `columns`, in global memory.
template <class T>
__device__ __forceinline__ void load_columns(float (&v)[4], const T* row, int column, int columns,
                                             bool vectorized) {
  if (vectorized && column < columns) {
    load4(v, row + column);
    return;
  }
  KAN_UNROLL for (int c = 0; c < 4; c++) {
    v[c] = column + c < columns ? to_float(row[column + c]) : 0.f;
  }
}

template <class T>
__device__ __forceinline__ void store_columns(T* row, int column, int columns, bool vectorized,
                                              const float (&v)[4]) {
  if (vectorized) {
    if (column < columns) store4(row + column, v);
    return;
  }
  KAN_UNROLL for (int c = 0; c < 4; c++) {
    if (column + c < columns) row[column + c] = from_float<T>(v[c]);
  }
}

__device__ __forceinline__ float load_x(const Problem& problem, long long row, long long input) {
  bool inside = row < problem.rows && input < problem.inputs;
  return inside ? problem.x[row * problem.inputs + input] : 0.f;
}
