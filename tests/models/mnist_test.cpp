#include <zlib.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <covey/models/data_set.hpp>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <numeric>
#include <string>
#include <vector>

#include "data_directory.hpp"

namespace covey::models {
namespace {

/// An idx file: magic number, extents, values.
std::string idx(std::uint32_t magic, std::initializer_list<std::uint32_t> extents,
                const std::string& values) {
  std::string bytes;
  const auto put = [&](std::uint32_t x) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(x >> shift));
  };
  put(magic);
  for (const std::uint32_t extent : extents) put(extent);
  return bytes + values;
}

/// Three training and two test images of 2x3 pixels; each test spoils one file of it.
class SmallMnist {
 public:
  SmallMnist() {
    std::string pixels(18, '\0');
    std::iota(pixels.begin(), pixels.end(), '\0');
    pixels[17] = static_cast<char>(255);
    write("train-images-idx3-ubyte", idx(0x803, {3, 2, 3}, pixels));
    write("train-labels-idx1-ubyte", idx(0x801, {3}, {7, 0, 9}));
    write("t10k-images-idx3-ubyte", idx(0x803, {2, 2, 3}, pixels.substr(0, 12)));
    write("t10k-labels-idx1-ubyte", idx(0x801, {2}, {1, 2}));
  }

  std::string write(const std::string& name, const std::string& bytes) const {
    return directory_.write(name, bytes);
  }
  const std::string& path() const { return directory_.path(); }
  std::string error() const {
    const auto data = load_mnist(path());
    return data.ok() ? "(no error)" : data.error().message;
  }

 private:
  test::ScratchDirectory directory_;
};

void compress(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const gzFile out = gzopen((path + ".gz").c_str(), "wb");
  REQUIRE(gzwrite(out, bytes.data(), static_cast<unsigned>(bytes.size())) ==
          static_cast<int>(bytes.size()));
  REQUIRE(gzclose(out) == Z_OK);
  std::filesystem::remove(path);
}

}  // namespace

TEST_CASE("idx files become images of bytes over 255 and labels") {
  const SmallMnist files;
  const auto data = load_mnist(files.path());
  REQUIRE(data.ok());
  CHECK(data->train.shape() == std::vector<std::uint32_t>{2, 3, 1});
  CHECK(data->train.size() == 3);
  CHECK(data->test.size() == 2);
  CHECK(data->train.classes() == 10);
  CHECK(data->owners.empty());
  std::vector<float> pixels(6);
  std::vector<std::int32_t> label(1);
  data->train.gather(std::vector<std::uint32_t>{2}, pixels, label);
  CHECK(label[0] == 9);
  CHECK(pixels[0] == Approx(12.0 / 255));
  CHECK(pixels[5] == Approx(1));
}

TEST_CASE("compressed idx files and the sub-folder mnist are found") {
  const SmallMnist files;
  compress(files.path() + "/train-images-idx3-ubyte");
  compress(files.path() + "/t10k-labels-idx1-ubyte");
  CHECK(files.error() == "(no error)");
  const test::ScratchDirectory outer;
  std::filesystem::copy(files.path(), outer.path() + "/mnist");
  CHECK(load_mnist(outer.path()).ok());
}

TEST_CASE("a missing file is named with where it was looked for and what to do") {
  const SmallMnist files;
  std::filesystem::remove(files.path() + "/train-labels-idx1-ubyte");
  const auto data = load_mnist(files.path());
  REQUIRE_FALSE(data.ok());
  CHECK(data.error().code == ErrorCode::kNotFound);
  CHECK(data.error().message ==
        "train-labels-idx1-ubyte (or train-labels-idx1-ubyte.gz) is not in " + files.path() + ", " +
            files.path() + "/mnist; name the folder with --data or COVEY_DATA");
}

TEST_CASE("an idx file with another magic number is refused with both numbers") {
  const SmallMnist files;
  const auto path = files.write("train-images-idx3-ubyte", idx(0x801, {3}, "abc"));
  CHECK(files.error() == path +
                             ": magic number 0x00000801, expected 0x00000803 (unsigned bytes, 3 "
                             "dimensions)");
}

TEST_CASE("an idx file cut short anywhere is refused naming what is missing") {
  const std::string whole = idx(0x801, {3}, {7, 0, 9});
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const SmallMnist files;
    const auto path = files.write("train-labels-idx1-ubyte", whole.substr(0, length));
    INFO("length " << length);
    const std::string sentence = length < 8
                                     ? ": ends inside the header"
                                     : ": is cut short: the header announces 3 bytes of values, " +
                                           std::to_string(length - 8) + " are there";
    CHECK(files.error() == path + sentence);
  }
}

TEST_CASE("a compressed file cut short anywhere or damaged is refused") {
  const SmallMnist files;
  const std::string path = files.path() + "/train-images-idx3-ubyte";
  compress(path);
  std::ifstream file(path + ".gz", std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  // Without the last eight bytes (checksum and length) the values are all there, and the end is
  // not.
  for (std::size_t length = 0; length < whole.size(); ++length) {
    files.write("train-images-idx3-ubyte.gz", whole.substr(0, length));
    INFO("length " << length << " of " << whole.size());
    CHECK(files.error() != "(no error)");
  }
  std::string damaged = whole;
  damaged[whole.size() / 2] = static_cast<char>(damaged[whole.size() / 2] ^ 0x55);
  files.write("train-images-idx3-ubyte.gz", damaged);
  CHECK(files.error() != "(no error)");
}

TEST_CASE("an idx file that goes on behind its values is refused") {
  const SmallMnist files;
  const auto path = files.write("train-labels-idx1-ubyte", idx(0x801, {3}, {7, 0, 9, 4}));
  CHECK(files.error() == path + ": goes on behind the 3 bytes of values that the header announces");
}

TEST_CASE("a header that announces more than the file holds takes no memory for it") {
  const SmallMnist files;
  const auto path = files.write("train-images-idx3-ubyte", idx(0x803, {0xffffffff, 1, 1}, "abc"));
  CHECK_THAT(files.error(), Catch::Contains("announces 4294967295 bytes of values, 3 are there"));
  files.write("train-images-idx3-ubyte", idx(0x803, {0xffffffff, 0xffffffff, 0xffffffff}, "abc"));
  CHECK_THAT(files.error(), Catch::StartsWith(path + ": dimension 1 is 4294967295"));
}

TEST_CASE("counts of images and labels that differ are refused") {
  const SmallMnist files;
  files.write("train-labels-idx1-ubyte", idx(0x801, {2}, {1, 2}));
  CHECK_THAT(files.error(), Catch::Contains("2 labels for the 3 images of"));
}

TEST_CASE("a label above 9 is refused with its position") {
  const SmallMnist files;
  const auto path = files.write("train-labels-idx1-ubyte", idx(0x801, {3}, {7, 10, 9}));
  CHECK(files.error() == path + ": label 1 is 10, outside [0, 10)");
}

TEST_CASE("images without pixels and images of two sizes are refused") {
  const SmallMnist files;
  files.write("t10k-images-idx3-ubyte", idx(0x803, {2, 1, 3}, "abcdef"));
  CHECK_THAT(files.error(), Catch::Contains("2x3, test images 1x3"));
  files.write("t10k-images-idx3-ubyte", idx(0x803, {2, 0, 3}, ""));
  CHECK_THAT(files.error(), Catch::Contains("no features"));
}

TEST_CASE("MNIST itself has 60000 and 10000 digits of 28x28") {
  const auto directory = test::data_directory();
  if (!directory) return test::print_skipped("MNIST itself has 60000 and 10000 digits of 28x28");
  const auto data = load_mnist(*directory);
  REQUIRE(data.ok());
  CHECK(data->train.size() == 60000);
  CHECK(data->test.size() == 10000);
  CHECK(data->train.shape() == std::vector<std::uint32_t>{28, 28, 1});
  // The first labels, as printed on LeCun's page and in every tutorial: 5 0 4 1 9, and 7 2 1 0 4.
  const auto first = [](const DataSet& set) {
    return std::vector<std::int32_t>(set.labels().begin(), set.labels().begin() + 5);
  };
  CHECK(first(data->train) == std::vector<std::int32_t>{5, 0, 4, 1, 9});
  CHECK(first(data->test) == std::vector<std::int32_t>{7, 2, 1, 0, 4});
  // Mean intensity .1307, the constant that MNIST is commonly normalised with.
  std::vector<float> pixels(std::size_t{60000} * 784);
  std::vector<std::int32_t> labels(60000);
  std::vector<std::uint32_t> all(60000);
  std::iota(all.begin(), all.end(), 0u);
  data->train.gather(all, pixels, labels);
  CHECK(std::accumulate(pixels.begin(), pixels.end(), 0.0) / static_cast<double>(pixels.size()) ==
        Approx(0.1307).margin(0.00005));
}

}  // namespace covey::models
