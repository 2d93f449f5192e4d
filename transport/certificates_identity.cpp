#include <fmt/format.h>
#include <openssl/err.h>

#include <charconv>
#include <optional>
#include <string_view>

#include "certificate_identity.hpp"
#include "certificates_openssl.hpp"

namespace covey::transport {
namespace {

std::string_view view_of(const ASN1_STRING* string) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(string)),
          static_cast<std::size_t>(ASN1_STRING_length(string))};
}

openssl::Names alternative_names(X509* certificate) {
  return openssl::Names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
}

/// Decimal digits alone, without leading zeros: each number has one spelling, so two certificates
/// that name the same device are equal as text.
std::optional<ClientId> parse_client(std::string_view digits) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  return ClientId{number};
}

/// The only `covey:` URI among the names.
Result<std::string_view> covey_uri(const GENERAL_NAMES* names) {
  std::optional<std::string_view> found;
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const std::string_view uri = view_of(name->d.uniformResourceIdentifier);
    if (!uri.starts_with("covey:")) continue;
    if (found) return malformed("the certificate has more than one covey: URI");
    found = uri;
  }
  if (!found) return malformed("the certificate has no covey: URI: it is not one of a Covey run");
  return *found;
}

Result<std::string> common_name_of(X509* certificate) {
  X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return std::string();
  unsigned char* text = nullptr;
  const int length =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (length < 0) {
    ERR_clear_error();
    return malformed("the certificate's common name is not text");
  }
  std::string name(reinterpret_cast<const char*>(text), static_cast<std::size_t>(length));
  OPENSSL_free(text);
  // It ends up in logs and on terminals.
  for (const char c : name) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return malformed("the certificate's common name has control characters");
    }
  }
  return name;
}

/// "2031-02-03T04:05:06Z"
std::string iso_time(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "unknown";
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::string serial_of(X509* certificate) {
  const openssl::BigNumber number(ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), nullptr));
  char* hex = number ? BN_bn2hex(number.get()) : nullptr;
  std::string text = hex == nullptr ? "" : hex;
  OPENSSL_free(hex);
  return text;
}

/// Four or sixteen bytes in the usual notations.
std::string address_text(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (bytes.size() == 4) return fmt::format("{}.{}.{}.{}", at(0), at(1), at(2), at(3));
  std::string text;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) {
    text += fmt::format("{}{:x}", i == 0 ? "" : ":", at(i) * 256 + at(i + 1));
  }
  return text;
}

std::vector<std::string> host_names_of(const GENERAL_NAMES* names) {
  std::vector<std::string> hosts;
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type == GEN_DNS) hosts.emplace_back(view_of(name->d.dNSName));
    if (name->type == GEN_IPADD) hosts.push_back(address_text(view_of(name->d.iPAddress)));
  }
  return hosts;
}

}  // namespace

Result<PeerIdentity> identity_of_x509(X509* certificate) {
  const openssl::Names names = alternative_names(certificate);
  ERR_clear_error();
  COVEY_ASSIGN(const std::string_view uri, covey_uri(names.get()));
  PeerIdentity identity;
  COVEY_ASSIGN(identity.common_name, common_name_of(certificate));
  constexpr std::string_view kClient = "covey:client:";
  if (uri == "covey:server") {
    identity.kind = PeerIdentity::Kind::kServer;
  } else if (uri == "covey:operator") {
    identity.kind = PeerIdentity::Kind::kOperator;
  } else if (const auto client = uri.starts_with(kClient) ? parse_client(uri.substr(kClient.size()))
                                                          : std::nullopt) {
    identity.kind = PeerIdentity::Kind::kDevice;
    identity.client = *client;
  } else {
    return malformed(
        "the certificate's covey: URI is none of covey:server, covey:operator and "
        "covey:client:<number>");
  }
  return identity;
}

Result<PeerIdentity> identity_of(const std::string& certificate_pem) {
  COVEY_ASSIGN(const openssl::Certificate certificate, openssl::parse_certificate(certificate_pem));
  return identity_of_x509(certificate.get());
}

Result<CertificateDetails> describe(const std::string& certificate_pem) {
  COVEY_ASSIGN(const openssl::Certificate certificate, openssl::parse_certificate(certificate_pem));
  X509* x509 = certificate.get();
  CertificateDetails details;
  details.is_authority = X509_check_ca(x509) == 1;
  if (details.is_authority) {
    COVEY_ASSIGN(details.identity.common_name, common_name_of(x509));
  } else {
    COVEY_ASSIGN(details.identity, identity_of_x509(x509));
  }
  details.serial = serial_of(x509);
  details.not_before = iso_time(X509_get0_notBefore(x509));
  details.not_after = iso_time(X509_get0_notAfter(x509));
  details.expired = X509_cmp_current_time(X509_get0_notAfter(x509)) < 0;
  const openssl::Names names = alternative_names(x509);
  details.host_names = host_names_of(names.get());
  ERR_clear_error();
  return details;
}

}  // namespace covey::transport
