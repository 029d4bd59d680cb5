// Selects the kernel table: the widest instruction set that the processor supports, unless FASTNST_CPU names another.
#include <cstdlib>
#include <string>

#include "kernels.h"

namespace fastnst::cpu {
namespace {

const Kernels& choose() {
  const char* forced = std::getenv("FASTNST_CPU");
  const std::string want = forced ? forced : "";
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
  if (pairs && (want.empty() || want == "avx512_bf16")) return avx512_bf16_kernels();
  if (avx512 && (want.empty() || want == "avx512")) return avx512_kernels();
  if (avx2 && (want.empty() || want == "avx2")) return avx2_kernels();
#elif defined(__aarch64__)
  if (want.empty() || want == "neon") return neon_kernels();
#endif
  check(want.empty() || want == "portable", "FASTNST_CPU=", want,
        ": expected portable, avx2, avx512, avx512_bf16 or neon, and an instruction set that this processor supports");
  return portable_kernels();
}

std::string cpu_kernels() { return kernels().name; }

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace fastnst::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(fastnst, m) { m.def("cpu_kernels() -> str"); }
STABLE_TORCH_LIBRARY_IMPL(fastnst, CompositeExplicitAutograd, m) {
  m.impl("cpu_kernels", TORCH_BOX(&fastnst::cpu::cpu_kernels));
}
