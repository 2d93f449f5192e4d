#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <covey/client/local_data_spec.hpp>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "data_directory.hpp"

/// A device's folder of data, and what a data set holds.
namespace covey::client::testing {

/// Nobody has written to the file for `age`.
inline void make_older(const std::string& path,
                       std::chrono::seconds age = std::chrono::seconds(60)) {
  const auto then = std::chrono::system_clock::now() - age;
  const auto since = std::chrono::duration_cast<std::chrono::seconds>(then.time_since_epoch());
  const timespec times[2] = {{since.count(), 0}, {since.count(), 0}};
  REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

inline std::string write_old(const test::ScratchDirectory& folder, const std::string& name,
                             const std::string& text) {
  const std::string path = folder.write(name, text);
  make_older(path);
  return path;
}

inline std::unique_ptr<LocalData> open_data(const std::string& text,
                                            std::function<void(std::string_view)> on_notice = {}) {
  const auto spec = parse_local_data(text);
  INFO((spec.ok() ? "" : spec.error().message));
  REQUIRE(spec.ok());
  auto data = open_local_data(*spec, std::move(on_notice));
  INFO((data.ok() ? "" : data.error().message));
  REQUIRE(data.ok());
  return std::move(data).value();
}

inline std::shared_ptr<const models::DataSet> examples_of(LocalData& data) {
  auto examples = data.examples();
  INFO((examples.ok() ? "" : examples.error().message));
  REQUIRE(examples.ok());
  return *examples;
}

/// As if an update had been made of them, and the server had counted it.
inline void count(LocalData& data, const std::shared_ptr<const models::DataSet>& examples) {
  data.update_made(examples, RunId{7}, RoundNumber{1});
  data.update_counted(RunId{7}, RoundNumber{1});
}

inline std::string error_of(LocalData& data) {
  const auto examples = data.examples();
  return examples.ok() ? "(no error)" : examples.error().message;
}

inline std::vector<float> features_of(const models::DataSet& set) {
  std::vector<std::uint32_t> all(set.size());
  std::iota(all.begin(), all.end(), 0u);
  std::vector<float> features(set.size() * set.example_size());
  std::vector<std::int32_t> labels(set.size());
  set.gather(all, features, labels);
  return features;
}

inline std::vector<std::int32_t> labels_of(const models::DataSet& set) {
  return {set.labels().begin(), set.labels().end()};
}

}  // namespace covey::client::testing
