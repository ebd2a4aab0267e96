// The schemas of every operator.
#include <ATen/core/enum_tag.h>
#include <torch/library.h>

#include <string>
#include <vector>

// Graph arguments: rowptr [N_dst + 1], col [E] and edge_id [E] (the caller's position of each edge; None: CSR order) are the CSR
// by destination; t_rowptr [N_src + 1], t_col [E], t_edge_id [E] the transpose, by source, needed for gradients only; t_pos [E]
// is the CSR position of each edge of the transpose. All edge tensors are in the caller's order.
//
// softmax [N_dst, H, 2] is the RowSoftmax of each row and head: the backward needs it, and never lse, which is for the caller.
TORCH_LIBRARY(gat_ext, m) {
  m.def("csr_of_edges(Tensor src, Tensor dst, SymInt num_dst) -> (Tensor rowptr, Tensor col, Tensor edge_id)");
  m.def(
      "checked_csr(Tensor edge_index, SymInt num_src, SymInt num_dst, bool narrow) -> (Tensor rowptr, Tensor col, Tensor "
      "edge_id)");
  m.def("csr_transpose(Tensor rowptr, Tensor col, SymInt num_src) -> (Tensor t_rowptr, Tensor t_col, Tensor t_pos)");

  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def("linear_backward(Tensor grad, Tensor x, Tensor weight, bool[3] needs_grad) -> (Tensor x, Tensor weight, Tensor bias)");
  m.def("add(Tensor x, Tensor other) -> Tensor");
  m.def("scale(Tensor x, Tensor factor) -> Tensor");
  m.def("relu(Tensor x) -> Tensor");
  m.def("relu_backward(Tensor grad, Tensor out) -> Tensor");
  m.def("dropout(Tensor x, Tensor seed, float p) -> Tensor");
  m.def("inverse_norm(Tensor x, float eps) -> Tensor");

  m.def("edge_softmax(Tensor rowptr, Tensor? edge_id, Tensor scores) -> Tensor");
  m.def("edge_softmax_backward(Tensor rowptr, Tensor? edge_id, Tensor grad, Tensor alpha) -> Tensor");

  const std::string graph = "Tensor rowptr, Tensor col, Tensor? edge_id, Tensor? t_rowptr, Tensor? t_col, Tensor? t_edge_id";
  m.def(("sddmm(" + graph + ", Tensor x, Tensor y) -> Tensor").c_str());
  m.def(("spmm(" + graph + ", Tensor? weight, Tensor x) -> Tensor").c_str());
  m.def(("spmm_extremum(" + graph + ", Tensor? weight, Tensor x, bool largest) -> (Tensor out, Tensor arg)").c_str());
  m.def(
      "spmm_extremum_backward(Tensor t_rowptr, Tensor t_col, Tensor t_edge_id, Tensor? weight, Tensor grad, Tensor arg) -> "
      "Tensor");

  m.def("edge_dropout_mask(Tensor seed, SymInt num_edges, SymInt num_heads, float dropout_p) -> Tensor");

  const std::string inputs =
      "Tensor value, Tensor? query, Tensor? key, Tensor? att, Tensor? dst_term, Tensor? src_term, Tensor? edge_term, "
      "Tensor? bias, Tensor? edge_feat, Tensor? seed, str score, bool edge_in_value, float negative_slope, float scale, "
      "float dropout_p";
  const std::string forward =
      inputs +
      ", int top_k, bool return_weights, bool return_lse) -> (Tensor out, Tensor lse, Tensor softmax, Tensor out_acc, Tensor "
      "selected, Tensor weights)";
  const std::string backward =
      inputs +
      ", Tensor grad_out, Tensor? grad_lse, Tensor? grad_weights, Tensor out_acc, Tensor softmax, Tensor selected, Tensor "
      "weights, "
      "bool[] needs_grad) -> (Tensor value, Tensor query, Tensor key, Tensor att, Tensor dst_term, Tensor src_term, "
      "Tensor edge_term, Tensor bias, Tensor edge_feat)";
  const std::string sorted =
      "Tensor rowptr, Tensor col, Tensor? edge_id, Tensor? t_rowptr, Tensor? t_col, Tensor? t_pos, Tensor? t_edge_id, ";
  m.def(("edge_attention(" + sorted + forward).c_str());
  m.def(("edge_attention_backward(" + sorted + backward).c_str());
  // edges is an edge_index [2, E], or a rowptr that goes with col and edge_id. Edge tensors have a row for each slot: the edges
  // given, then, with self_loops, those of the nodes, which replace what loops were given.
  const std::string adjacency = "Tensor edges, Tensor? col, Tensor? edge_id, SymInt num_src, SymInt num_dst, bool self_loops";
  // They look at the edges: a recorded CUDA graph would go on with those of its recording.
  const std::vector<at::Tag> tags{at::Tag::cudagraph_unsafe};
  m.def(("adjacency_attention(" + adjacency + ", bool for_backward, " + forward).c_str(), tags);
  m.def(("adjacency_attention_backward(" + adjacency + ", " + backward).c_str(), tags);
  m.def(("edge_slots(" + adjacency + ") -> Tensor").c_str(), tags);

  const std::string agents = "Tensor rowptr, Tensor col, Tensor current, ";
  m.def(("walk_step(" + agents +
         "Tensor rank, Tensor node_type, Tensor seed, SymInt step, bool greedy) -> (Tensor log_prob, Tensor next)")
            .c_str());
  m.def(("walk_step_backward(" + agents + "Tensor next, Tensor rank, Tensor node_type, Tensor grad) -> Tensor").c_str());
  // weight [E] is float64 and in CSR order.
  m.def("random_walk(Tensor rowptr, Tensor col, Tensor? weight, Tensor start, SymInt length, Tensor seed) -> Tensor");
}
