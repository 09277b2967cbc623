// What bases.cuh takes of CUDA, for a compiler of the CPU that vectorises over points.
#pragma once
#include <math.h>
#include <string.h>

#include <algorithm>

#if defined(__x86_64__) && !defined(__FMA__)
#error "this CPU has no fused multiply-add, and each fmaf would be a call"
#endif

#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define KAN_UNROLL _Pragma("GCC unroll 16")

typedef unsigned int u32;
struct float4 {
  float x, y, z, w;
};
struct int2 {
  int x, y;
};
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

static __forceinline__ float __uint_as_float(u32 bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static __forceinline__ u32 __float_as_uint(float value) {
  u32 bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static __forceinline__ float __fdividef(float a, float b) { return a / b; }
using std::min;

// exp(x) to 1e-7, as a call could not be vectorised. 2^n times exp(r) by its series, |r| <= ln(2)/2;
// in two factors, as 2^128 is infinite. 0 where it is less than the least normal number: to make and to
// multiply numbers below it takes ten times as long, and the tails of bumps are full of them.
static __forceinline__ float exp_of(float x) {
  const float least = -87.3365f;  // of 2^-126
  float bounded = x < least ? least : x > 104.f ? 104.f : x;
  float n = rintf(bounded * 1.44269504f);
  float r = fmaf(n, -1.42860677e-6f, fmaf(n, -0.693145752f, bounded));
  float p = fmaf(fmaf(1.98412698e-4f, r, 1.38888889e-3f), r, 8.33333333e-3f);
  p = fmaf(fmaf(fmaf(p, r, 4.16666667e-2f), r, 1.66666667e-1f), r, 0.5f);
  p = fmaf(p * r, r, r) + 1.f;
  int half = (int)n / 2, rest = (int)n - half;
  p = p * __uint_as_float((u32)(half + 127) << 23) * __uint_as_float((u32)(rest + 127) << 23);
  return x < least ? 0.f : p;
}
#define expf exp_of

// tanh(x) to 1e-7 of it: the quotient of exponentials loses its digits near 0, where an odd
// polynomial has them.
static __forceinline__ float tanh_of(float x) {
  float decay = exp_of(-2.f * fabsf(x)), z = x * x;
  float p = fmaf(fmaf(-5.70498872e-3f, z, 2.06390888e-2f), z, -5.37397156e-2f);
  p = fmaf(fmaf(p, z, 1.33314422e-1f), z, -3.33332819e-1f);
  float near = fmaf(p * z, x, x), far = copysignf((1.f - decay) / (1.f + decay), x);
  return fabsf(x) < 0.625f ? near : far;
}
#define tanhf tanh_of
