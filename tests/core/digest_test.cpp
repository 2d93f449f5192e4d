#include <catch2/catch.hpp>
#include <covey/digest.hpp>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace covey {
namespace {

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

TEST_CASE("SHA-256 gives the answers of FIPS 180-4") {
  // NIST, "Examples with intermediate values: SHA-256"; the empty message from NIST CAVP.
  CHECK(sha256(bytes("")).hex() ==
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256(bytes("abc")).hex() ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256(bytes("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")).hex() ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(bytes(std::string(1000000, 'a'))).hex() ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a digest of pieces is the digest of the whole, however it is cut") {
  const std::string text(1000, 'x');
  const Digest whole = sha256(bytes(text));
  for (const std::size_t piece : {1u, 7u, 64u, 999u}) {
    Sha256 hash;
    for (std::size_t at = 0; at < text.size(); at += piece) {
      hash.update(bytes(std::string_view(text).substr(at, piece)));
    }
    CHECK(hash.finish() == whole);
  }
}

TEST_CASE("a hash that was finished starts again from nothing") {
  Sha256 hash;
  hash.update(bytes("something else"));
  (void)hash.finish();
  hash.update(bytes("abc"));
  CHECK(hash.finish() == sha256(bytes("abc")));
}

TEST_CASE("a hash keeps what it was given when it is moved") {
  Sha256 first;
  first.update(bytes("a"));
  Sha256 second = std::move(first);
  second.update(bytes("bc"));
  CHECK(second.finish() == sha256(bytes("abc")));
}

TEST_CASE("a digest survives the way through hexadecimal digits") {
  const Digest digest = sha256(bytes("abc"));
  CHECK(Digest::from_hex(digest.hex()) == digest);
}

TEST_CASE("text that is not 64 lower-case hexadecimal digits is no digest") {
  const std::string good = sha256(bytes("abc")).hex();
  CHECK_FALSE(Digest::from_hex(""));
  CHECK_FALSE(Digest::from_hex(good.substr(1)));
  CHECK_FALSE(Digest::from_hex(good + "0"));
  std::string other = good;
  other[0] = 'g';
  CHECK_FALSE(Digest::from_hex(other));
  other[0] = 'B';
  CHECK_FALSE(Digest::from_hex(other));
}

TEST_CASE("digests can be keys of a hash table") {
  std::unordered_set<Digest, DigestHash> digests;
  for (int i = 0; i < 100; ++i) digests.insert(sha256(bytes(std::to_string(i))));
  CHECK(digests.size() == 100);
  CHECK(digests.contains(sha256(bytes("42"))));
  CHECK_FALSE(digests.contains(sha256(bytes("100"))));
}

}  // namespace covey
