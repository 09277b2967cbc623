// Sines and cosines of large angles, by reduction.
#pragma once
#include "primitives.cuh"

// sin and cos of angle + angle_low to 1e-7 up to |angle| = 1e8. From there the error grows in
// proportion to the angle, up to some point of the circle. angle_low is below half a unit in the
// last place of angle. With SMALL, up to |angle| = 1000, less work gives the same bits.
template <bool SMALL = false>
__device__ __forceinline__ void sincos_reduced(float angle, float angle_low, float& sine,
                                               float& cosine) {
  const float TWO_OVER_PI = 0.636619772f;
  // pi/2 in three parts: the first is a multiple of 2^-23, so that its difference is exact.
  const float HALF_PI_0 = 1.57079601e+00f, HALF_PI_1 = 3.13916473e-07f, HALF_PI_2 = 5.39030253e-15f;
  float turns = rintf(angle * TWO_OVER_PI);
  float r = fmaf(turns, -HALF_PI_0, angle);
  r = fmaf(turns, -HALF_PI_1, r);
  r = fmaf(turns, -HALF_PI_2, r) + angle_low;
  float rest = turns - 4.f * floorf(0.25f * turns);  // exact; its residue mod 4 counts
  if (!SMALL) {
    // `turns` is off by some units for a large angle: reduce what remains once more. A little less
    // than 2/pi, so that nothing remains of small ones, which rounding leaves just beyond pi/4.
    float more = rintf(r * 0.63655611f);
    r = fmaf(more, -HALF_PI_0, r);
    r = fmaf(more, -HALF_PI_1, r);
    rest += more;
    rest -= 4.f * floorf(0.25f * rest);
  }

  float z = r * r;
  float odd = fmaf(fmaf(2.86567956e-6f, z, -1.98559923e-4f), z, 8.33338592e-3f);
  odd = fmaf(odd, z, -1.66666672e-1f);
  odd = fmaf(odd * z, r, r);  // sin r for |r| <= pi/4
  float even = fmaf(fmaf(2.44677067e-5f, z, -1.38877297e-3f), z, 4.16666567e-2f);
  even = fmaf(fmaf(even, z, -5.00000000e-1f), z, 1.f);  // cos r
  bool swapped = rest == 1.f || rest == 3.f;
  sine = swapped ? even : odd;
  cosine = swapped ? odd : even;
  sine = rest >= 2.f ? -sine : sine;
  cosine = rest == 1.f || rest == 2.f ? -cosine : cosine;
}
