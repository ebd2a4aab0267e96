// The schemas of every operator.
#include <torch/library.h>

#include <string>

#include "adjacency.h"
#include "schema.h"

namespace gat::binding {

// Edge tensors are in the order of the caller's edges; the groups of arguments are documented in
// schema.h.
TORCH_LIBRARY(gat_ext, m) {
  m.def(
      "csr_of_edges(Tensor src, Tensor dst, SymInt num_dst) "
      "-> (Tensor rowptr, Tensor col, Tensor edge_id)");
  m.def(
      "csr_transpose(Tensor rowptr, Tensor col, SymInt num_src) "
      "-> (Tensor t_rowptr, Tensor t_col, Tensor t_pos)");

  m.def(
      "csr_with_loops(Tensor rowptr, Tensor col, Tensor? edge_id, SymInt num_loops) "
      "-> (Tensor rowptr, Tensor col, Tensor edge_id, Tensor kept)");

  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def(
      "linear_backward(Tensor grad, Tensor x, Tensor weight, bool[3] needs_grad) "
      "-> (Tensor x, Tensor weight, Tensor bias)");
  m.def("add(Tensor x, Tensor other) -> Tensor");
  m.def("scale(Tensor x, Tensor factor) -> Tensor");
  m.def("relu(Tensor x) -> Tensor");
  m.def("relu_backward(Tensor grad, Tensor out) -> Tensor");
  m.def("dropout(Tensor x, Tensor seed, float p, Tensor? row_number=None) -> Tensor");
  m.def("inverse_norm(Tensor x, float eps) -> Tensor");

  m.def("head_terms(Tensor x, Tensor vectors) -> Tensor");
  m.def(
      "head_terms_backward(Tensor grad, Tensor x, Tensor vectors, bool grad_x, bool grad_vectors) "
      "-> (Tensor x, Tensor vectors)");

  m.def("edge_softmax(Tensor rowptr, Tensor? edge_id, Tensor scores) -> Tensor");
  m.def(
      "edge_softmax_backward(Tensor rowptr, Tensor? edge_id, Tensor grad, Tensor alpha) -> Tensor");

  const std::string graph =
      "Tensor rowptr, Tensor col, Tensor? edge_id, "
      "Tensor? t_rowptr, Tensor? t_col, Tensor? t_edge_id";
  m.def(("sddmm(" + graph + ", Tensor x, Tensor y) -> Tensor").c_str());
  m.def(("spmm(" + graph + ", Tensor? weight, Tensor x) -> Tensor").c_str());
  m.def(("spmm_extremum(" + graph +
         ", Tensor? weight, Tensor x, bool largest) -> (Tensor out, Tensor arg)")
            .c_str());
  m.def(("spmm_extremum_backward(" + graph + ", Tensor? weight, Tensor grad, Tensor arg) -> Tensor")
            .c_str());
  m.def(
      "winner_sum(Tensor rowptr, Tensor? edge_id, SymInt num_edges, Tensor values, Tensor arg) -> "
      "Tensor");

  m.def("edge_dot(Tensor rowptr, Tensor? edge_id, Tensor query, Tensor edge_attr) -> Tensor");
  m.def("edge_sum(Tensor rowptr, Tensor? edge_id, Tensor weight, Tensor edge_attr) -> Tensor");

  m.def(
      "edge_dropout_mask(Tensor seed, SymInt num_edges, SymInt num_heads, float dropout_p, "
      "Tensor? edge_number=None) -> Tensor");

  m.def(ops::EdgeAttention::schema().c_str());
  m.def(ops::EdgeAttentionBackward::schema().c_str());
  m.def(ops::AdjacencyCsr::schema().c_str());

  const std::string agents = "Tensor rowptr, Tensor col, Tensor current, ";
  m.def(("walk_step(" + agents +
         "Tensor rank, Tensor node_type, Tensor seed, SymInt step, bool greedy) "
         "-> (Tensor log_prob, Tensor next)")
            .c_str());
  m.def(("walk_step_backward(" + agents +
         "Tensor next, Tensor rank, Tensor node_type, Tensor grad) -> Tensor")
            .c_str());
  // weight [E] is float64 and in CSR order.
  m.def(
      "random_walk(Tensor rowptr, Tensor col, Tensor? weight, Tensor start, SymInt length, "
      "Tensor seed) -> Tensor");

  // Tensors of edges are in CSR order, except for the results' edge_id; the seeds' layer is first.
  m.def(
      "neighbor_sample(Tensor rowptr, Tensor col, Tensor? edge_id, Tensor seeds, int[] fanouts, "
      "Tensor? weight, Tensor? edge_time, Tensor? node_time, Tensor? seed_time, bool replace, "
      "bool latest, bool disjoint, bool frontier, int seed, int epoch) -> (Tensor n_id, "
      "Tensor tree, Tensor[] rowptr_of_layers, Tensor[] col_of_layers, Tensor[] edge_id_of_layers, "
      "Tensor num_nodes)");
}

}  // namespace gat::binding
