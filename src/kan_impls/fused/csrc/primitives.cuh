// Thin wrappers over PTX. On the CPU the tests' header gives twins of the same names; cpu.h has only
// what the bases need.
#pragma once
#ifdef KAN_EMULATION
#include "cuda_emulation.h"
#define KAN_NO_UNROLL
#elif defined(KAN_CPU)
#include "cpu.h"
#else

typedef unsigned int u32;

#define KAN_UNROLL _Pragma("unroll")
#define KAN_NO_UNROLL _Pragma("unroll 1")  // where more of a loop at once costs registers
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// d += a * b of a 16 x 8 and an 8 x 8 tile, by the whole warp. With g = lane / 4 and t = lane % 4:
//   a: (row g, k t), (row g + 8, k t), (row g, k t + 4), (row g + 8, k t + 4)
//   b: (k t, column g), (k t + 4, column g)
//   d: (row g, columns 2t, 2t + 1), (row g + 8, columns 2t, 2t + 1)
// The tensor core ignores the low 13 bits of a and b, and rounds its sum toward zero.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4],
                                                 const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Starts a copy of BYTES bytes, or of zeros where not valid: the source is then not read.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, bool valid) {
  static_assert(BYTES == 4 || BYTES == 16, "cp.async copies 4 or 16 bytes here");
  u32 destination = (u32)__cvta_generic_to_shared(shared);
  int bytes = valid ? BYTES : 0;
  if (BYTES == 16) {  // streamed past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination), "l"(global),
                 "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(destination), "l"(global),
                 "r"(bytes)
                 : "memory");
  }
}

__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of this thread's committed groups are pending.
template <int N>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
