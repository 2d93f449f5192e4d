#include "secagg/keys.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace covey::privacy {
namespace {

std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(std::stoi(std::string(text.substr(2 * i, 2)), nullptr, 16));
  }
  return bytes;
}

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4];
    text += kDigits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

template <typename Array>
std::string hex_of(const Array& array) {
  return to_hex(std::as_bytes(std::span(array)));
}

std::array<std::uint8_t, 32> array_of(std::string_view hex) {
  const auto bytes = from_hex(hex);
  REQUIRE(bytes.size() == 32);
  std::array<std::uint8_t, 32> array{};
  for (std::size_t i = 0; i < 32; ++i) array[i] = std::to_integer<std::uint8_t>(bytes[i]);
  return array;
}

Secret<32> secret_of(std::string_view hex) { return Secret<32>(array_of(hex)); }

std::vector<std::byte> text(std::string_view words) {
  const auto bytes = std::as_bytes(std::span(words));
  return {bytes.begin(), bytes.end()};
}

TEST_CASE("X25519 gives the coordinates of RFC 7748") {
  // Section 5.2, both vectors; the second peer has its top bit set, which must be ignored.
  const auto first = shared_coordinate(
      secret_of("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
      array_of("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"));
  REQUIRE(first.ok());
  CHECK(to_hex(first->span()) ==
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552");
  const auto second = shared_coordinate(
      secret_of("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d"),
      array_of("e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493"));
  REQUIRE(second.ok());
  CHECK(to_hex(second->span()) ==
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957");
}

TEST_CASE("a thousand X25519 agreements in a chain end where RFC 7748 says") {
  // Section 5.2: k and u begin as the base point; each step k, u = X25519(k, u), k.
  std::string k = "0900000000000000000000000000000000000000000000000000000000000000";
  std::string u = k;
  for (int i = 0; i < 1000; ++i) {
    const auto next = shared_coordinate(secret_of(k), array_of(u));
    REQUIRE(next.ok());
    u = k;
    k = to_hex(next->span());
    if (i == 0) CHECK(k == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079");
  }
  CHECK(k == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
}

TEST_CASE("both sides of RFC 7748's exchange have its public keys and meet in its secret") {
  // Section 6.1.
  const Secret<32> alice =
      secret_of("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
  const Secret<32> bob =
      secret_of("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
  const auto alice_public = public_key_of(alice);
  const auto bob_public = public_key_of(bob);
  REQUIRE((alice_public.ok() && bob_public.ok()));
  CHECK(hex_of(*alice_public) ==
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  CHECK(hex_of(*bob_public) == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
  for (const auto& shared :
       {shared_coordinate(alice, *bob_public), shared_coordinate(bob, *alice_public)}) {
    REQUIRE(shared.ok());
    CHECK(to_hex(shared->span()) ==
          "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
  }
}

TEST_CASE("points of small order are refused") {
  // The points of order 1, 2, 4 and 8, also by their other encodings (Bernstein, "Curve25519: new
  // Diffie-Hellman speed records", 2006; the list on cr.yp.to/ecdh.html): X25519 makes zero of
  // each.
  const Secret<32> secret = secret_of(std::string(64, '7'));
  for (const std::string_view point :
       {"0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000080"}) {
    INFO(point);
    const auto agreed = agree(secret, array_of(point), Digest{}, {});
    REQUIRE_FALSE(agreed.ok());
    CHECK(agreed.error().code == ErrorCode::kMalformed);
    CHECK(agreed.error().message ==
          "the peer's public key is a point of small order, which makes no secret");
  }
}

TEST_CASE("HKDF-SHA256 gives the outputs of RFC 5869") {
  struct Case {
    std::string input, salt, info, output;
  };
  const auto range = [](int from, int to) {
    std::vector<std::byte> bytes;
    for (int i = from; i <= to; ++i) bytes.push_back(static_cast<std::byte>(i));
    return to_hex(bytes);
  };
  std::string ones;
  for (int i = 0; i < 22; ++i) ones += "0b";
  const std::vector<Case> cases{
      // A.1, A.2 (more than one block of hash, key and output), A.3 (no salt, no info)
      {ones, "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
       "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"},
      {range(0x00, 0x4f), range(0x60, 0xaf), range(0xb0, 0xff),
       "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e"
       "590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"},
      {ones, "", "",
       "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"}};
  for (const Case& each : cases) {
    std::vector<std::byte> output(each.output.size() / 2);
    hkdf_sha256(from_hex(each.salt), from_hex(each.input), from_hex(each.info), output);
    CHECK(to_hex(output) == each.output);
  }
}

TEST_CASE("an agreed key is HKDF of the coordinate, and depends on context and purpose") {
  const auto source = seeded_secrets(1, {}, {});
  const auto a = KeyPair::make(*source);
  const auto b = KeyPair::make(*source);
  REQUIRE((a.ok() && b.ok()));
  Digest context;
  context.bytes[3] = 1;
  const auto info = text("mask");
  const auto of_a = agree(a->secret, b->public_key, context, info);
  const auto of_b = agree(b->secret, a->public_key, context, info);
  REQUIRE((of_a.ok() && of_b.ok()));
  CHECK(*of_a == *of_b);

  const auto coordinate = shared_coordinate(a->secret, b->public_key);
  REQUIRE(coordinate.ok());
  Secret<32> expected;
  hkdf_sha256(std::as_bytes(std::span(context.bytes)), coordinate->span(), info, expected.span());
  CHECK(*of_a == expected);
  CHECK_FALSE(*of_a == *coordinate);

  CHECK_FALSE(derive(*coordinate, Digest{}, info) == expected);
  CHECK_FALSE(derive(*coordinate, context, text("shares")) == expected);
}

TEST_CASE("AES-256-GCM under the zero nonce gives the published ciphertexts") {
  // McGrew and Viega, "The Galois/Counter Mode of Operation", 2005, test cases 13 and 14.
  const Secret<32> key;
  const auto empty = seal(key, {}, {});
  REQUIRE(empty.ok());
  CHECK(to_hex(*empty) == "530f8afbc74536b9a963b4f1c4cb738b");
  const std::vector<std::byte> zeros(16);
  const auto block = seal(key, zeros, {});
  REQUIRE(block.ok());
  CHECK(to_hex(*block) == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  const auto opened = open(key, *block, {});
  REQUIRE(opened.ok());
  CHECK(*opened == zeros);
}

TEST_CASE("what was sealed opens only whole, with its key and its associated bytes") {
  Secret<32> key = secret_of(std::string(64, '3'));
  const auto message = text("shares of both secrets, from one device to another");
  const auto associated = text("run, round, from, to");
  const auto sealed = seal(key, message, associated);
  REQUIRE(sealed.ok());
  REQUIRE(sealed->size() == message.size() + 16);
  const auto opened = open(key, *sealed, associated);
  REQUIRE(opened.ok());
  CHECK(*opened == message);

  const auto refuses = [](const Result<std::vector<std::byte>>& result) {
    return !result.ok() && result.error().code == ErrorCode::kMalformed;
  };
  for (std::size_t bit = 0; bit < 8 * sealed->size(); ++bit) {
    auto tampered = *sealed;
    tampered[bit / 8] ^= std::byte{1} << (bit % 8);
    CHECK(refuses(open(key, tampered, associated)));
  }
  for (std::size_t size = 0; size < sealed->size(); ++size) {
    CHECK(refuses(open(key, std::span(*sealed).first(size), associated)));
  }
  auto longer = *sealed;
  longer.push_back(std::byte{0});
  CHECK(refuses(open(key, longer, associated)));
  CHECK(refuses(open(key, *sealed, text("run, round, to, from"))));
  CHECK(refuses(open(key, *sealed, {})));
  key.data()[31] ^= 1;
  CHECK(refuses(open(key, *sealed, associated)));
}

TEST_CASE("sealing on several threads and in any mixture of keys gives what it gives alone") {
  std::vector<std::vector<std::byte>> expected;
  for (unsigned i = 0; i < 64; ++i) {
    const auto sealed =
        seal(derive(Secret<32>(), Digest{}, text(std::to_string(i))), text("x"), {});
    REQUIRE(sealed.ok());
    expected.push_back(*sealed);
  }
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned i = 0; i < 64; ++i) {
        const unsigned which = (i * 7 + thread * 13) % 64;
        const auto key = derive(Secret<32>(), Digest{}, text(std::to_string(which)));
        const auto sealed = seal(key, text("x"), {});
        const auto opened = open(key, expected[which], {});
        wrong[thread] += !sealed.ok() || *sealed != expected[which];
        wrong[thread] += !opened.ok() || *opened != text("x");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("keys from a failing source are not made") {
  class Broken final : public SecretSource {
    Result<void> fill(std::span<std::byte>) override { return failed("no entropy"); }
  } broken;
  const auto made = KeyPair::make(broken);
  REQUIRE_FALSE(made.ok());
  CHECK(made.error().message == "no entropy");
}

}  // namespace
}  // namespace covey::privacy
