#pragma once

#include <covey/proto/codec.hpp>
#include <cstdio>
#include <cstdlib>

/// What both fuzz targets check of a header and a payload from a stranger: whatever the codec
/// accepts, it can say again, and hears the same. Compared as encoded bytes, because a NaN equals
/// nothing.
namespace covey::fuzz {

template <typename Message>
void check_round_trip(const Message& message,
                      Result<Message> (*decode)(std::span<const std::byte>, SharedBytes)) {
  const proto::Encoded once = proto::encode(message);
  const auto decoded = decode(once.header, once.payload);
  if (!decoded.ok()) {
    std::fprintf(stderr, "accepted, but not after encoding it again: %s\n",
                 decoded.error().message.c_str());
    std::abort();
  }
  const proto::Encoded twice = proto::encode(*decoded);
  if (twice.header != once.header || twice.payload.data() != once.payload.data() ||
      twice.payload.size() != once.payload.size()) {
    std::fprintf(stderr, "not the same message after another round trip\n");
    std::abort();
  }
}

inline void decode_as_both_ends(std::span<const std::byte> header, const SharedBytes& payload) {
  if (const auto message = proto::decode_client_message(header, payload)) {
    check_round_trip<ClientMessage>(*message, proto::decode_client_message);
  }
  if (const auto message = proto::decode_server_message(header, payload)) {
    check_round_trip<ServerMessage>(*message, proto::decode_server_message);
  }
}

}  // namespace covey::fuzz
