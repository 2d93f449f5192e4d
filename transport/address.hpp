#pragma once

#include <covey/result.hpp>
#include <cstdint>
#include <string>
#include <string_view>

#include "asio.hpp"

namespace covey::transport {

struct HostAndPort {
  std::string host;  ///< a name, an IPv4 address, or an IPv6 address without brackets
  std::uint16_t port = 0;
};

/// Reads "host:port" or "[::1]:port". Error naming the text.
Result<HostAndPort> parse_address(std::string_view text);

/// "127.0.0.1:7443" or "[::1]:7443".
std::string to_string(const tcp::endpoint& endpoint);

/// The system's words for an error, as a part of a sentence: "connection refused".
std::string words_for(int error_number);

}  // namespace covey::transport
