// Writes the seed corpora: every message of every kind, as inputs of the two targets.
// Run it when the schema changes: write_fuzz_corpus tests/fuzz/corpus
#include <array>
#include <covey/proto/codec.hpp>
#include <covey/transport/frame.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "../proto/sample_messages.hpp"

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
  return write_all(corpus, "device", covey::samples::client_messages()) &&
                 write_all(corpus, "server", covey::samples::server_messages())
             ? 0
             : 1;
}
