// Memory that notices misuse: stacks and dynamic shared memory between inaccessible pages.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <sys/mman.h>

#include "sanitizers.h"

namespace emulation {

constexpr size_t page_bytes = 4096;

inline size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Reserved address space, none of it accessible until open() is called for a part of it.
class Reservation {
 public:
  explicit Reservation(size_t bytes) : bytes_(bytes) {
    void* begin = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    begin_ = begin == MAP_FAILED ? nullptr : static_cast<char*>(begin);
  }
  ~Reservation() {
    if (!begin_) return;
    permit(begin_, bytes_);
    munmap(begin_, bytes_);
  }
  Reservation(const Reservation&) = delete;

  char* begin() const { return begin_; }
  bool contains(const void* address) const {
    return address >= begin_ && address < begin_ + bytes_;
  }
  bool open(char* from, size_t bytes) const {
    return begin_ && mprotect(from, bytes, PROT_READ | PROT_WRITE) == 0;
  }

 private:
  size_t bytes_;
  char* begin_;
};

// One stack for each thread of a block; the page below each is inaccessible.
class Stacks {
 public:
#if defined(EMULATION_ASAN) || defined(EMULATION_TSAN)
  static constexpr size_t slot_bytes = 512 << 10;
#else
  static constexpr size_t slot_bytes = 128 << 10;
#endif

  explicit Stacks(unsigned count) : count_(count), memory_(count * slot_bytes) {}
  bool open() const {
    for (unsigned i = 0; i < count_; i++)
      if (!memory_.open(begin(i), slot_bytes - page_bytes)) return false;
    return true;
  }
  char* begin(unsigned i) const { return memory_.begin() + i * slot_bytes + page_bytes; }
  // Tops differ in their low address bits: otherwise all stacks share a few lines of the cache.
  size_t bytes(unsigned i) const { return slot_bytes - page_bytes - (i % 61) * 5 * 64; }
  bool contains(const void* address) const { return memory_.contains(address); }

 private:
  unsigned count_;
  Reservation memory_;
};

// Dynamic shared memory of exactly `bytes`: its end lies at an inaccessible page. What lies
// between (up to 15 bytes at the end, less than a page before the beginning) holds canaries,
// which are NaN to a reader.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes)
      : bytes_(bytes), open_bytes_(round_up(bytes, page_bytes)), memory_(open_bytes_ + 2 * guard) {}
  bool open() {
    if (!memory_.open(memory_.begin() + guard, open_bytes_)) return false;
    begin_ = memory_.begin() + guard + open_bytes_ - round_up(bytes_, 16);
    forbid(memory_.begin(), begin_ - memory_.begin());
    forbid(begin_ + bytes_, memory_.begin() + open_bytes_ + 2 * guard - (begin_ + bytes_));
    return true;
  }

  unsigned char* begin() const { return reinterpret_cast<unsigned char*>(begin_); }
  size_t bytes() const { return bytes_; }
  ptrdiff_t offset(const void* address) const { return static_cast<const char*>(address) - begin_; }
  bool contains(const void* address, size_t bytes) const {
    return address >= begin_ && static_cast<const char*>(address) + bytes <= begin_ + bytes_;
  }
  bool guards(const void* address) const { return memory_.contains(address); }

  void poison() {
    std::memset(begin_, 0xff, bytes_);  // NaN
#ifndef EMULATION_ASAN  // which forbids these bytes
    for_each_canary([](unsigned char& byte, unsigned char expected) {
      byte = expected;
      return true;
    });
#endif
  }
  // The offset of a canary that was overwritten, 0 if none was.
  ptrdiff_t overwritten() const {
    ptrdiff_t found = 0;
#ifndef EMULATION_ASAN
    for_each_canary([&](unsigned char& byte, unsigned char expected) {
      if (byte != expected) found = offset(&byte);
      return byte == expected;
    });
#endif
    return found;
  }

 private:
  static constexpr size_t guard = 256 << 10;

  template <class Visit>  // visit(byte, expected) returns whether to go on
  void for_each_canary(Visit visit) const {
    auto byte = [&](char* address) {
      constexpr unsigned char nan[4] = {0xfe, 0xca, 0xff, 0xff};  // as a little-endian float
      size_t index = reinterpret_cast<uintptr_t>(address) % 4;
      return visit(*reinterpret_cast<unsigned char*>(address), nan[index]);
    };
    char* end = memory_.begin() + guard + open_bytes_;
    for (char* p = begin_ + bytes_; p < end; p++)
      if (!byte(p)) return;
    for (char* p = begin_ - 1; p >= memory_.begin() + guard; p--)
      if (!byte(p)) return;
  }

  size_t bytes_, open_bytes_;
  Reservation memory_;
  char* begin_ = nullptr;
};

}  // namespace emulation
