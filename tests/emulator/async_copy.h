// cp.async: copies from global to shared memory that land at the wait which covers them.
//
// Global memory is read when the copy is issued, so that ASan names that line. Until the copy
// lands its destination is NaN, for whoever reads it.
#pragma once
#include "block.h"

namespace emulation {

inline void check_copy(const void* shared, const void* global, bool valid, unsigned bytes,
                       Site site) {
  Block& block = *the_block;
  const SharedMemory& memory = block.shared;
  auto fail = [&](const std::string& fault) {
    block.fail("copies " + std::to_string(bytes) + " bytes at " + site.text() + " " + fault);
  };
  auto destination = [&] { return "to byte " + std::to_string(memory.offset(shared)); };
  if (!memory.contains(shared, bytes))
    fail(destination() + " of shared memory of " + std::to_string(memory.bytes()) + " bytes");
  if (memory.offset(shared) % bytes)
    fail(destination() + " of shared memory; expected a multiple of " + std::to_string(bytes));
  if (valid && reinterpret_cast<uintptr_t>(global) % bytes)
    fail("from a global address; expected a multiple of " + std::to_string(bytes));
}

}  // namespace emulation

// Copies BYTES (4 or 16) from global to shared, zeros if !valid: global is not read then.
template <int BYTES>
inline void copy_async(void* shared, const void* global, bool valid,
                       emulation::Site site = emulation::Site::here()) {
  static_assert(BYTES == 4 || BYTES == 16, "copy_async copies 4 or 16 bytes");
  emulation::Thread& me = *emulation::the_block->current;
  emulation::PendingCopy copy{shared, BYTES, 0, site, {}};
  {
    emulation::Unobserved emulator;
    emulation::check_copy(shared, global, valid, BYTES, site);
    copy.group = me.copy_group;
  }
  if (valid) std::memcpy(copy.data, global, BYTES);
  std::memset(shared, 0xff, BYTES);
  emulation::Unobserved emulator;
  me.copies.push_back(copy);
}

// Closes the group of the copies that this thread has issued since the last call.
inline void copy_commit() {
  emulation::Unobserved emulator;
  emulation::the_block->current->copy_group++;
}

// Waits until at most N of this thread's groups are pending.
template <int N>
inline void copy_wait() {
  emulation::Thread& me = *emulation::the_block->current;
  auto& copies = me.copies;
  // Groups below copy_group are closed; the newest N of these may stay.
  auto covered = [&](const emulation::PendingCopy& copy) { return copy.group + N < me.copy_group; };
  size_t landed = 0;
  for (; landed < copies.size() && covered(copies[landed]); landed++)
    std::memcpy(copies[landed].shared, copies[landed].data, copies[landed].bytes);
  emulation::Unobserved emulator;
  copies.erase(copies.begin(), copies.begin() + landed);
}
