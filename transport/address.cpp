#include "address.hpp"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <system_error>

namespace covey::transport {

Result<HostAndPort> parse_address(std::string_view text) {
  const auto refuse = [text] {
    return invalid_argument(fmt::format(
        "address '{}' is not host:port (examples: 127.0.0.1:7443, [::1]:7443, server.lan:7443)",
        text));
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return refuse();
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const bool bracketed = host.size() >= 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  // Without brackets one cannot tell an IPv6 address's last group from a port.
  if (host.empty() || (!bracketed && host.find(':') != std::string_view::npos)) return refuse();

  HostAndPort result{std::string(host), 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), result.port);
  if (error != std::errc() || end != port.data() + port.size() || port.empty()) return refuse();
  return result;
}

std::string to_string(const tcp::endpoint& endpoint) {
  boost::system::error_code error;
  const std::string host = endpoint.address().to_string(error);
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", host, endpoint.port())
                                    : fmt::format("{}:{}", host, endpoint.port());
}

std::string words_for(int error_number) {
  std::string words = std::generic_category().message(error_number);
  if (!words.empty()) {
    words[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(words[0])));
  }
  return words;
}

}  // namespace covey::transport
