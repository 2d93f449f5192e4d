#include <covey/assert.hpp>

#include <cstdio>
#include <cstdlib>

namespace covey {

void assertion_failed(const char* condition, const char* file, int line) noexcept {
  std::fprintf(stderr, "%s:%d: internal error: %s does not hold; please report this\n", file, line,
               condition);
  std::abort();
}

}  // namespace covey
