#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <covey/bytes.hpp>
#include <covey/messages.hpp>
#include <covey/result.hpp>

/// Core messages <-> bytes. The only code that names a protobuf type; the wire's schema is wire.proto.
///
/// A frame's body is a header (one protobuf Envelope) and a payload (raw bytes: a chunk's share of a
/// blob, otherwise empty). The payload is never copied into or out of protobuf.
namespace covey::proto {

struct Encoded {
  std::vector<std::byte> header;
  SharedBytes payload;

  std::size_t size() const { return header.size() + payload.size(); }
};

Encoded encode(const ClientMessage& message);
Encoded encode(const ServerMessage& message);

/// Error naming the field for anything that is not a message of ours: unknown kind, missing or
/// out-of-range fields, wrong digest lengths, a payload where there is none, more than the limits
/// (strings 4 KiB, lists 1024, layers 256).
Result<ClientMessage> decode_client_message(std::span<const std::byte> header, SharedBytes payload);
Result<ServerMessage> decode_server_message(std::span<const std::byte> header, SharedBytes payload);

}  // namespace covey::proto
