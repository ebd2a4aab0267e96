// The registry of scores: a new score is one header beside this one and one name here.
#pragma once

#include "../types.h"
#include "additive.h"
#include "additive_v2.h"
#include "cosine.h"
#include "dot.h"
#include "supergat_mx.h"

namespace gat {

using Scores = TypeList<Additive, AdditiveV2, Dot, Cosine, SuperGatMx>;

}  // namespace gat
