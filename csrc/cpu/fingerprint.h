// The fingerprint of integers on the CPU; see ../core/fingerprint.h.
#pragma once

#include <cstdint>

#include "../core/csr.h"

namespace gat::cpu {

// Integers [rows, columns], read without a copy: (i, j) is at
// values[i * row_stride + j * column_stride].
struct IntegerMatrix {
  IndexArray values;
  std::int64_t rows, columns, row_stride, column_stride;
};

template <class Isa>
std::uint64_t fingerprint(const IntegerMatrix& matrix, int num_threads);

}  // namespace gat::cpu
