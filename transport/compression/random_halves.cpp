#include "random_halves.hpp"

namespace covey::compression {
namespace {

constexpr std::size_t kBlocks = RandomHalves::kChunk / 8;  // a block is eight halves

/// Philox4x32-10 (Salmon et al. 2011) of kBlocks counters, word w of block i at [w * kBlocks + i].
void philox(const RandomStream::Blocks& stream, std::uint32_t first, std::uint32_t* words) {
  for (std::uint32_t i = 0; i < kBlocks; ++i) {
    std::uint32_t c0 = first + i, c1 = 0, c2 = stream.client[0], c3 = stream.client[1];
    std::uint32_t k0 = stream.key[0], k1 = stream.key[1];
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c0;
      const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
    words[i] = c0;
    words[kBlocks + i] = c1;
    words[2 * kBlocks + i] = c2;
    words[3 * kBlocks + i] = c3;
  }
}

}  // namespace

RandomHalves::RandomHalves(const UpdateName& name)
    : stream_(RandomStream(name.seed, RandomPurpose::kUpdateRounding, name.round, name.client)
                  .blocks()) {}

std::span<const std::uint16_t, RandomHalves::kChunk> RandomHalves::next() {
  alignas(64) std::array<std::uint32_t, kChunk / 2> words;
  philox(stream_, next_block_, words.data());
  next_block_ += kBlocks;
  for (std::size_t i = 0; i < words.size(); ++i) {
    halves_[i] = static_cast<std::uint16_t>(words[i]);
    halves_[words.size() + i] = static_cast<std::uint16_t>(words[i] >> 16);
  }
  return halves_;
}

}  // namespace covey::compression
