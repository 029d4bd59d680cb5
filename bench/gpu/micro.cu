// Every kernel at the style layers of VGG-19, without torch: checked against float64, then timed, beside cuBLAS.
//
//   nvcc -std=c++17 -O3 --extended-lambda -arch=sm_90 -I csrc/kernels -I bench/gpu/micro -DMICRO_TYPE=__nv_bfloat16
//     -DFASTNST_CUBLAS bench/gpu/micro.cu -lcublas -o micro
//   ./micro [--sides 512,1024] [--seconds 30] [--ops pool,style_loss]    a line of JSON for each variant
//   ./micro --once [--sides 512]    every op once, for ncu --profile-from-start off: no reference, no times
//   ./micro --list    the problems, with their least bytes and operations; needs no device
//
// MICRO_TYPE is float, __half or __nv_bfloat16: a program for each compiles in seconds. Float has the precisions
// float32 (three tf32 products) and tf32. First come the card's peaks, then every op as the library launches it beside
// cuBLAS's product alone, in channels_last and in contiguous memory, then sweeps over splits and ordinary
// multiply-adds. What the seconds are too short for is counted in the last line.
#include <chrono>
#include <cstring>

#ifndef FASTNST_EMULATED
#include <cuda_profiler_api.h>
#endif

#include "harness.cuh"
#include "launches.cuh"
#include "library.cuh"
#include "reference.cuh"

#ifndef MICRO_TYPE
#define MICRO_TYPE float
#endif

namespace micro {
namespace {

using T = MICRO_TYPE;
constexpr bool kSingle = std::is_same<T, float>::value;

std::vector<std::string> precisions() {
  if (kSingle) return {"float32", "tf32"};
  return {std::is_same<T, __half>::value ? "half" : "bfloat16"};
}

// The bounds of bench/gpu/problems.py.
double bound_of(const std::string& precision) {
  return precision == "float32" ? 1e-5 : precision == "bfloat16" ? 1e-2 : 2e-3;
}

constexpr const char* kOps[] = {"style_loss",
                                "style_loss backward",
                                "bias_relu_style_loss",
                                "content_loss",
                                "content_loss backward",
                                "bias_relu_",
                                "pool",
                                "pool backward",
                                "total_variation",
                                "total_variation backward"};

// One launch that a profiler sees.
void profile(const Problem& p, const Variant& variant) {
  if (variant.prepare) variant.prepare();
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::printf("%s %s %lld %s\n", p.op.c_str(), p.layer.name, static_cast<long long>(p.side), p.precision.c_str());
  std::fflush(stdout);
  check(cudaProfilerStart(), "cudaProfilerStart");
  variant.run();
  check(cudaDeviceSynchronize(), variant.name.c_str());
  check(cudaProfilerStop(), "cudaProfilerStop");
}

struct Options {
  std::vector<int64_t> sides = {512, 1024};
  double seconds = 30;
  std::string ops;  // between commas; every op where it is empty
  bool list = false, once = false;
};

struct Bench {
  Clock clock;
  Library library;
  bool once;
  std::chrono::steady_clock::time_point end;

  void run(const Problem& p, const std::vector<Variant>& variants) const {
    for (const Variant& variant : variants) {
      if (!once) measure(clock, p, variant, bound_of(p.precision));
      if (once && variant.name == "default") profile(p, variant);
    }
  }
  bool over() const { return std::chrono::steady_clock::now() > end; }
};

double worst(double a, double b) { return std::isnan(a) || std::isnan(b) ? NAN : std::max(a, b); }

Buffer<float> target_of(const Problem& p) {
  // Symmetric, and of the size of a Gram matrix of features after a ReLU.
  Buffer<float> made(p.channels() * p.channels());
  const int64_t c = p.channels();
  float* to = made.get();
  each(made.count(), [=] __device__(int64_t i) { to[i] = 0.3f + 0.2f * sinf(0.7f * (i / c) * (i % c)); });
  return made;
}

template <typename Run>
Variant named(const std::string& name, int64_t splits, Run run, std::function<double()> error) {
  return {name, splits, {}, run, error};
}

// R and its squared norm; `sweep` tries other splits and the kernel without tensor cores.
void style_loss(const Bench& bench, const Problem& p, bool sweep) {
  const Buffer<T> x = noise<T>(p.size(), 1, true);
  const Buffer<float> target = target_of(p), out(target.count()), loss(1);
  const float scale = 1.f / p.positions();
  const Buffer<double> exact = residual(p, x, scale, target);
  const double* r = exact.get();
  const Buffer<double> exact_loss = sum_of(exact.count(), [=] __device__(int64_t i) { return r[i] * r[i]; });
  const auto error = [=] { return worst(relative_error(out, exact), relative_error(loss, exact_loss)); };
  std::vector<Variant> variants;
  const auto add = [&](const std::string& name, const Gram<T>& gram) {
    variants.push_back({name, gram.plan.splits, [=] { out.poison(); }, [=] { gram(); }, error});
  };
  const Gram<T> chosen(p, x, scale, target, out, loss);
  if (!sweep) {
    add("default", chosen);
    const auto product = [&bench, p, x, scale, out] { bench.library.gram(p, x.get(), scale, -1.f, out.get()); };
    if (kLibrary)
      variants.push_back(
          {"cublas", 0, [=] { out.copy_from(target); }, product, [=] { return relative_error(out, exact); }});
  } else {
    int64_t last = 0;
    for (int64_t splits = std::max(1, chosen.plan.splits / 8); splits <= 8 * chosen.plan.splits; splits *= 2) {
      const Gram<T> gram(p, x, scale, target, out, loss, static_cast<int>(splits));
      if (gram.plan.splits != last) add("splits", gram);
      last = gram.plan.splits;
    }
    if (chosen.tensor_cores()) add("ordinary", Gram<T>(p, x, scale, target, out, loss, 0, true));
  }
  bench.run(p, variants);
}

void style_backward(const Bench& bench, const Problem& p, bool sweep) {
  const Buffer<T> x = noise<T>(p.size(), 1, true), above = noise<T>(p.size(), 2), out(p.size());
  const Buffer<float> matrix = target_of(p);
  const float factor = 4.f / p.channels();
  const Buffer<double> exact = style_gradient(p, x, matrix, factor, above);
  const auto error = [=] { return relative_error(out, exact); };
  std::vector<Variant> variants;
  const auto add = [&](const char* name, bool ordinary) {
    const Backward<T> backward(p, x, matrix, factor, above, out, ordinary);
    variants.push_back({name, 0, [=] { out.poison(); }, [=] { backward(); }, error});
  };
  const Buffer<T> narrowed(matrix.count());
  if (sweep) {
    add("ordinary", true);
  } else {
    add("default", false);
    const float* from = matrix.get();
    T* to = narrowed.get();
    each(matrix.count(), [=] __device__(int64_t i) { narrow(to + i, from[i]); });
    const auto product = [&bench, p, x, narrowed, factor, out] {
      bench.library.backward(p, narrowed.get(), x.get(), factor, out.get());
    };
    if (kLibrary) variants.push_back({"cublas", 0, [=] { out.copy_from(above); }, product, error});
  }
  bench.run(p, variants);
}

void bias_relu_style_loss(const Bench& bench, const Problem& p, bool sweep) {
  const Buffer<T> x = noise<T>(p.size(), 1), bias = noise<T>(p.channels(), 3), activated(p.size());
  const Buffer<float> target = target_of(p), out(target.count()), loss(1);
  const float scale = 1.f / p.positions();
  const Buffer<double> exact = activation(p, x, bias);
  Gram<T> gram(p, x, scale, target, out, loss);
  if (sweep || !gram.fuses_bias()) return;
  gram.bias = bias.get();
  gram.activated = activated.get();
  gram();
  // R is compared with that of the activated features as they are stored.
  const auto error = [=] {
    return worst(relative_error(activated, exact), relative_error(out, residual(p, activated, scale, target)));
  };
  const auto prepare = [=] {
    activated.poison();
    out.poison();
  };
  bench.run(p, {{"default", gram.plan.splits, prepare, [=] { gram(); }, error}});
}

// The ops that only move memory.
void pointwise(const Bench& bench, const Problem& p) {
  const Buffer<T> x = noise<T>(p.size(), 1, p.op[0] == 'c'), y = noise<T>(p.size(), 2, p.op[0] == 'c');
  const Buffer<float> one(1), sum(1);
  float* to = one.get();
  each(1, [=] __device__(int64_t) { *to = 1; });
  const auto run = [&](auto go, const auto& out, const Buffer<double>& exact, std::function<void()> prepare) {
    bench.run(p, {{"default", 0, prepare, go, [=] { return relative_error(out, exact); }}});
  };
  const SumSpace space;
  if (p.op == "content_loss")
    return run([=] { content_loss(x, y, space, sum); }, sum, squared_distance(x, y), [=] { sum.poison(); });
  if (p.op == "total_variation")
    return run([=] { total_variation(p, x, space, sum); }, sum, variation(p, x), [=] { sum.poison(); });
  const Buffer<T> out(p.size());
  const auto poison = [=] { out.poison(); };
  if (p.op == "content_loss backward")
    return run([=] { content_backward(one, x, y, out); }, out, content_gradient(x, y), poison);
  if (p.op == "total_variation backward")
    return run([=] { variation_backward(p, one, x, out); }, out, variation_gradient(p, x), poison);
  if (p.op == "bias_relu_") {
    const Buffer<T> bias = noise<T>(p.channels(), 3);
    return run([=] { bias_relu(p, out, bias); }, out, activation(p, x, bias), [=] { out.copy_from(x); });
  }
  const Buffer<uint8_t> argmax(p.size() / 4);
  const Buffer<T> small(p.size() / 4);
  if (p.op == "pool") return run([=] { pool(p, x, small, argmax); }, small, pooled(p, x), [=] { small.poison(); });
  const Buffer<T> grad = noise<T>(p.size() / 4, 4);
  pool(p, x, small, argmax);
  run([=] { pool_backward(p, grad, argmax, out); }, out, pool_gradient(p, x, grad), poison);
}

void run_problem(const Bench& bench, const Problem& p, bool sweep) {
  if (p.op == "style_loss") return style_loss(bench, p, sweep);
  if (p.op == "style_loss backward") return style_backward(bench, p, sweep);
  if (p.op == "bias_relu_style_loss") return bias_relu_style_loss(bench, p, sweep);
  if (!sweep) pointwise(bench, p);
}

// Of one layout, in every precision: first the style layers, which take the most time.
std::vector<Problem> problems(const Options& options, int64_t side, bool channels_last) {
  std::vector<Problem> found;
  for (const char* op : kOps) {
    if (!options.ops.empty() && options.ops.find("," + std::string(op) + ",") == std::string::npos) continue;
    for (const std::string& precision : precisions()) {
      const bool image = std::strncmp(op, "total", 5) == 0;
      for (const Layer& layer : kLayers) {
        Problem p{op, image ? kImage : layer, side, precision, channels_last, 0, 0};
        count_work(p, sizeof(T));
        found.push_back(p);
        if (image) break;
      }
    }
  }
  return found;
}

// The card's peaks: a copy, a large product, and the time of a kernel that does nothing.
void peaks(const Bench& bench) {
  const int64_t copied = 1ll << 29, edge = 8192;
  for (const std::string& precision : precisions()) {
    Problem p{"launch", kImage, 0, precision, true, 0, 0};
    bench.run(p, {named("default", 0, [] { each(1, [] __device__(int64_t) {}); }, {})});
    p.op = "copy";
    p.bytes = 2.0 * copied;
    const Buffer<char> from(copied), to(copied);
    bench.run(p, {named("default", 0, [=] { to.copy_from(from); }, {})});
    if (!kLibrary) continue;
    p.op = "product";
    p.bytes = 0;
    p.operations = 2.0 * edge * edge * edge;
    const Buffer<T> a = noise<T>(edge * edge, 1), b = noise<T>(edge * edge, 2), c(edge * edge);
    const auto product = [&bench, p, edge, a, b, c] {
      bench.library.multiply(p, false, false, edge, edge, edge, 1.f, a.get(), b.get(), 0.f, c.get());
    };
    bench.run(p, {named("cublas", 0, product, {})});
  }
}

std::vector<int64_t> numbers(const char* text) {
  std::vector<int64_t> found;
  for (char* end = nullptr; *text; text = *end ? end + 1 : end) {
    const int64_t number = std::strtoll(text, &end, 10);
    if (end == text || number < 32 || number % 32 || (*end && *end != ',')) {
      std::fprintf(stderr, "micro: --sides: expected multiples of 32 separated by commas, got %s\n", text);
      std::exit(2);
    }
    found.push_back(number);
  }
  return found;
}

Options read_options(int count, char** words) {
  Options found;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--list") {
      found.list = true;
    } else if (word == "--once") {
      found.once = true;
    } else if (word == "--sides" && i + 1 < count) {
      found.sides = numbers(words[++i]);
    } else if (word == "--ops" && i + 1 < count) {
      found.ops = "," + std::string(words[++i]) + ",";
    } else if (word == "--seconds" && i + 1 < count) {
      found.seconds = std::atof(words[++i]);
    } else {
      std::fprintf(stderr, "micro: expected --sides N,N, --seconds N, --ops NAME,NAME, --once or --list, got %s\n",
                   word.c_str());
      std::exit(2);
    }
  }
  return found;
}

int run(const Options& options) {
  std::vector<std::pair<Problem, bool>> all;
  for (const bool sweep : {false, true})
    for (const bool channels_last : {true, false})
      for (const int64_t side : options.sides)
        for (const Problem& p : problems(options, side, channels_last)) all.emplace_back(p, sweep);
  if (options.list) {
    for (const auto& [p, sweep] : all) {
      if (sweep) continue;
      print_problem(p);
      std::printf("}\n");
    }
    return 0;
  }
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "micro: no CUDA device; --list needs none\n");
    return 1;
  }
  const auto seconds = std::chrono::duration<double>(options.seconds);
  const Bench bench{
      {},
      {},
      options.once,
      std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(seconds)};
  if (options.once) {
    for (const int64_t side : options.sides)
      for (const Problem& p : problems(options, side, true)) run_problem(bench, p, false);
    return 0;
  }
  peaks(bench);
  size_t done = 0;
  while (done < all.size() && !bench.over()) {
    run_problem(bench, all[done].first, all[done].second);
    ++done;
  }
  std::printf("{\"op\": \"end\", \"left_out\": %zu}\n", all.size() - done);
  return 0;
}

}  // namespace
}  // namespace micro

int main(int count, char** words) { return micro::run(micro::read_options(count, words)); }
