// Fibers: stacks, and switches between them that cost a few nanoseconds.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#if !defined(__x86_64__) && !defined(GAT_EMULATION_UCONTEXT)
#define GAT_EMULATION_UCONTEXT
#endif
#if defined(GAT_EMULATION_UCONTEXT)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace gat_emulation {

// Memory above a page that faults: a stack that overflows ends the program instead of writing
// elsewhere.
class Stack {
 public:
  // Tops are staggered by `index`: the frames of a warp's lanes would else share a few sets of the
  // cache.
  explicit Stack(std::size_t index) {
    void* const memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(memory);
    mprotect(base_, static_cast<std::size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE);
    top_ = base_ + kBytes - index * kStagger % kStaggerLimit;
  }
  ~Stack() { munmap(base_, kBytes); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  char* bottom() const { return base_ + sysconf(_SC_PAGESIZE); }
  char* top() const { return top_; }
  std::size_t size() const { return static_cast<std::size_t>(top_ - bottom()); }

 private:
  static constexpr std::size_t kBytes = 256 * 1024, kStagger = 1088, kStaggerLimit = 16 * kStagger;
  char* base_;
  char* top_;
};

// Stacks that are used again and again; all go back at once when a launch is given up.
class StackPool {
 public:
  Stack* take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Stack>(all_.size()));
      free_.push_back(all_.back().get());
    }
    Stack* const stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void give_back(Stack* stack) { free_.push_back(stack); }
  void reclaim() {
    free_.clear();
    for (const auto& stack : all_) free_.push_back(stack.get());
  }

 private:
  std::vector<std::unique_ptr<Stack>> all_;
  std::vector<Stack*> free_;
};

// Where a fiber goes on; a fresh one starts in `entry`, which never returns.
class Context {
 public:
  void start_at(const Stack& stack, void (*entry)());
  // Leaves the running fiber at `from` and goes on at `to`. Comes back when something transfers to
  // `from`.
  static void transfer(Context& from, Context& to, bool for_good = false);
  // To be called first thing in `entry`.
  static void arrived() { finish_switch(nullptr); }

 private:
#if defined(GAT_EMULATION_UCONTEXT)
  ucontext_t place_;

  static void switch_stacks(Context& from, Context& to) { swapcontext(&from.place_, &to.place_); }
#else
  void* place_ = nullptr;  // the stack pointer; the registers that a callee must keep lie above it

  static void switch_stacks(Context& from, Context& to) {
    switch_pointers(&from.place_, to.place_);
  }
  [[gnu::naked, gnu::noipa]] static void switch_pointers([[maybe_unused]] void** from,
                                                         [[maybe_unused]] void* to) {
    asm("pushq %rbp\n\t"
        "pushq %rbx\n\t"
        "pushq %r12\n\t"
        "pushq %r13\n\t"
        "pushq %r14\n\t"
        "pushq %r15\n\t"
        "movq %rsp, (%rdi)\n\t"
        "movq %rsi, %rsp\n\t"
        "popq %r15\n\t"
        "popq %r14\n\t"
        "popq %r13\n\t"
        "popq %r12\n\t"
        "popq %rbx\n\t"
        "popq %rbp\n\t"
        "ret");
  }
#endif

  // The address sanitizer must know on which stack it is.
#if defined(__SANITIZE_ADDRESS__)
  void set_bounds(const Stack& stack);
  static void start_switch(void** fake, const Context& to);
  static void finish_switch(void* fake);

  static inline thread_local Context* left_ = nullptr;  // where the last transfer came from
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
#else
  void set_bounds(const Stack&) {}
  static void start_switch(void**, const Context&) {}
  static void finish_switch(void*) {}
#endif
};

inline void Context::start_at(const Stack& stack, void (*entry)()) {
  set_bounds(stack);
#if defined(GAT_EMULATION_UCONTEXT)
  getcontext(&place_);
  place_.uc_stack.ss_sp = stack.bottom();
  place_.uc_stack.ss_size = stack.size();
  place_.uc_link = nullptr;
  makecontext(&place_, entry, 0);
#else
  constexpr int kRegisters = 6;
  void** place = reinterpret_cast<void**>(stack.top());
  *--place = nullptr;  // where `entry` would return to; it leaves the stack aligned as after a call
  *--place = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kRegisters; ++i) *--place = nullptr;
  place_ = place;
#endif
}

inline void Context::transfer(Context& from, Context& to, [[maybe_unused]] bool for_good) {
  void* fake = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  left_ = &from;
#endif
  start_switch(for_good ? nullptr : &fake, to);
  switch_stacks(from, to);
  finish_switch(fake);
}

#if defined(__SANITIZE_ADDRESS__)

inline void Context::set_bounds(const Stack& stack) {
  bottom_ = stack.bottom(), size_ = stack.size();
  __asan_unpoison_memory_region(bottom_, size_);
}

inline void Context::start_switch(void** fake, const Context& to) {
  __sanitizer_start_switch_fiber(fake, to.bottom_, to.size_);
}

inline void Context::finish_switch(void* fake) {
  __sanitizer_finish_switch_fiber(fake, &left_->bottom_, &left_->size_);
}

#endif

}  // namespace gat_emulation
