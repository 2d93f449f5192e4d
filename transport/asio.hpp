#pragma once

// The one place that includes Asio. Boost 1.74's awaitable.hpp uses std::exchange without including
// <utility>, so that comes first.
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on

namespace covey::transport {

namespace asio = boost::asio;
using asio::ip::tcp;

}  // namespace covey::transport
