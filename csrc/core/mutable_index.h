// An array of indices that a kernel writes.
#pragma once

#include <cstdint>

#include "macros.h"

namespace gat {

// An array of int32 or int64, whose width is known at run time.
struct MutableIndexArray {
  void* data = nullptr;
  bool wide = false;

  GAT_HD void set(std::int64_t k, std::int64_t value) const {
    if (wide) {
      static_cast<std::int64_t*>(data)[k] = value;
    } else {
      static_cast<std::int32_t*>(data)[k] = static_cast<std::int32_t>(value);
    }
  }
};

}  // namespace gat
