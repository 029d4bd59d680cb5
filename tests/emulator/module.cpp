// The Python module: buffers, seeds, counters, and the kernels of each bind_*.cpp.
#include "bind.h"
#include "counters.h"
#include "runtime.h"
#include "symbols.h"

// One per bind_*.cpp; CMake writes the list.
#define FASTNST_BINDING(name) void name(py::module_&);
#include "bindings.inc"
#undef FASTNST_BINDING

namespace emulator {
namespace {

py::dict traffic(const Traffic& t) {
  using py::operator""_a;
  return py::dict("requests"_a = t.requests, "sectors"_a = t.sectors, "bytes"_a = t.bytes, "widest"_a = t.widest);
}

py::dict part(const Part& p) {
  using py::operator""_a;
  return py::dict("reads"_a = traffic(p.reads), "writes"_a = traffic(p.writes),
                  "shared"_a = py::dict("requests"_a = p.shared.requests, "wavefronts"_a = p.shared.wavefronts,
                                        "least"_a = p.shared.least));
}

py::dict counters() {
  using py::operator""_a;
  const Counters& c = launch_counters();
  return py::dict("blocks"_a = c.blocks, "threads"_a = c.threads, "barriers"_a = c.barriers,
                  "mma"_a = py::dict("tf32"_a = c.mma[0], "bf16"_a = c.mma[1], "f16"_a = c.mma[2]),
                  "mma_main"_a = c.mma_main, "block_read_bytes"_a = c.block_read_bytes,
                  "main_loop"_a = part(c.main_loop), "elsewhere"_a = part(c.elsewhere));
}

// What Python calls with each launch: the mangled name, grid, threads, bytes of shared memory and parameters.
py::object& receiver() {
  static auto* held = new py::object;  // never destroyed, because Python is gone when static objects are
  return *held;
}

void redirect_launches(const py::object& to) {
  receiver() = to;
  redirect = nullptr;
  if (to.is_none()) return;
  redirect = [](const KernelLaunch& launch) {
    py::list parameters;
    for (size_t i = 0; i < launch.count; ++i)
      parameters.append(py::bytes(static_cast<const char*>(launch.values[i]), launch.sizes[i]));
    receiver()(symbol_of(launch.kernel), py::make_tuple(launch.grid.x, launch.grid.y, launch.grid.z), launch.threads,
               launch.shared_bytes, parameters);
  };
}

// Name, address, bytes, bytes of a granule, whether kernels may write, address of the cells or zero.
py::list list_regions() {
  py::list result;
  for (const Region& region : regions())
    result.append(py::make_tuple(region.name, region.base, region.bytes, 1 << region.shift, region.writable,
                                 reinterpret_cast<uintptr_t>(region.cells)));
  return result;
}

}  // namespace
}  // namespace emulator

PYBIND11_MODULE(fastnst_emulator, m) {
  using namespace emulator;
  py::register_exception<Violation>(m, "Violation", PyExc_RuntimeError);
  py::enum_<Dtype>(m, "Dtype")
      .value("float32", Dtype::kFloat32)
      .value("float64", Dtype::kFloat64)
      .value("float16", Dtype::kFloat16)
      .value("bfloat16", Dtype::kBfloat16)
      .value("uint8", Dtype::kUint8)
      .value("int32", Dtype::kInt32);
  py::class_<Buffer> buffer(m, "Buffer");
  py::enum_<Buffer::Kind>(buffer, "Kind")
      .value("input", Buffer::Kind::kInput)
      .value("in_place", Buffer::Kind::kInPlace)
      .value("output", Buffer::Kind::kOutput);
  buffer
      .def(py::init<std::string, Dtype, std::vector<int64_t>, std::vector<int64_t>, int64_t, Buffer::Kind, bool>(),
           py::arg("name"), py::arg("dtype"), py::arg("shape"), py::arg("strides"), py::arg("offset"), py::arg("kind"),
           py::arg("sparse") = false)
      .def_property_readonly("dtype", &Buffer::dtype)
      .def_property_readonly("shape", &Buffer::shape)
      .def_property_readonly("strides", &Buffer::strides)
      .def("fill", &Buffer::fill)
      .def("read", &Buffer::read)
      .def("poke", &Buffer::poke)
      .def("peek", &Buffer::peek)
      .def("initialize", &Buffer::initialize)
      .def_property_readonly("address", [](const Buffer& b) { return b.address(); })
      .def("read_bytes", [](const Buffer& b) { return b.touched(1); })
      .def("written_bytes", [](const Buffer& b) { return b.touched(2); });
  m.def("set_seed", [](uint64_t seed) { state.seed = seed; });
  m.def("set_counting", [](bool counting) { state.counting = counting; });
  m.def("counters", &counters);
  m.def("redirect", &redirect_launches);
  m.def("regions", &list_regions);
#define FASTNST_BINDING(name) name(m);
#include "bindings.inc"
#undef FASTNST_BINDING
}
