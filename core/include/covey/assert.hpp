#pragma once

namespace covey {

/// Prints the failed condition with its place and aborts. A failed assertion is a bug in Covey, never
/// a consequence of bad input, so it stays on in release builds.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line) noexcept;

}  // namespace covey

#define COVEY_ASSERT(condition) \
  ((condition) ? static_cast<void>(0) : ::covey::assertion_failed(#condition, __FILE__, __LINE__))
