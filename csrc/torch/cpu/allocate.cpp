// The cache of blocks behind ../allocate.h.
#include "../allocate.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

#include "../../cpu/memory_limit.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace gat::binding {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

struct Block {
  void* memory;
  std::size_t bytes;
};

// The limit of the cache in bytes: a share of the memory that this process may use.
std::size_t cache_limit() {
  constexpr std::size_t kShare = 16, kFallback = std::size_t{256} << 20;
  const std::size_t memory = cpu::memory_limit();
  return memory == cpu::kNoLimit ? kFallback : memory / kShare;
}

class BlockCache {
 public:
  // A kept block of at least this size and at most a quarter more, otherwise a new block.
  Block take(std::size_t bytes) {
    const std::size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    {
      const std::lock_guard lock(mutex_);
      auto best = kept_.end();
      for (auto block = kept_.begin(); block != kept_.end(); ++block) {
        const bool fits = block->bytes >= size && block->bytes - size <= size / 4;
        if (fits && (best == kept_.end() || block->bytes <= best->bytes)) best = block;
      }
      if (best != kept_.end()) {
        const Block found = *best;
        kept_.erase(best);
        total_ -= found.bytes;
        return found;
      }
    }
    void* memory = std::aligned_alloc(kHugePage, size);
    if (memory == nullptr) {
      clear();  // the kept blocks may be the missing memory
      memory = std::aligned_alloc(kHugePage, size);
    }
    TORCH_CHECK_WITH(OutOfMemoryError, memory != nullptr, "cannot allocate ", size, " bytes");
#if defined(MADV_HUGEPAGE)
    madvise(memory, size, MADV_HUGEPAGE);  // may fail: then pages are small
#endif
    return {memory, size};
  }

  // Keeps a block, and frees the oldest kept blocks until the cache is within its limit.
  void give(Block block) {
    const std::lock_guard lock(mutex_);
    kept_.push_back(block);
    total_ += block.bytes;
    while (total_ > limit_) free_oldest();
  }

  void clear() {
    const std::lock_guard lock(mutex_);
    while (!kept_.empty()) free_oldest();
  }

 private:
  void free_oldest() {
    total_ -= kept_.front().bytes;
    std::free(kept_.front().memory);
    kept_.erase(kept_.begin());
  }

  std::mutex mutex_;
  std::vector<Block> kept_;  // the most recently returned block is last
  std::size_t total_ = 0, limit_ = cache_limit();
};

BlockCache& cache() {
  static auto* const instance = new BlockCache;  // never destroyed: tensors may outlive statics
  return *instance;
}

void give_back(void* context) {
  auto* const block = static_cast<Block*>(context);
  cache().give(*block);
  delete block;
}

struct BlockAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    auto* const block = new Block(cache().take(std::max(bytes, kSmallestBlock)));
    return {block->memory, block, &give_back, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

c10::Allocator& block_allocator() {
  static auto* const instance = new BlockAllocator;
  return *instance;
}

void empty_block_cache() {
  cache().clear();
#if defined(__GLIBC__)
  malloc_trim(0);  // freed tensors stay in the heap else
#endif
}

}  // namespace gat::binding
