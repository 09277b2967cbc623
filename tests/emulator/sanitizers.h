// Tells AddressSanitizer and ThreadSanitizer about fibers, and hides the emulator from the latter.
//
// To TSan each fiber is a thread of its own, and switching between fibers orders nothing: only the
// barriers of the kernel do, through acquire() and release().
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define EMULATION_ASAN 1
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#define EMULATION_TSAN 1
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_set_fiber_name(void* fiber, const char* name);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

// Functions during which the stack changes: instrumented code would look at the wrong one.
#define EMULATION_SWITCHES \
  __attribute__((noinline, no_sanitize("address", "thread", "undefined")))

namespace emulation {

// While one lives, TSan ignores what this thread reads and writes: the emulator's own state.
struct Unobserved {
#ifdef EMULATION_TSAN
  Unobserved() { AnnotateIgnoreReadsBegin("", 0), AnnotateIgnoreWritesBegin("", 0); }
  ~Unobserved() { AnnotateIgnoreWritesEnd("", 0), AnnotateIgnoreReadsEnd("", 0); }
#else
  Unobserved() {}
  ~Unobserved() {}
#endif
  Unobserved(const Unobserved&) = delete;
};

// Everything before release(clock) in one thread happens before what follows acquire(clock).
// TSan knows a clock by its address.
typedef uint64_t Clock;
inline void acquire([[maybe_unused]] Clock* clock) {
#ifdef EMULATION_TSAN
  __tsan_acquire(clock);
#endif
}
inline void release([[maybe_unused]] Clock* clock) {
#ifdef EMULATION_TSAN
  __tsan_release(clock);
#endif
}

inline void forbid([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#ifdef EMULATION_ASAN
  __asan_poison_memory_region(begin, bytes);
#endif
}
inline void permit([[maybe_unused]] const void* begin, [[maybe_unused]] size_t bytes) {
#ifdef EMULATION_ASAN
  __asan_unpoison_memory_region(begin, bytes);
#endif
}

// A stack as the sanitizers know it.
struct StackRecord {
  const void* begin = nullptr;
  size_t bytes = 0;
  void* fake_stack = nullptr;   // of ASan
  void* tsan_fiber = nullptr;

  void create([[maybe_unused]] const char* name) {
#ifdef EMULATION_TSAN
    tsan_fiber = __tsan_create_fiber(0);
    __tsan_set_fiber_name(tsan_fiber, name);
#endif
  }
  void adopt_current() {
#ifdef EMULATION_TSAN
    tsan_fiber = __tsan_get_current_fiber();
#endif
  }
  void destroy() {
#ifdef EMULATION_TSAN
    __tsan_destroy_fiber(tsan_fiber);
#endif
  }
};

// Just before, and just after, the processor goes from one stack to another.
EMULATION_SWITCHES inline void before_switch([[maybe_unused]] StackRecord& from,
                                             [[maybe_unused]] const StackRecord& to) {
#ifdef EMULATION_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.begin, to.bytes);
#endif
#ifdef EMULATION_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber, 1 /* orders nothing */);
#endif
}
EMULATION_SWITCHES inline void after_switch([[maybe_unused]] StackRecord& on,
                                            [[maybe_unused]] StackRecord* from = nullptr) {
#ifdef EMULATION_ASAN
  if (from)
    __sanitizer_finish_switch_fiber(on.fake_stack, &from->begin, &from->bytes);
  else
    __sanitizer_finish_switch_fiber(on.fake_stack, nullptr, nullptr);
#endif
}

}  // namespace emulation
