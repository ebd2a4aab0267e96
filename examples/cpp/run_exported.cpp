// A model for C++: the program
// ============================
//
// Runs a model that export_model.py exported, without Python, and compares its result with the one
// that Python had::
//
//   run_exported FOLDER LIBGAT_EXT
#include <ATen/core/ivalue.h>
#include <ATen/ops/allclose.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

int main(int argc, char** argv) {
  TORCH_CHECK(argc == 3, "usage: run_exported FOLDER LIBGAT_EXT");
  const std::string folder = argv[1];
  // The operators register themselves when their library is loaded.
  TORCH_CHECK(dlopen(argv[2], RTLD_NOW | RTLD_GLOBAL) != nullptr, dlerror());

  std::ifstream file(folder + "/sample.pt", std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file),
                                std::istreambuf_iterator<char>()};
  const auto sample = torch::jit::pickle_load(bytes).toTuple();
  const at::Tensor x = sample->elements()[0].toTensor(),
                   edge_index = sample->elements()[1].toTensor();
  const at::Tensor expected = sample->elements()[2].toTensor();

  torch::inductor::AOTIModelPackageLoader model(folder + "/gat.pt2");
  const at::Tensor out = model.run({x, edge_index}).at(0);
  TORCH_CHECK(at::allclose(out, expected, 1e-5, 1e-5), "C++ and Python disagree");
  // Edges are checked here, too.
  bool refused = false;
  try {
    model.run({x.narrow(0, 0, 10), edge_index});
  } catch (const std::exception&) {
    refused = true;
  }
  TORCH_CHECK(refused, "an edge to a node that does not exist was taken");
  std::printf("%lld nodes, %lld edges: as in Python\n", static_cast<long long>(x.size(0)),
              static_cast<long long>(edge_index.size(1)));
}
