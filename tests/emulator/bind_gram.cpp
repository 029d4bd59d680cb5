// The Gram kernels: sums over the positions of features [B, C, N], and the results.
#include "bind.h"
#include "feature_map.h"
#include "gram.cuh"

namespace emulator {
namespace {

using namespace fastnst::kernels;

py::dict plan_of(const Buffer& x, bool weighted, bool tf32, bool simt, int splits, int multiprocessors) {
  using py::operator""_a;
  py::dict result;
  with_type(x, [&](auto zero) {
    const auto map = feature_map<decltype(zero)>(x);
    const Card card{tf32, multiprocessors};
    const GramPath path = simt ? GramPath::kSimt : gram_path(map, weighted, card);
    const GramPlan plan = gram_plan(map, path, card, splits);
    result = py::dict("path"_a = path == GramPath::kRows       ? "rows"
                                 : path == GramPath::kChannels ? "channels"
                                                               : "simt",
                      "splits"_a = plan.splits, "diagonal_splits"_a = plan.diagonal_splits, "blocks"_a = plan.blocks(),
                      "partial"_a = plan.partial_values(), "losses"_a = plan.losses(),
                      "fuses_bias"_a = fuses_bias(path, map.channels));
  });
  return result;
}

void run_gram(const Buffer& x, const Buffer& out, const Buffer& partial, const Buffer& losses, const Buffer& counter,
              double scale, const Buffer* weight, const Buffer* target, const Buffer* mean, const Buffer* loss,
              const Buffer* bias, const Buffer* activated, bool tf32, bool simt, bool plain, int splits,
              int multiprocessors, const std::string& only) {
  with_type(x, [&](auto zero) {
    using T = decltype(zero);
    using A = ComputeOf<T>;
    const auto map = feature_map<T>(x);
    const Card card{tf32, multiprocessors};
    const GramPath path = simt ? GramPath::kSimt : gram_path(map, weight != nullptr, card);
    const GramPlan plan = gram_plan(map, path, card, splits);
    GramTask<A> task{};
    task.scale = static_cast<A>(scale);
    task.weight = data<A>(weight);
    task.target = data<A>(target);
    task.out = out.data<A>();
    task.mean = data<A>(mean);
    task.loss = data<A>(loss);
    task.partial = partial.data<A>();
    task.losses = losses.data<double>();
    task.counter = counter.data<unsigned>();
    if (only != "finish")
      launch_gram_partial<T>(map, path, plan, task, plain, nullptr, data<T>(bias), data<T>(activated));
    if (only != "partial") launch_gram_finish(plan, task, map.positions, nullptr);
  });
}

}  // namespace
}  // namespace emulator

void bind_gram(py::module_& m) {
  using namespace emulator;
  m.def("gram_plan", &plan_of, py::arg("x"), py::arg("weighted") = false, py::arg("tf32") = true,
        py::arg("simt") = false, py::arg("splits") = 0, py::arg("multiprocessors") = 132);
  // Both kernels, or only one of them: "partial" or "finish".
  m.def("gram", &run_gram, py::arg("x"), py::arg("out"), py::arg("partial"), py::arg("losses"), py::arg("counter"),
        py::arg("scale"), py::arg("weight") = nullptr, py::arg("target") = nullptr, py::arg("mean") = nullptr,
        py::arg("loss") = nullptr, py::arg("bias") = nullptr, py::arg("activated") = nullptr, py::arg("tf32") = true,
        py::arg("simt") = false, py::arg("plain") = false, py::arg("splits") = 0, py::arg("multiprocessors") = 132,
        py::arg("only") = "");
}
