#include <filesystem>
#include <fstream>

#include "local_data_support.hpp"

using namespace covey;
using namespace covey::client;
using namespace covey::client::testing;
using Catch::Matchers::Contains;

namespace {

using Labels = std::vector<std::int32_t>;
using Features = std::vector<float>;

/// idx: magic, extents (big-endian), bytes.
std::string idx(std::uint8_t dimensions, const std::vector<std::uint32_t>& extents,
                const std::string& values) {
  std::string text = {0, 0, 8, static_cast<char>(dimensions)};
  for (const std::uint32_t extent : extents) {
    for (int shift = 24; shift >= 0; shift -= 8) text.push_back(static_cast<char>(extent >> shift));
  }
  return text + values;
}

std::string pgm(int width, int height, const std::string& pixels) {
  return "P5\n# a comment\n" + std::to_string(width) + " " + std::to_string(height) + "\n255\n" +
         pixels;
}

}  // namespace

TEST_CASE("a table's rows are a device's examples") {
  const test::ScratchDirectory folder;
  const auto path = write_old(folder, "t.csv", "a,label,b\n1,0,2\n3,2,4\n5,1,6");
  const auto data = open_data("csv:" + path);
  CHECK(data->num_examples() == 3);
  const auto set = examples_of(*data);
  CHECK(features_of(*set) == Features{1, 2, 3, 4, 5, 6});
  CHECK(labels_of(*set) == Labels{0, 2, 1});
  CHECK(set->classes() == 3);
}

TEST_CASE("a table's labels may be names where the device knows all of them") {
  const test::ScratchDirectory folder;
  const auto path = write_old(folder, "t.csv", "kind,x\ndog,1\ncat,2\ndog,3\n");
  const auto data = open_data("csv:" + path + ",label=kind,classes=bird|cat|dog");
  const auto set = examples_of(*data);
  CHECK(labels_of(*set) == Labels{2, 1, 2});
  CHECK(set->classes() == 3);
  // One device's names do not say which classes the model has.
  CHECK_THAT(error_of(*open_data("csv:" + path + ",label=kind")),
             Contains("t.csv:2: label \"dog\"") && Contains("classes="));
  CHECK_THAT(error_of(*open_data("csv:" + path + ",label=kind,classes=cat|fish")),
             Contains("t.csv:2: label \"dog\" is none of the classes cat|fish"));
}

TEST_CASE("a table without labels needs none") {
  const test::ScratchDirectory folder;
  const auto path = write_old(folder, "t.csv", "x,y\n1,2\n3,4\n");
  const auto set = examples_of(*open_data("csv:" + path + ",label="));
  CHECK(features_of(*set) == Features{1, 2, 3, 4});
  CHECK(labels_of(*set) == Labels{0, 0});
}

TEST_CASE("a wrong value in a table is named with file, line and column") {
  const test::ScratchDirectory folder;
  std::string text = "x,label\n";
  // Over a megabyte, so that the line is counted on from piece to piece.
  for (int i = 0; i < 150000; ++i) text += "0.25,1\n";
  const auto path = write_old(folder, "t.csv", text + "maybe,1\n");
  std::string told;
  const auto data = open_data("csv:" + path, [&](std::string_view notice) { told += notice; });
  CHECK_THAT(error_of(*data), Contains("t.csv:150002:1: column \"x\": \"maybe\" is not a number"));
  CHECK(data->num_examples() == 0);
  CHECK(data->num_examples() == 0);
  CHECK_THAT(told, Contains("t.csv:150002"));
  CHECK(told.find("150002") == told.rfind("150002"));  // told once
}

TEST_CASE("a table of several megabytes is read whole") {
  const test::ScratchDirectory folder;
  std::string text = "x,label,\"a \"\"name\"\", odd\"\n";
  double sum = 0;
  for (int i = 0; i < 200000; ++i) {
    text += std::to_string(i % 977) + "," + std::to_string(i % 7) + ",\"1\"\n";
    sum += i % 977;
  }
  REQUIRE(text.size() > 1'500'000);  // more than one piece
  const auto data = open_data("csv:" + write_old(folder, "t.csv", text));
  const auto set = examples_of(*data);
  REQUIRE(set->size() == 200000);
  const auto features = features_of(*set);
  CHECK(std::accumulate(features.begin(), features.end(), 0.0) == sum + 200000);
}

TEST_CASE("a table that changed is read again, and a snapshot that is held stays as it was") {
  const test::ScratchDirectory folder;
  const auto path = write_old(folder, "t.csv", "x,label\n1,0\n");
  const auto data = open_data("csv:" + path);
  const auto before = examples_of(*data);
  CHECK(examples_of(*data) == before);  // unchanged: not read twice
  std::ofstream(path, std::ios::app) << "2,1\n";
  CHECK(data->num_examples() == 2);
  CHECK(features_of(*examples_of(*data)) == Features{1, 2});
  CHECK(features_of(*before) == Features{1});
  write_old(folder, "t.csv", "x,label\n9,0\n8,0\n7,0\n");
  CHECK(features_of(*examples_of(*data)) == Features{9, 8, 7});
}

TEST_CASE("the last line of a table counts once its writer has finished it") {
  const test::ScratchDirectory folder;
  const auto path = folder.write("t.csv", "x,label\n1,0\n2");  // just now
  const auto data = open_data("csv:" + path);
  CHECK(features_of(*examples_of(*data)) == Features{1});
  std::ofstream(path, std::ios::app) << "5,1";
  CHECK(features_of(*examples_of(*data)) == Features{1});
  SECTION("by a line end") {
    std::ofstream(path, std::ios::app) << "\n";
    CHECK(features_of(*examples_of(*data)) == Features{1, 25});
  }
  SECTION("or by leaving it alone") {
    make_older(path);
    CHECK(features_of(*examples_of(*data)) == Features{1, 25});
  }
}

TEST_CASE("a line end within a quoted cell does not cut a row in two") {
  const test::ScratchDirectory folder;
  const auto path = folder.write("t.csv", "x,kind\n1,\"a\nb\"\n2,\"a\n");  // the last quote is open
  const auto set = examples_of(*open_data("csv:" + path + ",label=kind,classes=a\nb|c"));
  CHECK(features_of(*set) == Features{1});
}

TEST_CASE("examples that take more memory than they may are refused") {
  const test::ScratchDirectory folder;
  std::string text = "x,label\n";
  for (int i = 0; i < 1000; ++i) text += "1,0\n";
  const auto path = write_old(folder, "t.csv", text);
  CHECK_THAT(error_of(*open_data("csv:" + path + ",max-bytes=7K")), Contains("max-bytes"));
  CHECK(examples_of(*open_data("csv:" + path + ",max-bytes=8K"))->size() == 1000);
}

TEST_CASE("a table that is not there yet or not there any more is named") {
  const test::ScratchDirectory folder;
  const auto missing = open_local_data(*parse_local_data("csv:" + folder.path() + "/no.csv"));
  REQUIRE_FALSE(missing.ok());
  CHECK_THAT(missing.error().message, Contains("no.csv"));
  const auto path = write_old(folder, "t.csv", "x,label\n1,0\n");
  const auto data = open_data("csv:" + path);
  CHECK(data->num_examples() == 1);
  std::filesystem::remove(path);
  CHECK(data->num_examples() == 0);
  CHECK_THAT(error_of(*data), Contains("t.csv"));
  write_old(folder, "t.csv", "x,label\n1,0\n2,0\n");
  CHECK(data->num_examples() == 2);
}

TEST_CASE("images of idx files stay bytes") {
  const test::ScratchDirectory folder;
  write_old(folder, "train-images-idx3-ubyte",
            idx(3, {2, 1, 2}, std::string("\x00\xff\x33\x66", 4)));
  write_old(folder, "train-labels-idx1-ubyte", idx(1, {2}, std::string("\x04\x01", 2)));
  const auto data = open_data("idx:" + folder.path() + ",classes=10");
  CHECK(data->num_examples() == 2);
  const auto set = examples_of(*data);
  CHECK(set->shape() == std::vector<std::uint32_t>{1, 2, 1});
  CHECK(set->classes() == 10);
  CHECK(labels_of(*set) == Labels{4, 1});
  const auto features = features_of(*set);
  CHECK(features[1] == 1.0f);
  CHECK(features[2] == Approx(0.2f));
  // By the beginning of the files' names; classes as the labels show.
  const auto stem = open_data("idx:" + folder.path() + "/train");
  CHECK(examples_of(*stem)->classes() == 5);
  CHECK_THAT(error_of(*open_data("idx:" + folder.path() + ",classes=4")), Contains("label 4"));
  CHECK_THAT(error_of(*open_data("idx:" + folder.path() + ",max-bytes=3")), Contains("3 bytes"));
}

TEST_CASE("idx files that contradict each other are refused") {
  const test::ScratchDirectory folder;
  write_old(folder, "a-images-idx3-ubyte", idx(3, {2, 1, 1}, "ab"));
  write_old(folder, "a-labels-idx1-ubyte", idx(1, {3}, std::string(3, 0)));
  CHECK_THAT(error_of(*open_data("idx:" + folder.path() + "/a")),
             Contains("3 labels for the 2 images"));
}

TEST_CASE("MNIST's own files are read as they come") {
  const auto directory = test::data_directory();
  if (!directory) return test::print_skipped("MNIST as local data");
  const bool below = std::filesystem::is_directory(*directory + "/mnist");
  const auto data = open_data("idx:" + *directory + (below ? "/mnist" : ""));
  CHECK(data->num_examples() == 60000);
  const auto set = examples_of(*data);
  CHECK(set->size() == 60000);
  CHECK(set->classes() == 10);
  CHECK(set->example_size() == 784);
}

TEST_CASE("a folder for each class holds its images") {
  const test::ScratchDirectory folder;
  std::filesystem::create_directories(folder.path() + "/cat");
  std::filesystem::create_directories(folder.path() + "/dog");
  write_old(folder, "dog/2.pgm", pgm(2, 1, "\xff" + std::string(1, 0)));
  write_old(folder, "dog/1.PGM", pgm(2, 1, std::string(2, 0)));
  write_old(folder, "cat/x.pgm", "P5 2 1 15 " + std::string("\x0f\x05"));
  write_old(folder, "cat/notes.txt", "not an image");
  const auto data = open_data("directory:" + folder.path());
  CHECK(data->num_examples() == 3);
  const auto set = examples_of(*data);
  CHECK(labels_of(*set) == Labels{0, 1, 1});
  CHECK(set->shape() == std::vector<std::uint32_t>{1, 2, 1});
  const auto features = features_of(*set);
  const Features expected = {1, 1.0f / 3, 0, 0, 1, 0};
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(features[i] == Approx(expected[i]));

  // The model's numbering stands above what this device happens to have.
  const auto named = open_data("directory:" + folder.path() + ",classes=dog|bird|cat");
  CHECK(labels_of(*examples_of(*named)) == Labels{2, 0, 0});
  CHECK(examples_of(*named)->classes() == 3);
  CHECK_THAT(error_of(*open_data("directory:" + folder.path() + ",classes=dog|bird")),
             Contains("cat/x.pgm") && Contains("dog|bird"));
}

TEST_CASE("colour images have three channels, and all images one size") {
  const test::ScratchDirectory folder;
  std::filesystem::create_directories(folder.path() + "/a");
  write_old(folder, "a/1.ppm", "P6 1 2 255 abcdef");
  const auto data = open_data("directory:" + folder.path());
  CHECK(examples_of(*data)->shape() == std::vector<std::uint32_t>{2, 1, 3});
  write_old(folder, "a/2.ppm", "P6 2 1 255 abcdef");
  CHECK_THAT(error_of(*data), Contains("a/2.ppm") && Contains("2x1") && Contains("1x2"));
}

TEST_CASE("an image that is cut short is an error, but for one that is just being written") {
  const test::ScratchDirectory folder;
  std::filesystem::create_directories(folder.path() + "/a");
  write_old(folder, "a/1.pgm", pgm(2, 1, "ab"));
  const auto data = open_data("directory:" + folder.path());
  folder.write("a/2.pgm", pgm(2, 1, "a"));
  CHECK(examples_of(*data)->size() == 1);
  make_older(folder.path() + "/a/2.pgm");
  CHECK_THAT(error_of(*data), Contains("a/2.pgm") && Contains("cut short"));
}

TEST_CASE("what is no image is named") {
  const test::ScratchDirectory folder;
  std::filesystem::create_directories(folder.path() + "/a");
  const auto bad =
      GENERATE(as<std::string>{}, "", "P5", "P4 1 1 ", "P5 0 1 255 ", "P5 1 1 300 ab",
               "P5 99999999 99999999 255 a", "P5 1 x 255 a", "P5 16777216 16777216 255 a");
  INFO(bad);
  write_old(folder, "a/1.pgm", bad);
  CHECK_THAT(error_of(*open_data("directory:" + folder.path())), Contains("a/1.pgm"));
}

TEST_CASE("the tables of a folder are one set of examples") {
  const test::ScratchDirectory folder;
  write_old(folder, "monday.csv", "x,label\n1,0\n");
  write_old(folder, "tuesday.csv", "x,label\n2,1\n3,0\n");
  const auto data = open_data("directory:" + folder.path());
  CHECK(features_of(*examples_of(*data)) == Features{1, 2, 3});
  write_old(folder, "wednesday.csv", "x,label\n4,2\n");
  CHECK(data->num_examples() == 4);
  CHECK(examples_of(*data)->classes() == 3);
  write_old(folder, "thursday.csv", "y,label\n4,2\n");
  CHECK_THAT(error_of(*data), Contains("tuesday.csv") || Contains("thursday.csv"));
}

TEST_CASE("a folder with nothing to read is refused at once") {
  const test::ScratchDirectory folder;
  std::filesystem::create_directories(folder.path() + "/a");
  folder.write("a/picture.png", "png");
  const auto data = open_local_data(*parse_local_data("directory:" + folder.path()));
  REQUIRE_FALSE(data.ok());
  CHECK_THAT(data.error().message, Contains("PGM"));
}
