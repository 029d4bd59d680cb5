// The headers of kernels_impl.h, included before the instruction set is raised: inline code of the standard library and
// torch must be compiled for the baseline, because the linker keeps one copy of it for the whole module.
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
#include "workspace.h"
