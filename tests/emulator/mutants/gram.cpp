// R = G - A and its squared norm for 72 channels, which is two units, on tensor cores or, with SIMT, with ordinary
// multiply-adds.
#include "gram.cuh"

#include "driver.h"

namespace fastnst::kernels {

double gram_error() {
  using emulator::larger;
  using emulator::Memory;
#ifdef SIMT
  const GramPath path = GramPath::kSimt;
#else
  const GramPath path = GramPath::kRows;
#endif
  const int64_t channels = 72, positions = 660;
  Memory<float> x("x", channels * positions, Memory<float>::kInput);
  const FeatureMap<float> map{x.data(), 1, channels, positions, channels * positions, positions, 1};
  const GramPlan plan = gram_plan(map, path, Card{true, 132}, 9);
  Memory<float> target("target", channels * channels, Memory<float>::kInput), loss("loss", 1, Memory<float>::kOutput);
  Memory<float> out("out", channels * channels, Memory<float>::kOutput);
  Memory<float> partial("partial", plan.partial_values(), Memory<float>::kOutput);
  Memory<double> losses("losses", plan.losses(), Memory<double>::kOutput);
  Memory<unsigned> counter("counter", 1, Memory<unsigned>::kOutput);
  GramTask<float> task{};
  task.scale = 1;
  task.target = target.data();
  task.loss = loss.data();
  task.out = out.data();
  task.partial = partial.data();
  task.losses = losses.data();
  task.counter = counter.data();
#ifdef SIMT
  launch(gram_simt<float>, dim3(static_cast<unsigned>(plan.blocks())), kSimtThreads, 0, nullptr, map, plan, task);
#else
  launch(gram_tiles<float, Load::kRows, Multiply::kTf32x3, false, false>, dim3(static_cast<unsigned>(plan.blocks())),
         kGramThreads, static_cast<size_t>(plan.stages) * kStageBytes, nullptr, map, plan, task,
         static_cast<const float*>(nullptr), static_cast<float*>(nullptr));
#endif
  launch_gram_finish(plan, task, positions, nullptr);
  double worst = 0, expected_loss = 0;
  for (int64_t i = 0; i < channels; ++i)
    for (int64_t j = 0; j < channels; ++j) {
      double sum = 0, size = 0;
      for (int64_t n = 0; n < positions; ++n) {
        const double product = static_cast<double>(x[i * positions + n]) * x[j * positions + n];
        sum += product;
        size += std::fabs(product);
      }
      const double residual = sum - target[i * channels + j];
      expected_loss += residual * residual;
      worst = larger(worst, std::fabs(out[i * channels + j] - residual) / (1e-5 * size));
    }
  return larger(worst, std::fabs(loss[0] - expected_loss) / (1e-5 * expected_loss));
}

}  // namespace fastnst::kernels

int main() { return emulator::drive(fastnst::kernels::gram_error); }
