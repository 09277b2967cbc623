// Runs CUDA C++ kernels on the CPU, to test their logic where there is no GPU.
//
// The kernel source is included unchanged; g++ -std=c++17 -I <this folder> compiles it. What it finds
// here stands for the CUDA language (builtins.h, warp.h) and for the few wrappers over PTX
// (tensor_core.h, async_copy.h, DYNAMIC_SHARED). build.py compiles, loads and launches.
//
// One fiber runs each CUDA thread, one block at a time on each OS thread. What the emulation refuses
// with an error, or makes visible as NaN in the result:
//   barriers that not all threads reach, or that they reach in different lines     error
//   dynamic shared memory beyond the launched size                                 error
//   shared memory that was never written                                           NaN
//   an asynchronous copy that is read before its wait                              NaN
//   an asynchronous copy that is never waited for, or is misaligned                error
//   a launch of impossible dimensions, arguments of another size than the kernel's error
//   an invalid address, a stack overflow                                           error
//   a missing barrier: a wrong result under some seed; TSan names both lines
//   global memory out of bounds: ASan
// What it cannot see: uninitialised registers, static __shared__ memory (not provided), an endless
// loop, the order in which a GPU makes global writes of one block visible to another.
#pragma once
#include "async_copy.h"
#include "builtins.h"
#include "launch.h"
#include "tensor_core.h"
#include "warp.h"

#define DYNAMIC_SHARED(name) unsigned char* name = emulation::the_block->shared.begin()
#define KAN_UNROLL
