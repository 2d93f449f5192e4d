#pragma once

// The one place that includes Asio. Boost 1.74's awaitable.hpp uses std::exchange without including
// <utility>, so that comes first. ThreadSanitizer does not know free-standing fences; Asio's
// mutexes, which it knows, order the same accesses.
#if defined(__SANITIZE_THREAD__)
#define BOOST_ASIO_DISABLE_FENCED_BLOCK
#endif
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on

namespace covey::transport {

namespace asio = boost::asio;
using asio::ip::tcp;

}  // namespace covey::transport
