// What the lanes of a warp do together. Masks of part of a warp are not supported.
#pragma once
#include "block.h"

namespace emulation {

// Every lane gives one value, and gets access to those of all lanes until its next exchange.
template <class T>
class Exchange {
 public:
  Exchange(const T& mine, const char* function, Site site) {
    static_assert(sizeof(T) <= sizeof(Warp::slots[0][0]), "the slots are too small");
    Unobserved emulator;
    Thread& me = *the_block->current;
    Warp& warp = the_block->warp(me);
    slots_ = warp.slots[me.exchanges++ % 2];
    lanes_ = warp.lanes;
    std::memcpy(slots_[me.lane()], &mine, sizeof(T));
    the_block->wait_at_warp_barrier(function, site, false);
  }
  // A lane that the block does not have gives NaN.
  T operator[](unsigned lane) const {
    Unobserved emulator;
    T value;
    if (lane < lanes_)
      std::memcpy(&value, slots_[lane], sizeof(T));
    else
      std::memset(&value, 0xff, sizeof(T));
    return value;
  }

 private:
  unsigned char (*slots_)[sizeof(Warp::slots[0][0])];
  unsigned lanes_;
};

inline unsigned my_lane() { return the_block->current->lane(); }

inline void require_full_mask(unsigned mask, const char* function, Site site) {
  if (mask == 0xffffffffu) return;
  Unobserved emulator;
  char text[16];
  snprintf(text, sizeof(text), "0x%x", mask);
  the_block->fail(std::string("called ") + function + " at " + site.text() + " with the mask " +
                  text + "; expected 0xffffffff: the emulation knows whole warps only");
}

// The lane from which to read, for shuffles within segments of `width` lanes: the own one if the
// wanted lane lies outside the own segment.
inline unsigned source_lane(unsigned lane, unsigned wanted, unsigned width) {
  return wanted / width == lane / width ? wanted : lane;
}

}  // namespace emulation

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       emulation::Site site = emulation::Site::here()) {
  emulation::require_full_mask(mask, "__syncwarp", site);
  emulation::Unobserved emulator;
  emulation::the_block->wait_at_warp_barrier("__syncwarp", site, true);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32,
                     emulation::Site site = emulation::Site::here()) {
  emulation::require_full_mask(mask, "__shfl_sync", site);
  emulation::Exchange<T> lanes(value, "__shfl_sync", site);
  return lanes[emulation::my_lane() / width * width + source % width];
}

template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32,
                         emulation::Site site = emulation::Site::here()) {
  emulation::require_full_mask(mask, "__shfl_xor_sync", site);
  emulation::Exchange<T> lanes(value, "__shfl_xor_sync", site);
  unsigned lane = emulation::my_lane();
  // Lanes of earlier segments may be read, lanes of later ones may not.
  unsigned wanted = lane ^ flip;
  return lanes[wanted / width <= lane / width ? wanted : lane];
}

template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                          emulation::Site site = emulation::Site::here()) {
  emulation::require_full_mask(mask, "__shfl_down_sync", site);
  emulation::Exchange<T> lanes(value, "__shfl_down_sync", site);
  unsigned lane = emulation::my_lane();
  return lanes[emulation::source_lane(lane, lane + distance, width)];
}
