// The Python module gat_ext._C, on top of the library, which itself does not depend on Python.
#include <pybind11/pybind11.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/version.h>

#include "../core/scores/all.h"
#include "../cpu/cpu_quota.h"
#include "../cpu/isa.h"
#include "../cpu/memory_limit.h"
#include "../cpu/waiting.h"
#include "adjacency.h"
#include "allocate.h"
#include "fingerprint.h"
#include "schema.h"
#include "threads.h"

namespace {

using namespace gat::binding;

// {input of edge_attention: the letters of its dimensions}
pybind11::dict input_dims() {
  pybind11::dict dims;
  for (const InputSchema& input : kInputs) dims[input.name] = input.dims;
  return dims;
}

// {name: (has_term, has_weight, has_node_terms)}, as in csrc/core/scores/score.h
template <class... Ss>
pybind11::dict score_traits(gat::TypeList<Ss...>) {
  pybind11::dict traits;
  ((traits[Ss::name] = pybind11::make_tuple(Ss::has_term, Ss::has_weight, Ss::has_node_terms)),
   ...);
  return traits;
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

template <std::uint64_t (*f)(const at::Tensor&)>
std::uint64_t fingerprint(pybind11::handle tensor) {
  if (!THPVariable_Check(tensor.ptr()))
    throw pybind11::type_error("fingerprint expects a torch.Tensor");
  const at::Tensor& unpacked = THPVariable_Unpack(tensor.ptr());
  const pybind11::gil_scoped_release without_gil;
  return f(unpacked);
}

void empty_cache() {
  gat::binding::empty_graph_cache();
  gat::binding::empty_block_cache();
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() =
      "Native operators of gat_ext; importing this module loads the library that registers them "
      "as torch.ops.gat_ext.*";
  m.def("build_info", &build_info,
        "The versions with which the extension was built: torch, compiler, openmp, cuda.");
  m.def(
      "score_traits", [] { return score_traits(gat::Scores{}); },
      "The traits of each score of edge_attention: (has_term, has_weight, has_node_terms).");
  m.def("input_dims", &input_dims,
        "The differentiable inputs of edge_attention, with one letter per dimension.");
  m.def(
      "num_threads", [] { return gat::binding::num_threads(); },
      "The number of threads that the CPU operators use: torch.get_num_threads(), or the CPU quota "
      "of "
      "this process's cgroups if that is less.");
  m.def("cpu_quota", &gat::cpu::cpu_quota, pybind11::arg("root") = "",
        "Seconds of CPU time per second that this process's cgroups allow, of a system with this "
        "root; "
        "inf where there is no quota.");
  m.def("waits_briefly", &gat::cpu::waits_briefly,
        "Whether waiting threads spin for microseconds only, as beside other busy processes.");
  m.def("empty_cache", &empty_cache,
        "Frees the CPU memory kept for later results, and the cache of sorted edges.");
  m.def(
      "memory_limit", [] { return gat::cpu::memory_limit(); },
      "Bytes of memory that this process may use: the machine's, or its cgroups' lowest limit.");
  m.def("graph_cache_size", &gat::binding::graph_cache_size,
        "The number of entries in the cache of sorted edges.");
  m.def("fingerprint", &fingerprint<&gat::binding::fingerprint>,
        "A 64-bit fingerprint of the contents of a tensor.");
  m.def("fingerprint_by_torch", &fingerprint<&gat::binding::fingerprint_by_torch>,
        "The same fingerprint, computed by torch's operators.");
  m.def(
      "isa", [] { return gat::cpu::isa_name(gat::cpu::chosen_isa()); },
      "The instruction set of the CPU operators.");
}
