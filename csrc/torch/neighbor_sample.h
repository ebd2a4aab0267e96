// Sampled neighbourhoods: checks of the arguments, results, and errors.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "../cpu/neighbor_sample.h"
#include "allocate.h"
#include "checks.h"
#include "dispatch.h"
#include "threads.h"

namespace gat::binding {

using SampledTensors = std::tuple<at::Tensor, at::Tensor, std::vector<at::Tensor>,
                                  std::vector<at::Tensor>, std::vector<at::Tensor>, at::Tensor>;

// A contiguous vector of `size` elements of this dtype; undefined where it is absent.
inline at::Tensor vector_of(const OptionalTensor& t, std::int64_t size, at::ScalarType dtype,
                            const char* name) {
  if (!t.has_value()) return {};
  TORCH_CHECK_TYPE(t->scalar_type() == dtype, name, " has dtype ", t->scalar_type(), "; expected ",
                   dtype);
  check_device(*t, at::kCPU, name);
  check_shape(*t, {size}, name);
  return t->contiguous();
}

inline void check_sampled(const cpu::SampleStatus& status, const CsrView& csr) {
  using cpu::SampleError;
  TORCH_CHECK_INDEX(status.error != SampleError::seed, "seeds has the node ", status.value,
                    "; expected nodes from 0 to ", csr.num_rows - 1);
  TORCH_CHECK_INDEX(status.error != SampleError::column, "col has the node ", status.value,
                    "; expected nodes from 0 to ", csr.num_rows - 1);
  TORCH_CHECK_VALUE(status.error != SampleError::rows, "rowptr is invalid at node ", status.value,
                    "; expected numbers that ascend from 0 to the number of edges");
  TORCH_CHECK_VALUE(status.error != SampleError::weight, "the weight of edge ", status.value,
                    " is negative, infinite or NaN; expected finite numbers of at least 0");
  TORCH_CHECK_VALUE(status.error != SampleError::size, "a layer of the batch has ", status.value,
                    " edges; expected fewer than 2^31: use fewer seeds or smaller fan-outs");
}

// Results as documented in gat_ext/ops/neighbor_sample.py.
inline SampledTensors neighbor_sample(const at::Tensor& rowptr, const at::Tensor& col,
                                      const OptionalTensor& edge_id, const at::Tensor& seeds,
                                      at::IntArrayRef fanouts, const OptionalTensor& weight,
                                      const OptionalTensor& edge_time,
                                      const OptionalTensor& node_time,
                                      const OptionalTensor& seed_time, bool replace, bool latest,
                                      bool disjoint, bool frontier, std::int64_t seed,
                                      std::int64_t epoch) {
  const std::int64_t num_edges = col.numel();
  const CsrView csr = csr_view(rowptr, col, edge_id, num_edges, at::kCPU);
  const at::Tensor start = vector_of(seeds, seeds.numel(), at::kLong, "seeds"),
                   weights = vector_of(weight, num_edges, at::kFloat, "weight"),
                   edge_times = vector_of(edge_time, num_edges, at::kLong, "edge_time"),
                   node_times = vector_of(node_time, csr.num_rows, at::kLong, "node_time"),
                   times = vector_of(seed_time, start.numel(), at::kLong, "seed_time");
  const bool timed = edge_times.defined() || node_times.defined();
  TORCH_CHECK_VALUE(!(edge_times.defined() && node_times.defined()),
                    "edge_time and node_time were both given; expected one of them");
  TORCH_CHECK_VALUE(timed == times.defined() && (disjoint || !timed) && (timed || !latest),
                    "times of edges or nodes, seed_time and disjoint trees belong together");
  TORCH_CHECK_VALUE(!(latest && weights.defined()), "weight was given for the latest edges");
  for (const std::int64_t fanout : fanouts)
    TORCH_CHECK_VALUE(fanout >= -1, "fanouts has ", fanout, "; expected at least -1");

  NeighborSampling graph{csr, num_edges, data<float>(weights), data<std::int64_t>(edge_times),
                         data<std::int64_t>(node_times)};
  graph.replace = replace, graph.latest = latest;
  cpu::SampleRequest request{data<std::int64_t>(start), data<std::int64_t>(times), start.numel(),
                             fanouts.data(), static_cast<std::int64_t>(fanouts.size())};
  request.disjoint = disjoint, request.frontier = frontier;
  request.seed = seed, request.epoch = epoch;
  const std::int64_t trees = disjoint ? std::max<std::int64_t>(start.numel(), 1) : 1;
  TORCH_CHECK_VALUE(csr.num_rows <= std::numeric_limits<std::int64_t>::max() / trees,
                    "disjoint trees of ", trees, " seeds in a graph of ", csr.num_rows,
                    " nodes: expected a product below 2^63");

  SampledTensors results;
  auto& [n_id, tree, rowptrs, cols, edge_ids, num_nodes] = results;
  num_nodes = at::empty({request.num_layers + 1}, start.options());
  std::int64_t* const counts = num_nodes.mutable_data_ptr<std::int64_t>();
  counts[0] = start.numel();
  cpu::SampledNodes nodes;
  const auto allocate_rows = [&](std::int64_t, std::int64_t rows, std::int64_t edges) {
    rowptrs.push_back(allocate({rows + 1}, start.options()));
    cols.push_back(allocate({edges}, start.options().dtype(at::kInt)));
    edge_ids.push_back(allocate({edges}, start.options()));
    return cpu::SampledRows{mutable_data<std::int64_t>(rowptrs.back()),
                            mutable_data<std::int32_t>(cols.back()),
                            mutable_data<std::int64_t>(edge_ids.back())};
  };
  check_sampled(cpu::sample_neighbors(
                    graph, request, nodes, num_threads(), allocate_rows,
                    [&](std::int64_t layer, std::int64_t count) { counts[layer + 1] = count; }),
                csr);
  const auto tensor_of = [&](const std::vector<std::int64_t>& values) {
    const at::Tensor t = allocate({static_cast<std::int64_t>(values.size())}, start.options());
    std::copy(values.begin(), values.end(), mutable_data<std::int64_t>(t));
    return t;
  };
  n_id = tensor_of(disjoint ? nodes.node : nodes.key);
  tree = tensor_of(nodes.tree);
  return results;
}

}  // namespace gat::binding
