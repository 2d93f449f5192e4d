#include <catch2/catch.hpp>
#include <covey/client/transfer.hpp>

#include "fake_server.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;

TEST_CASE("a blob of no bytes is whole at once, and checked all the same") {
  BlobDownload empty(sha256({}), 0);
  REQUIRE(empty.complete());
  const auto result = empty.finish();
  REQUIRE(result);
  CHECK(result->empty());
  CHECK_FALSE(BlobDownload(sha256(patterned_bytes(1, 1).span()), 0).finish());
}

TEST_CASE("a download survives a server that answers shorter than asked") {
  const auto most = GENERATE(4096u, 5000u, 8191u);
  CAPTURE(most);
  const SharedBytes blob = patterned_bytes(20000, 3);
  BlobDownload download(sha256(blob.span()), blob.size());
  std::deque<BlobRequest> asked;
  std::uint64_t answers = 0;
  while (!download.complete()) {
    while (auto request = download.next_request(8192)) asked.push_back(*request);
    REQUIRE(asked.size() == download.outstanding());
    REQUIRE_FALSE(asked.empty());
    const BlobRequest request = asked.front();
    asked.pop_front();
    const auto length = std::min(request.length, most);
    REQUIRE(download.accept({request.blob, request.offset, blob.slice(request.offset, length)}));
    REQUIRE(++answers <= 100000);
  }
  const auto result = download.finish();
  REQUIRE(result);
  CHECK(std::ranges::equal(result->span(), blob.span()));
}

TEST_CASE("a piece of fewer bytes than 4 KiB is taken only where no more were asked for") {
  const SharedBytes blob = patterned_bytes(20000, 3);
  BlobDownload download(sha256(blob.span()), blob.size());
  const auto answer = [&](std::uint32_t asked, std::size_t given) {
    const auto request = download.next_request(asked);
    REQUIRE(request);
    return download.accept({request->blob, request->offset, blob.slice(request->offset, given)});
  };
  CHECK(answer(100, 100));
  CHECK(answer(8192, 4096));
  const auto refused = answer(8192, 4095);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("too few") != std::string::npos);
  download.connection_lost();
  CHECK_FALSE(answer(100, 99));
}

TEST_CASE("a download asks for nothing below what it holds after a cut") {
  const SharedBytes blob = patterned_bytes(1000, 4);
  BlobDownload download(sha256(blob.span()), blob.size());
  for (int i = 0; i < 4; ++i) REQUIRE(download.next_request(100));
  CHECK_FALSE(download.next_request(100));
  REQUIRE(download.accept({download.blob(), 0, blob.slice(0, 100)}));
  REQUIRE(download.accept({download.blob(), 100, blob.slice(100, 100)}));
  download.connection_lost();
  const auto request = download.next_request(100);
  REQUIRE(request);
  CHECK(request->offset == 200);
  CHECK_FALSE(download.accept({download.blob(), 400, blob.slice(400, 100)}));  // of before the cut
  CHECK(download.held() == 200);
}

TEST_CASE("a blob of nothing is complete from the start") {
  BlobDownload download(sha256({}), 0);
  CHECK(download.complete());
  CHECK_FALSE(download.next_request(100));
}

TEST_CASE("an upload starts where the server is") {
  const SharedBytes bytes = patterned_bytes(1000, 5);
  BlobUpload upload(sha256(bytes.span()), bytes);
  CHECK_FALSE(upload.next_chunk(100));
  REQUIRE(upload.grant({sha256(bytes.span()), 700, 150}));
  const auto first = upload.next_chunk(100);
  REQUIRE(first);
  CHECK(first->offset == 700);
  CHECK(first->payload.size() == 100);
  const auto second = upload.next_chunk(100);
  REQUIRE(second);
  CHECK(second->payload.size() == 50);
  CHECK_FALSE(upload.next_chunk(100));
  CHECK(upload.in_flight() == 150);
}
