#include <catch2/catch.hpp>
#include <covey/client/local_data_spec.hpp>

using namespace covey;
using namespace covey::client;
using Catch::Matchers::Contains;
using Kind = LocalDataSpec::Kind;

TEST_CASE("local data are named by kind, path and options") {
  const auto csv = parse_local_data("csv:/data/day 1.csv,label=kind");
  REQUIRE(csv.ok());
  CHECK(csv->kind == Kind::kCsv);
  CHECK(csv->path == "/data/day 1.csv");
  CHECK(csv->label == "kind");
}

TEST_CASE("commas belong to the path where no option stands behind them") {
  const auto spec = parse_local_data("csv:/data/a,b.csv,label=kind,max-bytes=3M");
  REQUIRE(spec.ok());
  CHECK(spec->path == "/data/a,b.csv");
  CHECK(spec->label == "kind");
  CHECK(spec->max_bytes == 3u << 20);
}

TEST_CASE("a stream's options are read") {
  const auto spec = parse_local_data(
      "stream:/var/s,keep=reservoir,max-examples=500,only-new=yes,replay=0.5,min-examples=20,"
      "element=byte,shape=28x28x1,classes=10,seed=7,max-bytes=1G");
  REQUIRE(spec.ok());
  CHECK(spec->kind == Kind::kStream);
  CHECK(spec->path == "/var/s");
  CHECK(spec->stream.keep == StreamOptions::Keep::kReservoir);
  CHECK(spec->stream.element == StreamOptions::Element::kByte);
  CHECK(spec->stream.max_examples == 500);
  CHECK(spec->stream.min_examples == 20);
  CHECK(spec->stream.only_new);
  CHECK(spec->stream.replay == 0.5);
  CHECK(spec->stream.seed == 7);
  CHECK(spec->stream.shape == std::vector<std::uint32_t>{28, 28, 1});
  CHECK(spec->num_classes == 10);
  CHECK(spec->max_bytes == std::uint64_t{1} << 30);
}

TEST_CASE("classes are a number or names") {
  CHECK(parse_local_data("idx:d,classes=10")->num_classes == 10);
  const auto named = parse_local_data("directory:d,classes=cat|dog");
  REQUIRE(named.ok());
  CHECK(named->class_names == std::vector<std::string>{"cat", "dog"});
  CHECK(named->num_classes == 2);
}

TEST_CASE("what names no local data is refused with what would") {
  struct Wrong {
    std::string text, sentence;
  };
  const auto wrong = GENERATE(values<Wrong>({
      {"", "csv:FILE"},
      {"csv", "csv:FILE"},
      {"parquet:x", "csv:FILE"},
      {"csv:", "path is missing"},
      {"csv:,label=x", "path is missing"},
      {"csv:a,lable=x", "lable=x: local data of kind csv take label,classes,max-bytes"},
      {"idx:a,label=x", "of kind idx take"},
      {"idx:a,classes=cat|dog", "classes=N"},
      {"csv:a,classes=", "classes="},
      {"csv:a,classes=a|a", "different names"},
      {"csv:a,classes=0", "at least 1"},
      {"csv:a,classes=99999", "at most 65536"},
      {"csv:a,max-bytes=", "max-bytes="},
      {"csv:a,max-bytes=0", "at least 1"},
      {"csv:a,max-bytes=-1", "max-bytes=-1"},
      {"csv:a,max-bytes=3T", "K, M or G"},
      {"csv:a,max-bytes=99999999999999999999", "max-bytes"},
      {"csv:a,max-bytes=99999999999999999G", "max-bytes"},
      {"stream:a,keep=all", "window or reservoir"},
      {"stream:a,only-new=1", "no or yes"},
      {"stream:a,replay=nan", "replay=nan"},
      {"stream:a,replay=-1", "replay=-1"},
      {"stream:a,element=int", "float or byte"},
      {"stream:a,shape=3xx", "shape="},
      {"stream:a,shape=1x2x3x4x5", "four extents"},
      {"stream:a,max-examples=0", "at least 1"},
  }));
  const auto spec = parse_local_data(wrong.text);
  INFO(wrong.text);
  REQUIRE_FALSE(spec.ok());
  CHECK(spec.error().code == ErrorCode::kInvalidArgument);
  CHECK_THAT(spec.error().message, Contains(wrong.sentence));
}
