// The schemas of every operator, and the Python module gat_ext._C.
#include <ATen/Parallel.h>
#include <pybind11/pybind11.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>

#include "../core/scores/all.h"
#include "../cpu/isa.h"
#include "allocate.h"

// Graph arguments: rowptr [N_dst + 1], col [E] and edge_id [E] (the caller's position of each edge; None: CSR order) are the CSR
// by destination; t_rowptr [N_src + 1], t_col [E], t_edge_id [E] the transpose, by source, needed for gradients only; t_pos [E]
// is the CSR position of each edge of the transpose. All edge tensors are in the caller's order.
TORCH_LIBRARY(gat_ext, m) {
  m.def("csr_of_edges(Tensor src, Tensor dst, SymInt num_dst) -> (Tensor rowptr, Tensor col, Tensor edge_id)");
  m.def("checked_csr(Tensor edge_index, SymInt num_src, SymInt num_dst) -> (Tensor rowptr, Tensor col, Tensor edge_id)");
  m.def("csr_transpose(Tensor rowptr, Tensor col, SymInt num_src) -> (Tensor t_rowptr, Tensor t_col, Tensor t_pos)");

  m.def("linear(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  m.def("linear_backward(Tensor grad, Tensor x, Tensor weight, bool[3] needs_grad) -> (Tensor x, Tensor weight, Tensor bias)");
  m.def("add(Tensor x, Tensor other) -> Tensor");
  m.def("scale(Tensor x, Tensor factor) -> Tensor");
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
      inputs + ", int top_k, bool return_weights) -> (Tensor out, Tensor lse, Tensor out_acc, Tensor selected, Tensor weights)";
  const std::string backward =
      inputs +
      ", Tensor grad_out, Tensor? grad_lse, Tensor? grad_weights, Tensor out_acc, Tensor lse, Tensor selected, Tensor weights, "
      "bool[] needs_grad) -> (Tensor value, Tensor query, Tensor key, Tensor att, Tensor dst_term, Tensor src_term, "
      "Tensor edge_term, Tensor bias, Tensor edge_feat)";
  const std::string sorted =
      "Tensor rowptr, Tensor col, Tensor? edge_id, Tensor? t_rowptr, Tensor? t_col, Tensor? t_pos, Tensor? t_edge_id, ";
  m.def(("edge_attention(" + sorted + forward).c_str());
  m.def(("edge_attention_backward(" + sorted + backward).c_str());
  // edges is an edge_index [2, E], or a rowptr that goes with col and edge_id. Edge tensors have a row for each slot: the edges
  // given, then, with self_loops, those of the nodes, which replace what loops were given.
  const std::string adjacency = "Tensor edges, Tensor? col, Tensor? edge_id, SymInt num_src, SymInt num_dst, bool self_loops";
  m.def(("adjacency_attention(" + adjacency + ", bool for_backward, " + forward).c_str());
  m.def(("adjacency_attention_backward(" + adjacency + ", " + backward).c_str());
  m.def(("edge_slots(" + adjacency + ") -> Tensor").c_str());

  const std::string agents = "Tensor rowptr, Tensor col, Tensor current, ";
  m.def(("walk_step(" + agents +
         "Tensor rank, Tensor node_type, Tensor seed, SymInt step, bool greedy) -> (Tensor log_prob, Tensor next)")
            .c_str());
  m.def(("walk_step_backward(" + agents + "Tensor next, Tensor rank, Tensor node_type, Tensor grad) -> Tensor").c_str());
  // weight [E] is float64 and in CSR order.
  m.def("random_walk(Tensor rowptr, Tensor col, Tensor? weight, Tensor start, SymInt length, Tensor seed) -> Tensor");
}

namespace {

// {name: what it reads of an edge besides the value}
template <class... Ss>
pybind11::dict score_inputs(gat::TypeList<Ss...>) {
  pybind11::dict scores;
  const auto add = [&](const char* name, bool has_term, bool has_weight, bool has_node_terms) {
    pybind11::list inputs;
    if (has_term) inputs.append("query"), inputs.append("key");
    if (has_weight) inputs.append("att");
    if (has_node_terms) inputs.append("dst_term"), inputs.append("src_term");
    scores[name] = pybind11::tuple(inputs);
  };
  (add(Ss::name, Ss::has_term, Ss::has_weight, Ss::has_node_terms), ...);
  return scores;
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["torch"] = TORCH_VERSION;
  info["compiler"] = __VERSION__;
#if defined(_OPENMP)
  info["openmp"] = _OPENMP;
#else
  info["openmp"] = 0;
#endif
#if defined(GAT_EXT_WITH_CUDA)
  info["cuda"] = true;
#else
  info["cuda"] = false;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native operators of gat_ext; importing this module registers them as torch.ops.gat_ext.*";
  m.def("build_info", &build_info, "What the extension was built with: torch, compiler, openmp, cuda.");
  m.def("score_inputs", [] { return score_inputs(gat::Scores{}); }, "The inputs that each score of edge_attention needs.");
  m.def("score_names", [] { return pybind11::list(score_inputs(gat::Scores{})); }, "The scores that edge_attention knows.");
  m.def("num_threads", [] { return at::get_num_threads(); }, "Threads that the CPU operators use: torch.get_num_threads().");
  m.def("empty_cache", &gat::binding::empty_block_cache, "Gives the CPU memory that is kept for further results back.");
  m.def("isa", [] { return gat::cpu::isa_name(gat::cpu::chosen_isa()); }, "Instruction set that the CPU operators run on.");
}
