// Bases: each a struct that starts at a pair of functions of one x and steps to the next pair.
//
//   NUM_FUNCTIONS            all functions; pair h holds functions 2h (even) and 2h + 1 (odd)
//   start(x, input, pair, problem)  goes to a pair, with full accuracy
//   next()                   steps to the next pair
//   even(), odd()            the values of the pair
//   even_slope(), odd_slope()   their derivatives by x
//   NUM_PARAMS, param_grads(even, odd, add)  where parameters are trained: how many numbers an
//                            input has, and add(number, derivative by it), where even and odd are
//                            the derivatives by the values of the pair
//
// Where the number of functions is odd, the last odd value is arbitrary but finite for finite x,
// and so is a pair more, where SiLU follows: the weights read as zero.
#pragma once
#include "problem.cuh"

// What a basis is without the wrappers of bases.cuh.
struct Plain {
  static const bool HAS_BASE = false;   // the last function is SiLU, whose weights are base_weight
  static const bool HAS_SCALE = false;  // all weights but those take a scale
  static const int NUM_PARAMS = 0;
};

template <class Basis>
__device__ __forceinline__ bool is_base(int function) {
  return Basis::HAS_BASE && function == Basis::NUM_FUNCTIONS - 1;
}

// A pipeline stage holds at most MAX_CHUNK pairs, which bounds shared memory and registers for
// any number of functions; every chunk of a long basis has about the same length.
const int MAX_CHUNK = 8;

template <class Basis, int MAX_PAIRS = MAX_CHUNK>
struct Chunks {
  static const int PAIRS = (Basis::NUM_FUNCTIONS + 1) / 2;
  static const int COUNT = (PAIRS + MAX_PAIRS - 1) / MAX_PAIRS;
  static const int SIZE = (PAIRS + COUNT - 1) / COUNT;

  // A constant where there is one chunk, so that the steps of the basis fold.
  static __device__ __forceinline__ int first_pair(int chunk) {
    return COUNT == 1 ? 0 : chunk * SIZE;
  }
  static __device__ __forceinline__ bool inside(int pair) {
    return COUNT * SIZE == PAIRS || pair < PAIRS;
  }
};

// The weights of one function and input: a row of outputs; null outside the layer.
template <class Basis, class T>
__device__ __forceinline__ T* function_row(const Problem& problem, T* weight, T* base_weight,
                                           int function, long long input) {
  if (function >= Basis::NUM_FUNCTIONS || input >= problem.inputs) return nullptr;
  if (is_base<Basis>(function)) return base_weight + input * problem.outputs;
  return weight + ((long long)function * problem.inputs + input) * problem.outputs;
}

// a * b rounded once. A plain product could be fused into the sum that uses it, and its
// rounding error, computed apart, would then count twice.
__device__ __forceinline__ float rounded_product(float a, float b) { return fmaf(a, b, 0.f); }
