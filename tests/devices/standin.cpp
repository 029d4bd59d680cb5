// A device of PyTorch's dispatcher, PrivateUse1, for tests on machines without an accelerator.
//
// Its memory is the machine's, and every op runs as the CPU's on the same memory. It is as strict as a real device: it
// has no float64, does not convert to float64 while it copies to the CPU, and does not mix with tensors of the CPU.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kType, 0);

std::atomic<int64_t> held{0}, peak{0}, limit{INT64_MAX}, ops{0};

struct Block {
  void* data;
  int64_t size;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  held -= block->size;
  std::free(block->data);
  delete block;
}

struct Allocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    TORCH_CHECK_WITH(OutOfMemoryError, held + static_cast<int64_t>(size) <= limit, "standin out of memory");
    auto* block = new Block{std::malloc(size ? size : 1), static_cast<int64_t>(size)};
    held += block->size;
    if (held > peak) peak = held.load();
    return {block->data, block, &free_block, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }
};

Allocator allocator;
REGISTER_ALLOCATOR(kType, &allocator);

// One device with one stream, on which everything is done at once.
template <c10::DeviceType type>
struct Guard final : c10::impl::NoOpDeviceGuardImpl<type> {
  c10::Device getDevice() const override { return {type, 0}; }
  c10::Device exchangeDevice(c10::Device) const override { return {type, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {type, 0}); }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard<kType>);

// So that fake tensors of these devices run every op in a build of PyTorch without them.
C10_REGISTER_GUARD_IMPL(CUDA, Guard<c10::DeviceType::CUDA>);
C10_REGISTER_GUARD_IMPL(XPU, Guard<c10::DeviceType::XPU>);
C10_REGISTER_GUARD_IMPL(MPS, Guard<c10::DeviceType::MPS>);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto fresh = allocator.allocate(bytes);
    std::memcpy(fresh.mutable_get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(bytes);
  }
};

void check_dtype(c10::ScalarType dtype) {
  TORCH_CHECK_TYPE(dtype != at::kDouble && dtype != at::kComplexDouble, "the device standin has no float64");
}

at::Tensor empty(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  return at::detail::empty_generic(size, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type, format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                         std::optional<c10::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  const auto type = c10::dtype_or_default(dtype);
  check_dtype(type);
  return at::detail::empty_strided_generic(size, stride, &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           type);
}

bool on_device(const at::Tensor& x) { return x.defined() && x.device().type() == kType; }

// The same memory as a tensor of the CPU.
at::Tensor host(const at::Tensor& x) {
  if (!on_device(x)) return x;
  auto found = at::from_blob(x.mutable_data_ptr(), x.sizes(), x.strides(), x.options().device(at::kCPU));
  if (x.is_conj()) found._set_conj(true);
  return found;
}

// A result of the CPU on the device: a view of an argument where it is one, else a copy.
at::Tensor brought_back(const at::Tensor& y, const std::vector<at::Tensor>& arguments) {
  if (!y.defined()) return y;
  for (const auto& x : arguments) {
    if (!on_device(x) || x.scalar_type() != y.scalar_type() || y.numel() == 0) continue;
    const auto* begin = static_cast<const char*>(x.storage().data());
    const auto* at = static_cast<const char*>(y.const_data_ptr());
    if (at >= begin && at < begin + x.storage().nbytes())
      return at::native::as_strided_tensorimpl(x, y.sizes(), y.strides(), (at - begin) / x.element_size());
  }
  auto found = empty_strided(y.sizes(), y.strides(), y.scalar_type(), {}, {}, {});
  host(found).copy_(y);
  return found;
}

const std::set<std::string> kTakeIndices = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"};

void as_on_the_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  ++ops;
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  std::vector<at::Tensor> given;
  std::vector<std::pair<at::Tensor, at::Tensor>> written;  // and its memory for the CPU
  const bool mixes = kTakeIndices.count(schema.name()) > 0;
  auto enter = [&](const at::Tensor& x) {
    given.push_back(x);
    TORCH_CHECK(mixes || !x.defined() || on_device(x) || x.dim() == 0, schema.name(),
                ": expected all tensors on standin:0, got one on ", x.device());
    return host(x);
  };
  for (size_t i = 0; i < count; ++i) {
    auto& value = (*stack)[first + i];
    if (value.isTensor()) {
      const auto x = value.toTensor();
      const auto* info = schema.arguments()[i].alias_info();
      value = enter(x);
      if (info != nullptr && info->isWrite()) {
        // An empty output may grow, which borrowed memory cannot.
        if (on_device(x) && x.numel() == 0) value = at::empty(x.sizes(), x.options().device(at::kCPU));
        written.emplace_back(x, value.toTensor());
      }
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const auto& x : value.toTensorVector()) list.push_back(enter(x));
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor> x : value.toOptionalTensorList())
        list.push_back(x ? std::optional<at::Tensor>(enter(*x)) : x);
      value = list;
    } else if (value.isDevice()) {
      value = c10::Device(at::kCPU);
    }
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (const auto& [x, y] : written) {
    if (!on_device(x) || x.sizes() == y.sizes()) continue;
    const auto grown = brought_back(y, {});
    x.unsafeGetTensorImpl()->set_storage_keep_dtype(grown.storage());
    x.unsafeGetTensorImpl()->set_sizes_and_strides(grown.sizes(), grown.strides());
  }
  const size_t results = schema.returns().size(), begin = stack->size() - results;
  size_t next = 0;
  for (size_t i = 0; i < results; ++i) {
    auto& value = (*stack)[begin + i];
    const auto* info = schema.returns()[i].alias_info();
    if (info != nullptr && info->isWrite()) {
      value = written.at(next++).first;
    } else if (value.isTensor()) {
      value = brought_back(value.toTensor(), given);
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const auto& y : value.toTensorVector()) list.push_back(brought_back(y, given));
      value = list;
    }
  }
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  // A conversion happens where the tensor comes from.
  if (on_device(from) && from.scalar_type() != to.scalar_type()) check_dtype(to.scalar_type());
  host(to).copy_(host(from));
  return to;
}

at::Tensor view(const at::Tensor& x, c10::IntArrayRef size) { return at::native::view(x, size); }

at::Tensor as_strided(const at::Tensor& x, c10::IntArrayRef size, c10::IntArrayRef stride,
                      std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(x, size, stride, offset);
}

at::Scalar local_scalar(const at::Tensor& x) { return host(x).item(); }

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       c10::IntArrayRef stride, c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed,
                       c10::IntArrayRef output_padding, int64_t groups) {
  const auto offset = bias ? std::optional<at::Tensor>(host(*bias)) : bias;
  const auto y =
      at::convolution(host(x), host(weight), offset, stride, padding, dilation, transposed, output_padding, groups);
  return brought_back(y, {});
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& grad, const at::Tensor& x,
                                                                    const at::Tensor& weight, c10::IntArrayRef stride,
                                                                    c10::IntArrayRef padding, c10::IntArrayRef dilation,
                                                                    bool transposed, c10::IntArrayRef output_padding,
                                                                    int64_t groups, std::array<bool, 3> wanted) {
  const auto [by_x, by_weight, by_bias] =
      at::convolution_backward(host(grad), host(x), host(weight), {weight.size(transposed ? 1 : 0)}, stride, padding,
                               dilation, transposed, output_padding, groups, wanted);
  return {brought_back(by_x, {}), brought_back(by_weight, {}), brought_back(by_bias, {})};
}

at::Tensor replication_pad2d(const at::Tensor& x, c10::SymIntArrayRef padding) {
  return brought_back(at::replication_pad2d_symint(host(x), padding), {});
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&as_on_the_cpu>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize",
         [](const at::Tensor& from, const at::Tensor& to) { return copy_from(from, to, false); });
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("convolution_overrideable", &convolution);
  // PyTorch would call the out variant, which on the CPU takes the strides of the input for those of the output.
  m.impl("replication_pad2d", &replication_pad2d);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

const bool registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace

extern "C" {
int64_t standin_held() { return held; }
int64_t standin_peak() { return peak; }
int64_t standin_ops() { return ops; }
void standin_limit(int64_t bytes) { limit = bytes < 0 ? INT64_MAX : bytes; }
}
