// Names of functions, for messages.
#pragma once

#include <cstddef>
#include <string>

namespace emulator {

// The function that contains `pc`, without its arguments; shortened if the compiler's name is long.
std::string function_name(const void* pc);

// The mangled name of the function that starts at this address, or nothing.
std::string symbol_of(const void* function);

// The kernel of a launch, found among the values that the launch captured, and the function that contains `pc`.
std::string kernel_name(const void* body, size_t bytes, const void* pc);

// Whether these bytes are constants or globals of a loaded module.
bool in_module_data(const void* address, size_t bytes);

}  // namespace emulator
