#include "symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace emulator {

std::string function_name(const void* pc) {
  Dl_info info;
  if (!pc || !dladdr(pc, &info) || !info.dli_sname) return "kernel";
  int status = 0;
  char* demangled = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = status == 0 ? demangled : info.dli_sname;
  std::free(demangled);
  // "void space::kernel<args>(parameters)" becomes "kernel<args>".
  int depth = 0;
  size_t end = name.size();
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == '(' && depth == 0 && i > 0 && name.compare(i, 11, "(anonymous ") != 0) {
      end = i;
      break;
    }
  }
  name.resize(end);
  depth = 0;
  size_t start = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '<') ++depth;
    if (name[i] == '>') --depth;
    if (name[i] == ' ' && depth == 0) start = i + 1;
  }
  name.erase(0, start);
  const size_t colons = name.rfind("::", name.find('<'));
  if (colons != std::string::npos) name.erase(0, colons + 2);
  const std::string space = "fastnst::kernels::";
  for (size_t at; (at = name.find(space)) != std::string::npos;) name.erase(at, space.size());
  return name;
}

std::string symbol_of(const void* function) {
  Dl_info info;
  return dladdr(function, &info) && info.dli_sname && info.dli_saddr == function ? info.dli_sname : "";
}

std::string kernel_name(const void* body, size_t bytes, const void* pc) {
  const std::string here = function_name(pc);
  for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    void* word;
    std::memcpy(&word, static_cast<const char*>(body) + at, sizeof word);
    Dl_info info;
    if (!word || !dladdr(word, &info) || !info.dli_sname || info.dli_saddr != word) continue;
    const std::string kernel = function_name(word);
    return kernel == here || here == "kernel" ? kernel : kernel + ", in " + here.substr(0, here.find('<'));
  }
  return here;
}

bool in_module_data(const void* address, size_t bytes) {
  struct Query {
    uintptr_t low, high;
    bool found;
  } query{reinterpret_cast<uintptr_t>(address), reinterpret_cast<uintptr_t>(address) + bytes, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto* q = static_cast<Query*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& header = info->dlpi_phdr[i];
          const uintptr_t low = info->dlpi_addr + header.p_vaddr;
          if (header.p_type == PT_LOAD && q->low >= low && q->high <= low + header.p_memsz) q->found = true;
        }
        return static_cast<int>(q->found);
      },
      &query);
  return query.found;
}

}  // namespace emulator
