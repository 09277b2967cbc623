// What the product form does on a CPU besides the library's matrix products, for the layer of layer.h.
// A point is one x of one row and input. All loops over points or outputs are vectorised.
#define KAN_CPU
#include "blocks.h"
#include "cell.h"
#include "direct.h"
#include "few_outputs.h"

// How many functions differ from zero at most.
template <class B>
struct Active {
  static const int COUNT = B::NUM_FUNCTIONS;
};
template <int G, int ORDER>
struct Active<BSpline<G, ORDER>> {
  static const int COUNT = ORDER + 1;
};

extern "C" {

void evaluate_basis(const Problem* problem, const Cell* cell) {
  evaluate_cell<Basis>(*problem, *cell);
}

int active_functions() { return Active<Basis>::COUNT; }

int vector_size() { return Vector::SIZE; }

void evaluate_silu(const Problem* problem, const Cell* cell) {
  evaluate_cell<Silu>(*problem, *cell);
}
}

const int PAIRS = 3;  // nine sums and six factors are in registers

// own[k][l] += the product of row k of left and row l of right, for a square of pairs from (k, l) on.
static void add_pairs(float* own, int k, int l, const float* left, const float* right, i64 count,
                      i64 left_stride, i64 right_stride) {
  const float *a[PAIRS], *b[PAIRS];
  for (int n = 0; n < PAIRS; n++) {  // beyond the last row it again, whose sums are left
    a[n] = left + std::min(k + n, KAN_FUNCTIONS - 1) * left_stride;
    b[n] = right + std::min(l + n, KAN_FUNCTIONS - 1) * right_stride;
  }
  Vector sums[PAIRS][PAIRS];
  KAN_UNROLL for (int n = 0; n < PAIRS * PAIRS; n++) sums[n / PAIRS][n % PAIRS] = Vector::of(0.f);
  const i64 whole = count / Vector::SIZE * Vector::SIZE;
  for (i64 o = 0; o < whole; o += Vector::SIZE) {
    Vector rows[PAIRS];
    KAN_UNROLL for (int n = 0; n < PAIRS; n++) rows[n] = Vector::load(b[n] + o);
    KAN_UNROLL for (int m = 0; m < PAIRS; m++) {
      const Vector row = Vector::load(a[m] + o);
      KAN_UNROLL for (int n = 0; n < PAIRS; n++) sums[m][n].add_product(row, rows[n]);
    }
  }
  for (int m = 0; m < std::min(PAIRS, KAN_FUNCTIONS - k); m++) {
    for (int n = 0; n < std::min(PAIRS, KAN_FUNCTIONS - l); n++) {
      float parts[Vector::SIZE], sum = 0.f;
      sums[m][n].store(parts);
      for (float part : parts) sum += part;
      for (i64 o = whole; o < count; o++) sum += a[m][o] * b[n][o];
      own[(k + m) * KAN_FUNCTIONS + l + n] += sum;
    }
  }
}

// y, of which each thread makes what some of the inputs do: `add(thread, first, end, y)`. They sum in
// workspace (splits - 1, rows, outputs), and the sums are added in their order.
template <class Add>
static void sum_over_inputs(const Problem& problem, Add add) {
  const i64 size = problem.rows * problem.outputs;
  const int threads = problem.splits;
  float* result = (float*)problem.y;
  const float* bias = (const float*)problem.bias;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int own = omp_get_thread_num(), team = omp_get_num_threads();
    float* y = own == 0 ? result : problem.workspace + (own - 1) * size;
    for (i64 r = 0; r < problem.rows; r++) {
      for (int o = 0; o < problem.outputs; o++) {
        y[r * problem.outputs + o] = own == 0 && bias != nullptr ? bias[o] : 0.f;
      }
    }
    add(own, start_of(problem.inputs, own, team), start_of(problem.inputs, own + 1, team), y);
#pragma omp barrier
    const i64 first = start_of(size, own, team), last = start_of(size, own + 1, team);
    for (int t = 1; t < team; t++) {
      const float* other = problem.workspace + (t - 1) * size;
#pragma GCC ivdep
      for (i64 n = first; n < last; n++) result[n] += other[n];
    }
  }
}

// y by the passes of a struct, whose memory comes behind the sums in the workspace.
template <class Passes>
static void forward_by(const Problem& problem) {
  float* memory = problem.workspace + (problem.splits - 1) * problem.rows * problem.outputs;
  sum_over_inputs(problem, [&](int own, i64 first, i64 end, float* y) {
    const i64 floats = Passes(problem, memory).floats();
    Passes(problem, memory + own * floats).add(first, end, y);
  });
}

extern "C" {

// y by rows of weights: those whose function is zero are not read.
void forward_direct(const Problem* packed) {
  const Problem& problem = *packed;
  sum_over_inputs(problem, [&](int, i64 first, i64 end, float* y) {
    Tile tile;
    const i64 step = Tile::inputs(problem);
    for (i64 input = first; input < end; input += step) {
      const i64 count = std::min(step, end - input);
      tile.evaluate_at<VALUES>(problem, input, count);
      for (int i = 0; i < count; i++) add_input(problem, tile, i, input + i, y);
    }
  });
}

// In equal parts of rows, whose functions caches hold.
void forward_blocks(const Problem* packed) {
  const i64 MOST = 1024;  // ways.py has the same
  const i64 rows = packed->rows, parts = (rows + MOST - 1) / MOST;
  for (i64 part = 0; part < parts; part++) {
    const i64 first = start_of(rows, part, parts);
    Problem problem = *packed;
    problem.rows = start_of(rows, part + 1, parts) - first;
    problem.x += first * problem.inputs;
    problem.y = (float*)problem.y + first * problem.outputs;
    forward_by<ForwardBlocks>(problem);
  }
}

void forward_few_outputs(const Problem* problem) { forward_by<FewOutputs>(*problem); }

// The gradients of few outputs.
void backward_few_outputs(const Problem* packed) {
  const Problem& problem = *packed;
  const int threads = problem.splits;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int own = omp_get_thread_num(), team = omp_get_num_threads();
    const i64 floats = FewOutputs(problem, problem.workspace).floats();
    FewOutputs(problem, problem.workspace + own * floats)
        .write(start_of(problem.inputs, own, team), start_of(problem.inputs, own + 1, team));
  }
}

// The gradients of x, weight, scale and base_weight that have an address, in blocks.
void backward_blocks(const Problem* packed) {
  const Problem& problem = *packed;
  const int threads = problem.splits;
  const Cotangent cotangent(problem, problem.workspace);
  float* memory = problem.workspace + cotangent.floats();
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int own = omp_get_thread_num(), team = omp_get_num_threads();
    cotangent.pack(own, team);
#pragma omp barrier
    const i64 floats = BackwardBlocks(problem, cotangent, memory).floats();
    const BackwardBlocks blocks(problem, cotangent, memory + own * floats);
    const i64 end = start_of(problem.inputs, own + 1, team);
    for (i64 input = start_of(problem.inputs, own, team); input < end; input++) blocks.write(input);
  }
}

// The gradients of x, weight, scale and base_weight that have an address; workspace: (splits,
// outputs).
void backward_direct(const Problem* packed) {
  const Problem& problem = *packed;
  const int threads = problem.splits;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    const int own = omp_get_thread_num(), team = omp_get_num_threads();
    float* total = problem.workspace + own * (i64)problem.outputs;
    Tile tile;
    const i64 end = start_of(problem.inputs, own + 1, team), step = Tile::inputs(problem);
    for (i64 input = start_of(problem.inputs, own, team); input < end; input += step) {
      const i64 count = std::min(step, end - input);
      if (problem.grad_x != nullptr) {
        tile.evaluate_at<VALUES | SLOPES>(problem, input, count);
        for (int i = 0; i < count; i++) backward_input<true>(problem, tile, i, input + i, total);
      } else {
        tile.evaluate_at<VALUES>(problem, input, count);
        for (int i = 0; i < count; i++) backward_input<false>(problem, tile, i, input + i, total);
      }
    }
  }
}

// products[i][k][l] = the product of the weights of function k and the gradients of those of l, of
// input i; shapes (functions, inputs, outputs), each with its stride from function to function.
void multiply_functions(const float* weight, const float* grad, float* products, i64 inputs,
                        i64 outputs, i64 weight_stride, i64 grad_stride, int most) {
  const i64 SIZE = KAN_FUNCTIONS * KAN_FUNCTIONS, AT_ONCE = 1024;
  const int threads = threads_for(SIZE * inputs * outputs, most);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (i64 input = 0; input < inputs; input++) {
    float* own = products + input * SIZE;
    memset(own, 0, SIZE * sizeof(float));
    for (i64 first = 0; first < outputs; first += AT_ONCE) {  // which caches hold
      const i64 count = std::min(AT_ONCE, outputs - first), at = input * outputs + first;
      for (int k = 0; k < KAN_FUNCTIONS; k += PAIRS) {
        for (int l = 0; l < KAN_FUNCTIONS; l += PAIRS) {
          add_pairs(own, k, l, weight + at, grad + at, count, weight_stride, grad_stride);
        }
      }
    }
  }
}

// The gradients of weights and scale, from that of the scaled weights, in one pass: shapes
// (functions, inputs, outputs), those of weight and grad_weight `stride` from function to function.
void write_grads(const float* total, const float* weight, const float* scale, float* grad_weight,
                 float* grad_scale, i64 functions, i64 inputs, i64 outputs, i64 stride, int most) {
  const int threads = threads_for(functions * inputs * outputs, most);
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (i64 input = 0; input < inputs; input++) {
    const i64 own = input * outputs;
    if (grad_scale) memset(grad_scale + own, 0, outputs * sizeof(float));
    for (i64 f = 0; f < functions; f++) {
      const float* sum = total + f * inputs * outputs + own;
      if (grad_scale) {
        const float* row = weight + f * stride + own;
        float* grad = grad_scale + own;
#pragma GCC ivdep
        for (i64 o = 0; o < outputs; o++) grad[o] = fmaf(sum[o], row[o], grad[o]);
      }
      if (grad_weight) {
        const float* factor = scale + own;
        float* grad = grad_weight + f * stride + own;
#pragma GCC ivdep
        for (i64 o = 0; o < outputs; o++) grad[o] = sum[o] * factor[o];
      }
    }
  }
}
}
