// One block: its threads, their barriers, and the scheduler that runs them in a seeded order.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "builtins.h"
#include "fibers.h"
#include "memory.h"

namespace emulation {

// Where in the kernel source something was called. As a default argument it is the caller's place.
struct Site {
  const char* file;
  int line;
  static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Site& other) const {
    return line == other.line && (file == other.file || !std::strcmp(file, other.file));
  }
  std::string text() const {
    const char* slash = std::strrchr(file, '/');
    return std::string(slash ? slash + 1 : file) + ":" + std::to_string(line);
  }
};

// Small and quick random numbers (splitmix64): an order needs no better ones.
struct Random {
  uint64_t state;
  uint64_t operator()() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  template <class T>
  void shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; i--) std::swap(items[i - 1], items[(*this)() % i]);
  }
};

// A copy that was issued and has not landed; see async_copy.h.
struct PendingCopy {
  void* shared;
  unsigned bytes;
  unsigned group;
  Site site;
  unsigned char data[16];
};

constexpr unsigned warp_lanes = 32;

enum class State { ready, at_block_barrier, at_warp_barrier, exited };

struct Thread {
  Context context;
  StackRecord stack;
  uint3 index{0, 0, 0};
  State state = State::ready;
  const char* waits_in = "";  // the function, and where it was called
  Site site{"", 0};
  unsigned block_barriers = 0, warp_barriers = 0, exchanges = 0;  // passed so far
  std::vector<PendingCopy> copies;
  unsigned copy_group = 0;

  unsigned lane() const { return index.x % warp_lanes; }
};

struct Warp {
  unsigned lanes = 0, arrived = 0;
  // Two sets of slots in turn: a lane that is ahead must not overwrite what others still read.
  alignas(16) unsigned char slots[2][warp_lanes][32];
  Clock clocks[2];
};

class Block {
 public:
  dim3 grid, shape;
  uint3 index{0, 0, 0};
  SharedMemory shared;
  Thread* current = nullptr;

  Block(dim3 grid, unsigned threads, size_t shared_bytes, void (*body)(const void*),
        const void* argument)
      : grid(grid), shape(threads), shared(shared_bytes), threads_(threads),
        warps_((threads + warp_lanes - 1) / warp_lanes), stacks_(threads), body_(body),
        argument_(argument) {
    main_stack_.adopt_current();
    for (unsigned i = 0; i < threads; i++)
      threads_[i].stack.create(("CUDA thread " + std::to_string(i)).c_str());
  }
  ~Block() {
    // After a failure threads stand in the middle of their work, about which TSan would complain.
    if (failure_.empty())
      for (Thread& thread : threads_) thread.stack.destroy();
  }

  // Returns whether there was enough memory.
  bool open() { return shared.open() && stacks_.open(); }

  // Returns false after a failure; the block cannot be used any more then.
  bool run(uint3 block_index, uint64_t seed) {
    start(block_index);
    std::vector<unsigned> order(threads_.size());
    for (unsigned i = 0; i < order.size(); i++) order[i] = i;
    Random random{seed};
    while (live_ && failure_.empty()) {
      if (seed) random.shuffle(order);
      if (!run_ready_threads(order) && failure_.empty()) report("deadlock: " + states());
    }
    if (failure_.empty()) check_canaries();
    acquire(&ended_);
    return failure_.empty();
  }

  const std::string& failure() const { return failure_; }

  // The first failure stays: later ones often follow from it.
  void report(const std::string& message) {
    if (failure_.empty())
      failure_ = "block (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
                 std::to_string(index.z) + "): " + message;
  }

  Warp& warp(const Thread& thread) { return warps_[thread.index.x / warp_lanes]; }

  void wait_at_block_barrier(Site site) {
    Thread& me = *current;
    // Two clocks in turn: a thread that ran ahead to the next barrier must not lend its time.
    Clock* clock = &clocks_[me.block_barriers++ % 2];
    release(clock);
    arrive(me, State::at_block_barrier, "__syncthreads", site);
    if (++arrived_ == live_) open_block_barrier();
    leave_unless_ready(me);
    acquire(clock);
  }

  // `orders_memory`: __syncwarp does; shuffles and matrix products only exchange registers.
  void wait_at_warp_barrier(const char* function, Site site, bool orders_memory) {
    Thread& me = *current;
    Warp& mine = warp(me);
    Clock* clock = &mine.clocks[me.warp_barriers % 2];
    if (orders_memory) me.warp_barriers++, release(clock);
    arrive(me, State::at_warp_barrier, function, site);
    if (++mine.arrived == mine.lanes) open_warp_barrier(me.index.x / warp_lanes);
    leave_unless_ready(me);
    if (orders_memory) acquire(clock);
  }

  // From kernel code: gives up this launch.
  [[noreturn]] void fail(const std::string& message) {
    report("thread " + std::to_string(current->index.x) + " " + message);
    leave();
    __builtin_unreachable();  // after a failure no thread is continued
  }

  // From the signal handler: whether the fault is one of the kernel's, which is given up then.
  bool handle_fault(const void* address, void* interrupted) {
    if (!current) return false;
#ifdef EMULATION_ASAN
    if (!shared.guards(address) && !stacks_.contains(address)) return false;  // ASan says more
#endif
    faulted_ = true;
    fault_address_ = address;
    enter_from_signal(interrupted, scheduler_);
    return true;
  }

 private:
  void start(uint3 block_index) {
    index = block_index;
    live_ = threads_.size();
    arrived_ = 0;
    shared.poison();
    for (Warp& warp : warps_) warp.lanes = warp.arrived = 0;
    for (unsigned i = 0; i < threads_.size(); i++) {
      Thread& thread = threads_[i];
      thread.index = {i, 0, 0};
      thread.state = State::ready;
      thread.block_barriers = thread.warp_barriers = thread.exchanges = thread.copy_group = 0;
      thread.stack.begin = stacks_.begin(i);
      thread.stack.bytes = stacks_.bytes(i);
      prepare(thread.context, stacks_.begin(i), stacks_.bytes(i), &Block::thread_main);
      warp(thread).lanes++;
    }
    release(&started_);
  }

  static void thread_main();

  bool run_ready_threads(const std::vector<unsigned>& order) {
    bool progress = false;
    for (unsigned i : order) {
      Thread& thread = threads_[i];
      if (thread.state != State::ready) continue;
      progress = true;
      resume(thread);
      if (faulted_) report_fault(thread);
      if (!failure_.empty()) break;
      if (thread.state == State::exited) finish(thread);
    }
    return progress;
  }

  EMULATION_SWITCHES void resume(Thread& thread) {
    current = &thread;
    before_switch(main_stack_, thread.stack);
    switch_context(scheduler_, thread.context);
    if (faulted_) before_switch(thread.stack, main_stack_);  // the fault left no time for it
    after_switch(main_stack_);
    current = nullptr;
  }

  EMULATION_SWITCHES void leave() {
    Thread& me = *current;
    before_switch(me.stack, main_stack_);
    switch_context(me.context, scheduler_);
    after_switch(me.stack);
  }

  void arrive(Thread& me, State state, const char* function, Site site) {
    me.state = state;
    me.waits_in = function;
    me.site = site;
  }

  void leave_unless_ready(Thread& me) {
    if (me.state != State::ready || !failure_.empty()) leave();
  }

  void open_block_barrier() {
    arrived_ = 0;
    open_barrier(0, threads_.size(), State::at_block_barrier);
  }

  void open_warp_barrier(unsigned number) {
    Warp& warp = warps_[number];
    warp.arrived = 0;
    open_barrier(number * warp_lanes, number * warp_lanes + warp.lanes, State::at_warp_barrier);
  }

  void open_barrier(unsigned begin, unsigned end, State state) {
    const Thread* first = nullptr;
    for (unsigned i = begin; i < end; i++) {
      Thread& thread = threads_[i];
      if (thread.state != state) continue;
      if (!first) first = &thread;
      if (!(thread.site == first->site) || std::strcmp(thread.waits_in, first->waits_in))
        return report("divergent barrier: " + states());
    }
    for (unsigned i = begin; i < end; i++)
      if (threads_[i].state == state) threads_[i].state = State::ready;
  }

  void finish(Thread& thread) {
    live_--;
    if (!thread.copies.empty())
      report("thread " + std::to_string(thread.index.x) + " ended with " +
             std::to_string(thread.copies.size()) + " asynchronous copies pending, the first of " +
             thread.copies[0].site.text() + ": wait for each copy");
    // As on the GPU, a barrier waits for the threads that have not exited.
    else if (live_ && arrived_ == live_)
      open_block_barrier();
  }

  void check_canaries() {
    if (ptrdiff_t offset = shared.overwritten())
      report("a thread wrote to byte " + std::to_string(offset) + " of shared memory of " +
             std::to_string(shared.bytes()) + " bytes");
  }

  void report_fault(const Thread& thread) {
    char address[32];
    snprintf(address, sizeof(address), "%p", fault_address_);
    report("thread " + std::to_string(thread.index.x) +
           (shared.guards(fault_address_)
                ? " accessed byte " + std::to_string(shared.offset(fault_address_)) +
                      " of shared memory of " + std::to_string(shared.bytes()) + " bytes"
            : stacks_.contains(fault_address_)
                ? std::string(" overflowed its stack")
                : std::string(" accessed the invalid address ") + address));
  }

  // "16 of 32 threads wait in __syncthreads at a.cu:5 (thread 0 first), 16 of 32 have exited ..."
  std::string states() const {
    std::string text;
    std::vector<bool> counted(threads_.size());
    for (size_t i = 0; i < threads_.size(); i++) {
      if (counted[i]) continue;
      unsigned alike = 0;
      for (size_t j = i; j < threads_.size(); j++)
        if (same_state(threads_[i], threads_[j])) counted[j] = true, alike++;
      text += (text.empty() ? "" : ", ") + std::to_string(alike) + " of " +
              std::to_string(threads_.size()) + " threads " + state(threads_[i]) + " (thread " +
              std::to_string(i) + (alike > 1 ? " first)" : ")");
    }
    return text;
  }

  static bool same_state(const Thread& a, const Thread& b) {
    if (a.state != b.state) return false;
    bool waits = a.state == State::at_block_barrier || a.state == State::at_warp_barrier;
    return !waits || (a.site == b.site && !std::strcmp(a.waits_in, b.waits_in));
  }

  static std::string state(const Thread& thread) {
    if (thread.state == State::ready) return "are running";
    if (thread.state == State::exited) return "have exited";
    return std::string("wait in ") + thread.waits_in + " at " + thread.site.text();
  }

  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  Stacks stacks_;
  void (*body_)(const void*);
  const void* argument_;
  Context scheduler_;
  StackRecord main_stack_;
  unsigned live_ = 0, arrived_ = 0;
  Clock started_, clocks_[2], ended_;
  std::string failure_;
  volatile bool faulted_ = false;
  const void* fault_address_ = nullptr;
};

// The block that this OS thread runs.
inline thread_local Block* the_block = nullptr;

EMULATION_SWITCHES inline void Block::thread_main() {
  Block& block = *the_block;
  after_switch(block.current->stack, &block.main_stack_);
  acquire(&block.started_);
  block.body_(block.argument_);
  release(&block.ended_);
  block.current->state = State::exited;
  block.leave();
}

}  // namespace emulation

#define threadIdx (emulation::the_block->current->index)
#define blockIdx (emulation::the_block->index)
#define blockDim (emulation::the_block->shape)
#define gridDim (emulation::the_block->grid)

// Waits for all threads of the block that have not exited.
inline void __syncthreads(emulation::Site site = emulation::Site::here()) {
  emulation::Unobserved emulator;
  emulation::the_block->wait_at_block_barrier(site);
}
