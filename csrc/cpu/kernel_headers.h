// Everything kernels_impl.h needs, included before the instruction set is raised: code that the standard library or
// torch's headers define must stay on the baseline, since the linker keeps one copy of it for the whole module.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"
