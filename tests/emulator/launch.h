// Launches a kernel: checks the request, and runs its blocks on one or more OS threads.
#pragma once
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "block.h"

namespace emulation {

// What build.py passes; the field names and types are repeated there.
struct Request {
  unsigned grid[3];
  unsigned threads;
  uint64_t shared_bytes;
  void** arguments;  // as for cuLaunchKernel: one address for each parameter
  uint64_t argument_bytes;
  uint64_t seed;  // of the orders of blocks and threads; 0: ascending
  unsigned workers;
  unsigned message_bytes;
  char* message;  // receives what went wrong
};

// While one lives, faults of kernel code end the launch instead of the process.
class FaultHandler {
 public:
  FaultHandler() {
    while (lock().test_and_set()) sched_yield();
    if (users()++ == 0) {
      struct sigaction ours = {};
      ours.sa_sigaction = &handle;
      ours.sa_flags = SA_SIGINFO | SA_ONSTACK;  // not on the fiber's stack: it may have overflowed
      for (int i = 0; i < 2; i++) sigaction(signals[i], &ours, &previous()[i]);
    }
    lock().clear();
  }
  ~FaultHandler() {
    while (lock().test_and_set()) sched_yield();
    if (--users() == 0)
      for (int i = 0; i < 2; i++) sigaction(signals[i], &previous()[i], nullptr);
    lock().clear();
  }

 private:
  static constexpr int signals[2] = {SIGSEGV, SIGBUS};
  static std::atomic_flag& lock() {
    static std::atomic_flag flag = ATOMIC_FLAG_INIT;
    return flag;
  }
  static int& users() {
    static int count = 0;
    return count;
  }
  static struct sigaction* previous() {
    static struct sigaction actions[2];
    return actions;
  }
  EMULATION_SWITCHES static void handle(int signal, siginfo_t* info, void* interrupted) {
    if (the_block && the_block->handle_fault(info->si_addr, interrupted)) return;
    // Not ours: let it happen again under the previous handler.
    sigaction(signal, &previous()[signal == SIGSEGV ? 0 : 1], nullptr);
  }
};

// A stack for this OS thread's signal handlers.
class SignalStack {
 public:
  SignalStack() : memory_(64 << 10) {
    stack_t mine = {};
    mine.ss_sp = memory_.data();
    mine.ss_size = memory_.size();
    sigaltstack(&mine, &previous_);
  }
  ~SignalStack() { sigaltstack(&previous_, nullptr); }

 private:
  std::vector<char> memory_;
  stack_t previous_ = {};
};

class Launch {
 public:
  Launch(const Request& request, void (*body)(const void*), const void* argument)
      : request_(request), body_(body), argument_(argument) {
    order_.resize(size_t(1) * request.grid[0] * request.grid[1] * request.grid[2]);
    for (size_t i = 0; i < order_.size(); i++) order_[i] = i;
    if (request.seed) Random{request.seed}.shuffle(order_);
  }

  std::string run() {
    FaultHandler faults;
    std::vector<std::thread> others;
    for (unsigned i = 1; i < request_.workers; i++) others.emplace_back([=] { work(i); });
    work(0);
    for (std::thread& thread : others) thread.join();
    return failure_;
  }

 private:
  // One of the OS threads. Nothing orders it with the others, so TSan sees races between blocks.
  void work(unsigned worker) {
    SignalStack signals;
    const unsigned* grid = request_.grid;
    Block block(dim3(grid[0], grid[1], grid[2]), request_.threads, request_.shared_bytes, body_,
                argument_);
    Unobserved emulator;
    if (!block.open()) return fail("not enough memory for the stacks and the shared memory");
    the_block = &block;
    for (size_t i = worker; i < order_.size() && !failed_; i += request_.workers) {
      unsigned number = order_[i];
      uint3 index{number % grid[0], number / grid[0] % grid[1], number / grid[0] / grid[1]};
      uint64_t seed = request_.seed ? Random{request_.seed + number}() | 1 : 0;
      if (!block.run(index, seed)) fail(block.failure());
    }
    the_block = nullptr;
  }

  void fail(const std::string& message) {
    if (!failed_.exchange(true)) failure_ = message;
  }

  const Request& request_;
  void (*body_)(const void*);
  const void* argument_;
  std::vector<unsigned> order_;
  std::atomic<bool> failed_{false};
  std::string failure_;
};

// Empty if a driver would accept the request.
inline std::string rejection(const Request& request, size_t parameter_bytes) {
  const unsigned limits[3] = {2147483647u, 65535u, 65535u};
  for (int i = 0; i < 3; i++)
    if (request.grid[i] < 1 || request.grid[i] > limits[i])
      return "grid[" + std::to_string(i) + "] is " + std::to_string(request.grid[i]) +
             "; expected 1 to " + std::to_string(limits[i]);
  if (request.threads < 1 || request.threads > 1024)
    return "threads is " + std::to_string(request.threads) + "; expected 1 to 1024";
  if (request.workers < 1) return "no OS thread is to run it; expected 1 or more";
  if (request.argument_bytes != parameter_bytes)
    return "the arguments have " + std::to_string(request.argument_bytes) +
           " bytes; expected the kernel's " + std::to_string(parameter_bytes);
  return "";
}

// Returns 0, or 1 with the reason in request.message.
template <class Problem>
int launch_kernel(void (*kernel)(Problem), const Request& request) {
  std::string failure = rejection(request, sizeof(Problem));
  if (failure.empty()) {
    struct Call {
      void (*kernel)(Problem);
      const Problem* problem;
    } call{kernel, static_cast<const Problem*>(request.arguments[0])};
    auto body = [](const void* argument) {
      auto call = static_cast<const Call*>(argument);
      call->kernel(*call->problem);
    };
    failure = Launch(request, body, &call).run();
  }
  snprintf(request.message, request.message_bytes, "%s", failure.c_str());
  return failure.empty() ? 0 : 1;
}

}  // namespace emulation

// Makes one kernel callable from Python.
#define EMULATION_EXPORT(name, ...)                                                         \
  extern "C" __attribute__((visibility("default"))) int name(const emulation::Request* r) { \
    return emulation::launch_kernel(&__VA_ARGS__, *r);                                      \
  }
