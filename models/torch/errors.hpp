#pragma once

#include <exception>
#include <string>

namespace covey::torch {

/// The line of a libtorch exception that says what is wrong, without its C++ and TorchScript
/// backtraces.
std::string reason_of(const std::exception& exception);

}  // namespace covey::torch
