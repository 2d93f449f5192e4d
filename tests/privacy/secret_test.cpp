#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <covey/privacy/secret.hpp>
#include <cstring>
#include <set>
#include <string>
#include <vector>

namespace covey::privacy {
namespace {

std::vector<std::byte> drawn(SecretSource& source, std::size_t size) {
  std::vector<std::byte> bytes(size);
  REQUIRE(source.fill(bytes).ok());
  return bytes;
}

TEST_CASE("a secret's memory is zero after it has been cleared, moved from or destroyed") {
  std::array<std::uint8_t, 32> ones{};
  ones.fill(0xff);
  const auto zero = [](const std::uint8_t* bytes) {
    return std::all_of(bytes, bytes + 32, [](std::uint8_t byte) { return byte == 0; });
  };

  Secret<32> cleared(ones);
  cleared.clear();
  CHECK(zero(cleared.data()));

  Secret<32> from(ones);
  const Secret<32> to(std::move(from));
  CHECK(zero(from.data()));  // NOLINT: what a move leaves behind is what is tested
  CHECK(to == Secret<32>(ones));

  alignas(Secret<32>) std::array<std::uint8_t, sizeof(Secret<32>)> memory{};
  auto* placed = new (memory.data()) Secret<32>(ones);
  CHECK_FALSE(zero(memory.data()));
  placed->~Secret();
  CHECK(zero(memory.data()));
}

TEST_CASE("secrets are equal only if every byte is") {
  const Secret<32> zero;
  for (std::size_t i = 0; i < 32; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      Secret<32> other;
      other.data()[i] = static_cast<std::uint8_t>(1 << bit);
      CHECK_FALSE(zero == other);
    }
  }
  CHECK(zero == Secret<32>());
}

TEST_CASE("the system's source never gives the same bytes twice, in draws of any size") {
  const auto source = system_secrets();
  const auto other = system_secrets();
  std::set<std::vector<std::byte>> seen;
  std::size_t draws = 0;
  for (std::size_t size : {16, 100, 1000, 4080, 4096, 4097, 10000}) {
    for (int i = 0; i < 20; ++i, draws += 2) {
      // 2^-128 is the chance that two of these are equal by accident.
      for (SecretSource* each : {source.get(), other.get()}) {
        std::vector<std::byte> bytes = drawn(*each, size);
        const std::vector<std::byte> tail(bytes.end() - 16, bytes.end());
        CHECK(seen.insert(tail).second);
        CHECK(std::count(bytes.begin(), bytes.end(), std::byte{0}) <
              static_cast<long>(size / 8 + 8));
      }
    }
  }
  CHECK(seen.size() == draws);
  CHECK(source->fill({}).ok());
}

TEST_CASE("a process and its fork draw different secrets") {
  const auto source = system_secrets();
  drawn(*source, 1);  // 4095 bytes are now waiting
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::array<std::byte, 32> bytes{};
    const bool ok = source->fill(bytes).ok() && write(ends[1], bytes.data(), bytes.size()) == 32;
    _exit(ok ? 0 : 1);
  }
  std::vector<std::byte> of_child(32);
  CHECK(read(ends[0], of_child.data(), of_child.size()) == 32);
  int status = 1;
  REQUIRE(waitpid(child, &status, 0) == child);
  close(ends[0]);
  close(ends[1]);
  CHECK(status == 0);
  CHECK(drawn(*source, 32) != of_child);
}

TEST_CASE("a seeded source repeats, however the draws are cut") {
  const auto whole = drawn(*seeded_secrets(7, RoundNumber{3}, ClientId{11}, 2), 20000);
  const auto source = seeded_secrets(7, RoundNumber{3}, ClientId{11}, 2);
  std::vector<std::byte> pieces;
  for (std::size_t size = 0; pieces.size() < whole.size(); size = size * 2 % 3001 + 1) {
    const auto piece = drawn(*source, std::min(size, whole.size() - pieces.size()));
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  CHECK(pieces == whole);
}

TEST_CASE("a seeded source depends on seed, round, client and stream") {
  const auto start = [](std::uint64_t seed, std::uint32_t round, std::uint64_t client,
                        std::uint64_t stream) {
    return drawn(*seeded_secrets(seed, RoundNumber{round}, ClientId{client}, stream), 32);
  };
  std::set<std::vector<std::byte>> seen;
  // Each number in each place, and in each byte of it.
  for (unsigned shift = 0; shift < 64; shift += 8) {
    const std::uint64_t one = std::uint64_t{1} << shift;
    CHECK(seen.insert(start(one, 0, 0, 0)).second);
    CHECK(seen.insert(start(0, 0, one, 0)).second);
    CHECK(seen.insert(start(0, 0, 0, one)).second);
    if (shift < 32) {
      CHECK(seen.insert(start(0, static_cast<std::uint32_t>(one), 0, 0)).second);
    }
  }
  CHECK(seen.insert(start(0, 0, 0, 0)).second);
}

}  // namespace
}  // namespace covey::privacy
