#include <fmt/format.h>

#include <charconv>
#include <covey/privacy/identity.hpp>
#include <cstring>
#include <string_view>

namespace covey::privacy {
namespace {

constexpr std::string_view kCertificateTitle = "covey identity certificate v1";
constexpr std::string_view kRequestTitle = "covey identity request v1";

// Longer than either signature of an authority; a text is read before it is trusted.
constexpr std::size_t kMostBytes = 256;

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

/// Lines of "name value" behind a title, in a fixed order.
class Lines {
 public:
  Lines(std::string_view text, std::string_view what) : rest_(text), what_(what) {}

  std::string_view next() {
    const std::size_t end = rest_.find('\n');
    std::string_view line = rest_.substr(0, end);
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
  }
  Result<std::string_view> value(std::string_view name) {
    const std::string_view line = next();
    if (!line.starts_with(name) || line.size() <= name.size() + 1 || line[name.size()] != ' ') {
      return malformed(fmt::format("{}: the line \"{} ...\" is missing", what_, name));
    }
    return line.substr(name.size() + 1);
  }
  Result<std::vector<std::byte>> bytes(std::string_view name) {
    COVEY_ASSIGN(const std::string_view text, value(name));
    std::vector<std::byte> bytes(text.size() / 2);
    bool good = text.size() % 2 == 0 && bytes.size() <= kMostBytes;
    for (std::size_t i = 0; good && i < bytes.size(); ++i) {
      unsigned byte = 0;
      const char* from = text.data() + 2 * i;
      const auto parsed = std::from_chars(from, from + 2, byte, 16);
      good = parsed.ec == std::errc() && parsed.ptr == from + 2;
      bytes[i] = static_cast<std::byte>(byte);
    }
    if (!good) return malformed(fmt::format("{}: \"{}\" is not in hexadecimal", what_, name));
    return bytes;
  }
  template <std::size_t N>
  Result<std::array<std::uint8_t, N>> array(std::string_view name) {
    COVEY_ASSIGN(const std::vector<std::byte> found, bytes(name));
    if (found.size() != N) {
      return malformed(
          fmt::format("{}: \"{}\" has {} bytes instead of {}", what_, name, found.size(), N));
    }
    std::array<std::uint8_t, N> array{};
    for (std::size_t i = 0; i < N; ++i) array[i] = std::to_integer<std::uint8_t>(found[i]);
    return array;
  }
  bool at_end() const { return rest_.find_first_not_of("\r\n \t") == std::string_view::npos; }

 private:
  std::string_view rest_;
  std::string_view what_;
};

/// What a device signs to show that the key of its request is its own.
std::vector<std::byte> requested_message(const PublicKey& key) {
  std::vector<std::byte> message(kRequestTitle.size() + key.size());
  std::memcpy(message.data(), kRequestTitle.data(), kRequestTitle.size());
  std::memcpy(message.data() + kRequestTitle.size(), key.data(), key.size());
  return message;
}

}  // namespace

std::string to_text(const IdentityCertificate& certificate) {
  return fmt::format(
      "{}\nclient {}\nkey {}\nsignature {}\n", kCertificateTitle, value_of(certificate.client),
      to_hex(std::as_bytes(std::span(certificate.key))), to_hex(certificate.signature));
}

Result<IdentityCertificate> identity_certificate_from_text(const std::string& text) {
  Lines lines(text, "a device's identity certificate");
  if (lines.next() != kCertificateTitle) {
    return malformed(fmt::format(
        "not a device's identity certificate: its first line must be \"{}\"", kCertificateTitle));
  }
  IdentityCertificate certificate;
  COVEY_ASSIGN(const std::string_view number, lines.value("client"));
  std::uint64_t client = 0;
  const auto parsed = std::from_chars(number.data(), number.data() + number.size(), client);
  if (parsed.ec != std::errc() || parsed.ptr != number.data() + number.size()) {
    return malformed("a device's identity certificate: \"client\" is not a whole number");
  }
  certificate.client = ClientId{client};
  COVEY_ASSIGN(certificate.key, lines.array<32>("key"));
  COVEY_ASSIGN(certificate.signature, lines.bytes("signature"));
  if (!lines.at_end()) {
    return malformed("a device's identity certificate: more than its signature follows");
  }
  return certificate;
}

std::string to_request_text(const Identity& identity) {
  const PublicKey key = identity.public_key();
  const Signature signature = identity.sign(requested_message(key));
  return fmt::format("{}\nkey {}\nsignature {}\n", kRequestTitle,
                     to_hex(std::as_bytes(std::span(key))),
                     to_hex(std::as_bytes(std::span(signature))));
}

Result<std::optional<PublicKey>> identity_request_from_text(const std::string& text) {
  const std::size_t start = text.find(kRequestTitle);
  if (start == std::string::npos) return std::optional<PublicKey>();
  Lines lines(std::string_view(text).substr(start), "the request for an identity");
  lines.next();
  COVEY_ASSIGN(const PublicKey key, lines.array<32>("key"));
  COVEY_ASSIGN(const Signature signature, lines.array<64>("signature"));
  if (!check_signature(key, requested_message(key), signature).ok()) {
    return malformed("the request for an identity is not signed by its own key");
  }
  return std::optional(key);
}

}  // namespace covey::privacy
