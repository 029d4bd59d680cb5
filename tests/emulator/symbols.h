// Names of functions, for messages.
#pragma once

#include <cstddef>
#include <string>

namespace emulator {

// The function that `pc` lies in, without its arguments; shortened where the compiler's name is long.
std::string function_name(const void* pc);

// The kernel that a launch was given, found among the values that the launch holds, and the function that `pc` lies in.
std::string kernel_name(const void* body, size_t bytes, const void* pc);

// Whether these bytes are constants or globals of a loaded module.
bool in_module_data(const void* address, size_t bytes);

}  // namespace emulator
