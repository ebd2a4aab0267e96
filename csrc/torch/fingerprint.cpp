#include "fingerprint.h"

#include <ATen/ops/arange.h>

#include "../core/fingerprint.h"
#include "../cpu/fingerprint.h"
#include "../cpu/isa.h"
#include "threads.h"

namespace gat::binding {
namespace {

using at::Tensor;

// An int32 or int64 tensor unchanged; the bits of any other tensor, as the widest integers that fit
// them.
Tensor as_integers(const Tensor& tensor) {
  if (tensor.scalar_type() == at::kInt || tensor.scalar_type() == at::kLong) return tensor;
  const Tensor flat = tensor.resolve_conj().resolve_neg().contiguous().flatten();
  for (const at::ScalarType wide : {at::kLong, at::kInt}) {
    const std::int64_t size = c10::elementSize(wide), bytes = flat.itemsize();
    if (flat.numel() * bytes % size == 0 && flat.storage_offset() * bytes % size == 0)
      return flat.view(wide);
  }
  return flat.view(at::kByte).to(at::kInt);
}

cpu::IntegerMatrix as_matrix(const Tensor& integers) {
  const IndexArray values{integers.const_data_ptr(), integers.scalar_type() == at::kLong};
  if (integers.dim() == 2)
    return {values, integers.size(0), integers.size(1), integers.stride(0), integers.stride(1)};
  return {values, 1, integers.numel(), 0, integers.dim() == 1 ? integers.stride(0) : 1};
}

}  // namespace

std::uint64_t fingerprint_by_torch(const Tensor& tensor) {
  const auto constant = [](std::uint64_t x) { return static_cast<std::int64_t>(x); };
  const auto mix = [&](Tensor& x, int bits) {  // x ^ (x >> bits) of unsigned numbers
    x.bitwise_xor_(x.bitwise_right_shift(bits).bitwise_and_(constant(~std::uint64_t{0} >> bits)));
  };
  const Tensor flat = as_integers(tensor).flatten();
  Tensor x =
      at::arange(flat.numel(), flat.options().dtype(at::kLong)).mul_(constant(kFingerprintStep));
  mix(x, kPositionShift);
  x.add_(flat);
  for (const int i : {0, 1}) {
    mix(x, kFingerprintShifts[i]);
    x.mul_(constant(kFingerprintFactors[i]));
  }
  mix(x, kFingerprintShifts[2]);
  return static_cast<std::uint64_t>(x.sum().item<std::int64_t>());
}

std::uint64_t fingerprint(const Tensor& tensor) {
  if (!tensor.is_cpu()) return fingerprint_by_torch(tensor);
  Tensor integers = as_integers(tensor);
  if (integers.dim() > 2) integers = integers.contiguous();
  const cpu::IntegerMatrix matrix = as_matrix(integers);
  return cpu::with_isa(
      [&](auto isa) { return cpu::fingerprint<decltype(isa)>(matrix, num_threads()); });
}

}  // namespace gat::binding
