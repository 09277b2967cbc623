// d p[i,n] = sum_b sum_f dphi_f(x[b,i])/dp[i,n] * (sum_o grad_y[b,o] W[f,i,o]), of the parameters of
// the basis.
#pragma once
#include "input_grad.cuh"

// A part of the result is of one warp: 16 rows at a time, of its 4 inputs. The lane with g = 0 adds
// to it what the lanes of its input have, so that no two threads write to one address.
template <class Basis, class T, Precision PRECISION, int WARPS>
struct ParamGradWarp : ValueGradWarp<Basis, T, PRECISION, WARPS> {
  static const int SIZE = Chunks<Basis>::SIZE;

  // Where the lane adds up the gradients of its input; null in other lanes and past the last input.
  __device__ __forceinline__ float* sums(const Problem& problem, long long block_input) const {
    long long own = this->input(block_input), part = (long long)blockIdx.x * WARPS + this->row_tile;
    float* row = problem.grad_params + (part * problem.inputs + own) * Basis::NUM_PARAMS;
    return this->lane.g == 0 && own < problem.inputs ? row : nullptr;
  }

  __device__ __forceinline__ void finish_chunk(const Problem& problem, int first_pair,
                                               long long block_row, long long block_input) {
    long long own = this->input(block_input);
    float* to = sums(problem, block_input);
    KAN_UNROLL for (int r = 0; r < 2; r++) {
      Basis phi;
      phi.start(load_x(problem, this->row(block_row, r), own), own, first_pair, problem);
      auto add = [&](int number, float value) {
        KAN_UNROLL for (int distance = 4; distance < 32; distance *= 2) {  // over g
          value += __shfl_xor_sync(~0u, value, distance);
        }
        if (to != nullptr) to[number] += value;
      };
      KAN_UNROLL for (int h = 0; h < SIZE; h++) {
        if (!Chunks<Basis>::inside(first_pair + h)) break;
        bool has_odd = 2 * (first_pair + h) + 1 < Basis::NUM_FUNCTIONS;
        phi.param_grads(this->total[h][2 * r], has_odd ? this->total[h][2 * r + 1] : 0.f, add);
        phi.next();
      }
    }
    this->clear();
  }
};

// Grid: (parts by WARPS, blocks of inputs in y and z). Few blocks take all rows in turns, so that
// there are few parts.
template <class Basis, class T, Precision PRECISION, int WARPS>
__global__ void __launch_bounds__(InputGradTile<Basis, T, WARPS>::THREADS, 1)
    param_grad(const Problem problem) {
  typedef InputGradTile<Basis, T, WARPS> Tile;
  DYNAMIC_SHARED(shared);
  long long first_input = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * Tile::INPUTS;
  if (first_input >= problem.inputs) return;  // the whole block
  typedef ParamGradWarp<Basis, T, PRECISION, WARPS> Warp;
  if (float* sums = Warp().sums(problem, first_input)) {
    for (int n = 0; n < Basis::NUM_PARAMS; n++) sums[n] = 0.f;
  }
  for (long long row = (long long)blockIdx.x * Tile::ROWS; row < problem.rows;
       row += (long long)gridDim.x * Tile::ROWS) {
    __syncthreads();  // the stages of the rows before are free
    add_all_stages<Warp, Basis, T, WARPS>(problem, (T*)shared, row, first_input);
  }
}
