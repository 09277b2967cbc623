// mma.sync.m16n8k8 for TF32, as the tensor cores compute it: lane by lane, exact products and sum,
// one rounding toward zero.
#pragma once
#include "warp.h"

namespace emulation {

// hi + rest, where |rest| is at most half a unit in the last place of hi, rounded toward zero.
inline float toward_zero(double hi, double rest) {
  float nearest = static_cast<float>(hi);
  bool too_large = fabs(static_cast<double>(nearest)) > fabs(hi);
  bool just_below = static_cast<double>(nearest) == hi && (hi > 0 ? rest < 0 : rest > 0);
  return too_large || just_below ? nextafterf(nearest, 0.0f) : nearest;
}

// sum + term, and what its rounding lost (Knuth's TwoSum).
inline double two_sum(double& sum, double term) {
  double total = sum + term, added = total - sum;
  double lost = (sum - (total - added)) + (term - added);
  sum = total;
  return lost;
}

// Shewchuk's exact sum: `parts` do not overlap and grow in magnitude.
inline float exact_sum(const double* terms, int count) {
  double parts[16];
  int used = 0;
  for (int i = 0; i < count; i++) {
    double sum = terms[i];
    int kept = 0;
    for (int k = 0; k < used; k++) {
      double lost = two_sum(sum, parts[k]);
      if (lost != 0) parts[kept++] = lost;
    }
    parts[kept++] = sum;
    used = kept;
  }
  double sum = parts[--used], lost = 0;
  while (used > 0 && lost == 0) lost = two_sum(sum, parts[--used]);
  return toward_zero(sum, lost);
}

// The sum of terms, each exact in double, rounded toward zero to float.
inline float sum_toward_zero(const double* terms, int count) {
  double sum = terms[0];
  bool exact = true;
  for (int i = 1; i < count; i++) exact &= two_sum(sum, terms[i]) == 0;
  if (exact || !isfinite(sum)) return toward_zero(sum, 0);  // nearly always
  return exact_sum(terms, count);
}

struct Fragments {
  u32 a[4], b[2];
};

inline double tf32(u32 operand) { return __uint_as_float(operand & ~0x1fffu); }

}  // namespace emulation

// d += a b: a is 16x8, b is 8x8, d is 16x8. With row = lane / 4 and column = lane % 4 a lane holds
//   a[0..3]: (row, column), (row + 8, column), (row, column + 4), (row + 8, column + 4)
//   b[0..1]: (column, row), (column + 4, row)
//   d[0..3]: (row, 2 column), (row, 2 column + 1), (row + 8, 2 column), (row + 8, 2 column + 1)
inline void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2],
                             emulation::Site site = emulation::Site::here()) {
  emulation::Block& block = *emulation::the_block;
  {
    emulation::Unobserved emulator;
    if (block.warp(*block.current).lanes != emulation::warp_lanes)
      block.fail("called mma_m16n8k8_tf32 at " + site.text() + " in a warp of " +
                 std::to_string(block.warp(*block.current).lanes) + " lanes; expected 32");
  }
  emulation::Fragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  emulation::Exchange<emulation::Fragments> lanes(mine, "mma_m16n8k8_tf32", site);
  unsigned row = emulation::my_lane() / 4, column = emulation::my_lane() % 4;
  double left[2][8], right[2][8];  // two rows of a, two columns of b
  for (unsigned k = 0; k < 4; k++) {
    emulation::Fragments of_row = lanes[4 * row + k];
    for (unsigned r = 0; r < 2; r++) {
      left[r][k] = emulation::tf32(of_row.a[r]);
      left[r][k + 4] = emulation::tf32(of_row.a[r + 2]);
    }
    for (unsigned c = 0; c < 2; c++) {
      emulation::Fragments of_column = lanes[4 * (2 * column + c) + k];
      right[c][k] = emulation::tf32(of_column.b[0]);
      right[c][k + 4] = emulation::tf32(of_column.b[1]);
    }
  }
  for (unsigned r = 0; r < 2; r++)
    for (unsigned c = 0; c < 2; c++) {
      double terms[9] = {d[2 * r + c]};
      for (unsigned k = 0; k < 8; k++) terms[k + 1] = left[r][k] * right[c][k];
      d[2 * r + c] = emulation::sum_toward_zero(terms, 9);
    }
}
