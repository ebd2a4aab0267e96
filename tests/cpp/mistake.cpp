// A mistake of the kind that the named sanitizer detects, in a parallel loop: a build that does not
// report it reports nothing.
#include <cstring>
#include <limits>
#include <vector>

int main(int argc, char** argv) {
  const char* const kind = argc > 1 ? argv[1] : "";
  const bool race = std::strcmp(kind, "thread") == 0,
             overflow = std::strcmp(kind, "undefined") == 0;
  const int step = race ? 0 : 1, behind = std::strcmp(kind, "address") == 0 ? 1 : 0;
  std::vector<int> x(4, overflow ? std::numeric_limits<int>::max() : 0);
#pragma omp parallel for num_threads(2) schedule(dynamic, 1)
  for (int i = 0; i < 4; ++i) x.data()[i * step + behind] += argc;
  return x[0] == 17;
}
