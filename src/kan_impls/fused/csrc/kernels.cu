// The translation unit of all fused kernels: y = bias + phi(x) W for any basis of bases.cuh.
#include "forward.cuh"
#include "input_grad.cuh"
#include "param_grad.cuh"
#include "reduce.cuh"
#include "values.cuh"
#include "weight_grad.cuh"
