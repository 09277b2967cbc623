// Contexts: places at which execution was left and can be continued, each on its own stack.
//
// x86-64 switches with a dozen instructions; other processors, and -DEMULATION_UCONTEXT, with
// ucontext, which is some ten times slower because it saves the signal mask by a system call.
#pragma once
#include <cstddef>
#include <cstdint>
#include <ucontext.h>

#include "sanitizers.h"

namespace emulation {

#if defined(__x86_64__) && !defined(EMULATION_UCONTEXT)

struct Context {
  void* stack_pointer = nullptr;
};

extern "C" void emulation_switch(void** leave, void* enter);
extern "C" void emulation_enter();  // the second half of emulation_switch: a place, no function
asm(R"(
.text
.type emulation_switch, @function
emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
.type emulation_enter, @function
emulation_enter:
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

EMULATION_SWITCHES inline void switch_context(Context& leave, Context& enter) {
  emulation_switch(&leave.stack_pointer, enter.stack_pointer);
}

// A context that calls start(), which must not return.
inline void prepare(Context& context, char* stack, size_t bytes, void (*start)()) {
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // start()'s return address; leaves the stack aligned as after a call
  *--top = reinterpret_cast<void*>(start);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  context.stack_pointer = top;
}

// In a signal handler: execution goes on in `enter`, and the interrupted code never does.
inline void enter_from_signal(void* interrupted, Context& enter) {
  auto& registers = static_cast<ucontext_t*>(interrupted)->uc_mcontext.gregs;
  registers[REG_RSP] = reinterpret_cast<greg_t>(enter.stack_pointer);
  registers[REG_RIP] = reinterpret_cast<greg_t>(&emulation_enter);
}

#else

struct Context {
  ucontext_t saved;
};

EMULATION_SWITCHES inline void switch_context(Context& leave, Context& enter) {
  swapcontext(&leave.saved, &enter.saved);
}

inline void prepare(Context& context, char* stack, size_t bytes, void (*start)()) {
  getcontext(&context.saved);
  context.saved.uc_stack.ss_sp = stack;
  context.saved.uc_stack.ss_size = bytes;
  context.saved.uc_link = nullptr;
  makecontext(&context.saved, start, 0);
}

inline void enter_from_signal(void*, Context& enter) { setcontext(&enter.saved); }

#endif

}  // namespace emulation
