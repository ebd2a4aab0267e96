// The table of fused edge attention kernels of one instruction set and storage type.
#pragma once

#include "../../core/scores/all.h"
#include "edge_attention_backward.h"
#include "edge_attention_forward.h"

namespace gat::cpu {

template <class Isa, class T, class... Ss>
EdgeAttentionKernels<T> pick_score(TypeList<Ss...>, int score) {
  static constexpr EdgeAttentionKernels<T> table[] = {
      {&edge_attention_select<Isa, Ss, T>, &edge_attention_forward<Isa, Ss, T>,
       &edge_attention_weights<Isa, T>, &edge_attention_delta<Isa, Ss, T>,
       &edge_attention_backward<Isa, Ss, T>}...};
  return table[score];
}

template <class Isa, class T>
EdgeAttentionKernels<T> edge_attention_kernels(int score) {
  return pick_score<Isa, T>(Scores{}, score);
}

}  // namespace gat::cpu
