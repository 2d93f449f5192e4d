#pragma once

#include <covey/client/spool.hpp>
#include <covey/proto/codec.hpp>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tests/client/memory_disk.hpp"

/// A device and its disk, as the fuzz targets of the client have them.
namespace covey::fuzz {

inline constexpr std::uint64_t kMaxDiskBytes = 64 * 1024;

/// What to do next, from the fuzzer's bytes; zeros when they are used up.
class Choices {
 public:
  explicit Choices(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t value = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return value;
  }
  /// Small numbers as a rule, and now and then one from the edges of the type.
  std::uint64_t number() {
    const std::uint8_t kind = byte();
    if (kind < 200) return kind;
    if (kind < 220) return std::uint64_t{1} << (kind % 64);
    std::uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return kind < 240 ? value : ~value >> 1;
  }
  std::vector<std::byte> take(std::size_t size) {
    std::vector<std::byte> taken;
    for (; taken.size() < size && !bytes_.empty(); bytes_ = bytes_.subspan(1)) {
      taken.push_back(static_cast<std::byte>(bytes_.front()));
    }
    return taken;
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

inline std::unique_ptr<client::Spool> open_spool(client::testing::MemoryDisk& disk) {
  client::SpoolOptions options;
  options.client = ClientId{3};
  options.max_bytes = kMaxDiskBytes;
  options.encode = [](const Assignment& a) { return proto::encode(ServerMessage(a)).header; };
  options.decode = [](std::span<const std::byte> bytes) -> Result<Assignment> {
    COVEY_ASSIGN(ServerMessage message, proto::decode_server_message(bytes, {}));
    if (auto* assignment = std::get_if<Assignment>(&message)) return std::move(*assignment);
    return malformed("another message");
  };
  return std::make_unique<client::Spool>(disk.open(), std::move(options));
}

/// Logistic regression 60 -> 10: 2440 bytes.
inline Assignment small_assignment(const SharedBytes& model, std::uint32_t round) {
  Assignment assignment;
  assignment.run = RunId{7};
  assignment.round = RoundNumber{round};
  assignment.plan.strategy = "fedavg";
  assignment.plan.model = *preset_model("logistic", {60}, 10);
  assignment.model = model.digest();
  assignment.model_size = model.size();
  assignment.report_within = std::chrono::seconds(600);
  return assignment;
}

inline SharedBytes pattern(std::size_t size, unsigned seed) {
  std::vector<std::byte> bytes(size);
  unsigned state = seed * 2654435761u + 1;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return SharedBytes(std::move(bytes));
}

}  // namespace covey::fuzz
