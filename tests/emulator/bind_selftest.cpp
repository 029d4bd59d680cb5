// Small kernels for test_emulator.py, each with one fault that a check must find or one access that a counter must
// count.
#include "bind.h"
#include "device.cuh"

// Not in an anonymous namespace: messages name kernels by their symbols.
namespace emulator::selftest {

using namespace fastnst::kernels;

__global__ void shared_race(float* out, bool barrier) {
  FASTNST_SHARED(float, values, 64);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (barrier) __syncthreads();
  out[threadIdx.x] = values[63 - threadIdx.x];
}

__global__ void read_after_write_over(float* out, bool barrier) {
  FASTNST_SHARED(float, values, 64);
  values[threadIdx.x] = 1;
  __syncthreads();
  const float read = values[63 - threadIdx.x];
  if (barrier) __syncthreads();
  values[threadIdx.x] = 2;
  __syncthreads();
  out[threadIdx.x] = read + values[threadIdx.x];
}

__global__ void within_warp(float* out, bool sync) {
  FASTNST_SHARED(float, values, 32);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (sync) __syncwarp();
  out[threadIdx.x] = values[31 - threadIdx.x];
}

__global__ void uninitialized_shared(float* out, int written) {
  FASTNST_SHARED(float, values, 32);
  if (static_cast<int>(threadIdx.x) < written) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x];
}

__global__ void copy_at(const float* in, float* out, int64_t from, int64_t to) { out[to] = in[from]; }

__global__ void copy_pack(const float* in, float* out, int shift) {
  using P = Pack<float, 4>;
  *reinterpret_cast<P*>(out + shift) = *reinterpret_cast<const P*>(in + shift);
}

__global__ void every_block_writes(float* out, int apart) { out[blockIdx.x * apart] = 1; }

// In place, without synchronization between blocks.
__global__ void reads_its_neighbor(float* x, int own) {
  const float next = x[blockIdx.x + 1 - own];
  x[blockIdx.x] = next + 1;
}

// Each block writes a value, and the last block adds them; `how` omits one step of the synchronization.
__global__ void publish(float* partial, unsigned* counter, float* out, int how) {
  FASTNST_SHARED(int, last, 1);
  partial[blockIdx.x * blockDim.x + threadIdx.x] = 1;
  if (how != 1) __syncthreads();
  if (threadIdx.x == 0) {
    if (how != 2) __threadfence();
    *last = atomicAdd(counter, 1u) == gridDim.x - 1;
    if (how != 3) __threadfence();
  }
  __syncthreads();
  if (!*last) return;
  if (threadIdx.x > 0) return;
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x * blockDim.x; ++i) sum += partial[i];
  *out = sum;
}

__global__ void pending_copy(const float* in, float* out, bool wait, bool barrier) {
  FASTNST_SHARED(uint4, tile, 32);
  copy_async(tile + threadIdx.x, in + 4 * threadIdx.x, true);
  copy_async_commit();
  if (wait) copy_async_wait<0>();
  if (barrier) __syncthreads();
  out[threadIdx.x] = reinterpret_cast<const float*>(tile)[4 * (31 - threadIdx.x)];
}

__global__ void divergent_barrier(float* out, int how) {
  if (how == 1 && threadIdx.x == 5) return;
  if (how == 2 && threadIdx.x < 32) {
    out[threadIdx.x] = __shfl_xor_sync(kEveryLane, 1.f, threadIdx.x == 0 ? 1 : 2);
    return;
  }
  if (how == 3 && threadIdx.x == 7) {
    __syncthreads();
  } else if (how == 3 && threadIdx.x < 32) {
    __syncwarp();
  }
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void missing_lane(float* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = __shfl_down_sync(kEveryLane, 1.f, 1);
}

__global__ void collectives(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_down_sync(kEveryLane, lane, 4);
  out[32 + lane] = __shfl_up_sync(kEveryLane, lane, 4);
  out[64 + lane] = __shfl_xor_sync(kEveryLane, lane, 5);
  out[96 + lane] = __shfl_sync(kEveryLane, lane, 9);
  out[128 + lane] = static_cast<int>(__ballot_sync(kEveryLane, lane % 3 == 0));
  out[160 + lane] = __any_sync(kEveryLane, lane == 7) + 2 * __all_sync(kEveryLane, lane < 31);
}

// d = a b with operands given as the words of each lane's fragments.
template <void (*kMultiply)(float (&)[4], const uint32_t (&)[4], const uint32_t (&)[2])>
__global__ void multiply(const uint32_t* a, const uint32_t* b, float* d) {
  uint32_t left[4], right[2];
  float sum[4] = {};
  for (int i = 0; i < 4; ++i) left[i] = a[4 * threadIdx.x + i];
  for (int i = 0; i < 2; ++i) right[i] = b[2 * threadIdx.x + i];
  begin_main_loop();
  kMultiply(sum, left, right);
  end_main_loop();
  for (int i = 0; i < 4; ++i) d[4 * threadIdx.x + i] = sum[i];
}

// One read of `width` floats per thread, with a stride of `stride` floats, through shared memory and back.
template <int kWidth>
__global__ void traffic(const float* in, float* out, int stride, int shared_stride) {
  FASTNST_DYNAMIC_SHARED(memory);
  using P = Pack<float, kWidth>;
  auto* mine = reinterpret_cast<P*>(reinterpret_cast<float*>(memory) + threadIdx.x * shared_stride);
  begin_main_loop();
  *mine = *reinterpret_cast<const P*>(in + threadIdx.x * stride);
  end_main_loop();
  *reinterpret_cast<P*>(out + threadIdx.x * stride) = *mine;
}

__global__ void convert(const float* in, uint16_t* half, uint16_t* bfloat, float* back) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  __half h;
  __nv_bfloat16 b;
  narrow(&h, in[i]);
  narrow(&b, in[i]);
  std::memcpy(half + i, &h, 2);
  std::memcpy(bfloat + i, &b, 2);
  back[2 * i] = widen(h);
  back[2 * i + 1] = widen(b);
}

template <int kWidth>
void launch_traffic(const Buffer& in, const Buffer& out, int stride, int shared_stride) {
  launch(traffic<kWidth>, dim3(1), 32, 32 * 4 * static_cast<size_t>(shared_stride), nullptr, in.data<float>(),
         out.data<float>(), stride, shared_stride);
}

}  // namespace emulator::selftest

void bind_selftest(py::module_& parent) {
  using namespace emulator;
  using namespace emulator::selftest;
  py::module_ m = parent.def_submodule("selftest");
  m.def("shared_race", [](const Buffer& out, bool barrier) {
    launch(shared_race, dim3(1), 64, 0, nullptr, out.data<float>(), barrier);
  });
  m.def("read_after_write_over", [](const Buffer& out, bool barrier) {
    launch(read_after_write_over, dim3(1), 64, 0, nullptr, out.data<float>(), barrier);
  });
  m.def("within_warp",
        [](const Buffer& out, bool sync) { launch(within_warp, dim3(1), 32, 0, nullptr, out.data<float>(), sync); });
  m.def("uninitialized_shared", [](const Buffer& out, int written) {
    launch(uninitialized_shared, dim3(1), 32, 0, nullptr, out.data<float>(), written);
  });
  m.def("copy_at", [](const Buffer& in, const Buffer& out, int64_t from, int64_t to) {
    launch(copy_at, dim3(1), 1, 0, nullptr, in.data<float>(), out.data<float>(), from, to);
  });
  m.def("copy_pack", [](const Buffer& in, const Buffer& out, int shift) {
    launch(copy_pack, dim3(1), 1, 0, nullptr, in.data<float>(), out.data<float>(), shift);
  });
  m.def("every_block_writes", [](const Buffer& out, int apart) {
    launch(every_block_writes, dim3(4), 1, 0, nullptr, out.data<float>(), apart);
  });
  m.def("reads_its_neighbor",
        [](const Buffer& x, int own) { launch(reads_its_neighbor, dim3(4), 1, 0, nullptr, x.data<float>(), own); });
  m.def("publish", [](const Buffer& partial, const Buffer& counter, const Buffer& out, int how) {
    launch(publish, dim3(4), 64, 0, nullptr, partial.data<float>(), counter.data<unsigned>(), out.data<float>(), how);
  });
  m.def("pending_copy", [](const Buffer& in, const Buffer& out, bool wait, bool barrier) {
    launch(pending_copy, dim3(1), 32, 0, nullptr, in.data<float>(), out.data<float>(), wait, barrier);
  });
  m.def("divergent_barrier",
        [](const Buffer& out, int how) { launch(divergent_barrier, dim3(1), 64, 0, nullptr, out.data<float>(), how); });
  m.def("missing_lane", [](const Buffer& out) { launch(missing_lane, dim3(1), 32, 0, nullptr, out.data<float>()); });
  m.def("collectives", [](const Buffer& out) { launch(collectives, dim3(1), 32, 0, nullptr, out.data<int>()); });
  m.def("multiply", [](const Buffer& a, const Buffer& b, const Buffer& d, const std::string& kind) {
    const auto kernel = kind == "tf32" ? multiply<mma_tf32> : kind == "bf16" ? multiply<mma_bf16> : multiply<mma_f16>;
    launch(kernel, dim3(1), 32, 0, nullptr, a.data<uint32_t>(), b.data<uint32_t>(), d.data<float>());
  });
  m.def("traffic", [](const Buffer& in, const Buffer& out, int width, int stride, int shared_stride) {
    width == 1   ? launch_traffic<1>(in, out, stride, shared_stride)
    : width == 2 ? launch_traffic<2>(in, out, stride, shared_stride)
                 : launch_traffic<4>(in, out, stride, shared_stride);
  });
  m.def("convert", [](const Buffer& in, const Buffer& half, const Buffer& bfloat, const Buffer& back) {
    launch(convert, dim3(static_cast<unsigned>(in.count() / 64)), 64, 0, nullptr, in.data<float>(),
           half.data<uint16_t>(), bfloat.data<uint16_t>(), back.data<float>());
  });
}
