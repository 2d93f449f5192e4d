// Writes the seed corpora: every message of every kind, as inputs of the codec's and the frames'
// targets, secure sums from end to end, and an update in every compressor. Run it when the schema
// changes: write_fuzz_corpus tests/fuzz/corpus
#include <array>
#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <covey/proto/codec.hpp>
#include <covey/random.hpp>
#include <covey/transport/frame.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "../proto/sample_messages.hpp"
#include "compression_inputs.hpp"
#include "secagg_steps.hpp"

namespace {

using covey::proto::Encoded;

std::string text_of(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

std::string frame_of(const Encoded& encoded) {
  std::array<std::byte, covey::transport::kFramePrefixBytes> prefix{};
  covey::transport::write_prefix({static_cast<std::uint32_t>(encoded.size()),
                                  static_cast<std::uint32_t>(encoded.header.size())},
                                 prefix);
  return text_of(prefix) + text_of(encoded.header) + text_of(encoded.payload.span());
}

bool write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) std::fprintf(stderr, "cannot write %s\n", path.c_str());
  return static_cast<bool>(file);
}

template <typename Message>
bool write_all(const std::filesystem::path& corpus, const std::string& sender,
               const std::vector<Message>& messages) {
  std::string conversation(1, '\x07');  // arrives in pieces of seven bytes
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Encoded encoded = covey::proto::encode(messages[i]);
    const std::string name = sender + "-" + std::to_string(i);
    const std::string payload = text_of(encoded.payload.span());
    const std::string length(1, static_cast<char>(payload.size()));
    if (!write(corpus / "fuzz_codec" / name, length + payload + text_of(encoded.header)) ||
        !write(corpus / "fuzz_frame" / name, std::string(1, '\0') + frame_of(encoded))) {
      return false;
    }
    conversation += frame_of(encoded);
  }
  return write(corpus / "fuzz_frame" / (sender + "-conversation"), conversation);
}

std::string deed(covey::fuzz::SecAggDeed deed, const std::string& arguments = "") {
  return static_cast<char>(deed) + arguments;
}

/// A message of the fuzzer's own, for device 1, with its round set right.
template <typename Message>
std::string raw(covey::fuzz::SecAggDeed direction, const Message& message) {
  const std::string header = text_of(covey::proto::encode(message).header);
  std::string arguments{'\x01', '\x01', static_cast<char>(header.size() & 0xff),
                        static_cast<char>(header.size() >> 8)};
  return deed(direction, arguments + header);
}

/// One sum: `between` after the answers of each step, `masking` in place of the third step's
/// answers.
std::string secure_sum(char kind, const std::string& between, const std::string& masking) {
  using enum covey::fuzz::SecAggDeed;
  const std::string step = deed(kAllAnswer) + between + deed(kCloseStep);
  std::string sum{kind, '\x03'};  // five devices
  sum += step + step + masking + between + deed(kCloseStep);
  if ((kind & 1) != 0) sum += step;  // confirmations
  return sum + deed(kAllAnswer) + between + deed(kUnmask);
}

// Of the samples: AdvertiseKeys, NeighbourKeys and what follows them.
constexpr std::size_t kFirstSecureUp = 8;
constexpr std::size_t kFirstSecureDown = 13;

bool write_secure_sums(const std::filesystem::path& corpus) {
  using enum covey::fuzz::SecAggDeed;
  const std::string all = deed(kAllAnswer);
  const std::string four = deed(kAnswer, "\x01") + deed(kAnswer, "\x02") + deed(kAnswer, "\x03") +
                           deed(kAnswer, std::string(1, '\0'));
  std::string invented;
  for (const auto& message : covey::samples::client_messages()) {
    if (message.index() >= kFirstSecureUp) invented += raw(kRawUp, message);
  }
  for (const auto& message : covey::samples::server_messages()) {
    if (message.index() >= kFirstSecureDown) invented += raw(kRawDown, message);
  }
  const std::string place("\x02\x01\x20\x00\x01", 5);  // device 2, one bit of byte 32
  const std::string replays = deed(kReplayUp, "\x01\x02") + deed(kReplayDown, "\x02\x01");
  for (char kind = 0; kind < 8; ++kind) {
    const auto path = corpus / "fuzz_secagg" / ("sum-" + std::to_string(kind));
    const auto named = [&](const char* what) { return path.string() + "-" + what; };
    if (!write(path, secure_sum(kind, "", all)) ||
        !write(named("dropout"), secure_sum(kind, "", four))) {
      return false;
    }
    if (kind > 1) continue;  // ciphers and graphs do not matter to mischief
    if (!write(named("leave"), secure_sum(kind, deed(kLeave, "\x04"), all)) ||
        !write(named("invented"), secure_sum(kind, invented, all)) ||
        !write(named("replays"), secure_sum(kind, replays, all)) ||
        !write(named("damage-up"), secure_sum(kind, deed(kDamageUp, place), four)) ||
        !write(named("damage-down"), secure_sum(kind, deed(kDamageDown, place), four))) {
      return false;
    }
  }
  return true;
}

std::string compression_input(std::size_t spec, std::size_t size,
                              covey::fuzz::CompressionInput kind, std::span<const std::byte> rest) {
  return std::string{static_cast<char>(spec), static_cast<char>(size), static_cast<char>(kind)} +
         text_of(rest);
}

bool write_compressed(const std::filesystem::path& corpus) {
  using namespace covey::fuzz;
  covey::RandomStream random(1, covey::RandomPurpose::kDataGeneration);
  for (const std::size_t size : {std::size_t{3}, std::size_t{7}}) {  // 8 and 200 values
    std::vector<float> update(kSizes[size]);
    for (float& x : update) {
      x = static_cast<float>(random.normal(0, 0.01) * random.log_normal(0, 1.5));
    }
    const std::string name = std::to_string(update.size());
    const auto values = std::as_bytes(std::span(update));
    std::vector<std::byte> base(update.size()), model(update.size());
    for (std::size_t i = 0; i < base.size(); ++i) base[i] = static_cast<std::byte>(i * 37);
    for (std::size_t i = 0; i < base.size(); ++i) model[i] = base[i] ^ values[i];
    const auto delta = covey::compression::encode_model_delta(base, model, 4);
    if (!write(corpus / "fuzz_compression" / ("delta-" + name),
               compression_input(0, size, CompressionInput::kModelDelta, delta->bytes.span())) ||
        !write(corpus / "fuzz_compression" / ("update-" + name),
               compression_input(0, size, CompressionInput::kUpdate, values))) {
      return false;
    }
    for (std::size_t spec = 0; spec < std::size(kSpecs); ++spec) {
      const auto encoded = make(kSpecs[spec], update.size())->encode(update, kUpdateName);
      const auto path = corpus / "fuzz_compression" / (std::to_string(spec) + "-" + name);
      if (!write(path, compression_input(spec, size, CompressionInput::kEncoded, encoded.span()))) {
        return false;
      }
      if (spec % 8 != 3) continue;  // int8, drive, random-k
      const auto step = covey::compression::frame_model_step(kUpdateName.round, encoded.span());
      if (!write(corpus / "fuzz_compression" / ("steps-" + std::to_string(spec) + "-" + name),
                 compression_input(spec, size, CompressionInput::kModelSteps, step))) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_fuzz_corpus tests/fuzz/corpus\n");
    return 2;
  }
  const std::filesystem::path corpus(argv[1]);
  std::error_code error;
  std::filesystem::create_directories(corpus / "fuzz_codec", error);
  std::filesystem::create_directories(corpus / "fuzz_frame", error);
  std::filesystem::create_directories(corpus / "fuzz_secagg", error);
  std::filesystem::create_directories(corpus / "fuzz_compression", error);
  return write_secure_sums(corpus) && write_compressed(corpus) &&
                 write_all(corpus, "device", covey::samples::client_messages()) &&
                 write_all(corpus, "server", covey::samples::server_messages())
             ? 0
             : 1;
}
