#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/models/data_set.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "data/data_builder.hpp"

namespace covey::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// One user's examples of one file.
struct UserExamples {
  std::string user;
  std::vector<float> features;  ///< [labels.size() x example size]
  std::vector<std::int32_t> labels;
};

/// Reads LEAF files and checks that all their examples have one size. One use, one thread.
class LeafReader {
 public:
  Result<std::vector<UserExamples>> read(const std::string& path);

  std::size_t example_size() const { return example_size_; }
  std::uint32_t classes() const { return classes_; }

 private:
  Result<UserExamples> read_user(const std::string& place, const std::string& user,
                                 const json& data);
  Result<void> read_features(const std::string& place, const json& x, std::vector<float>& out);
  Result<std::int32_t> read_label(const std::string& place, const json& y);

  std::size_t example_size_ = 0;  ///< 0 until the first example
  std::uint32_t classes_ = 0;
};

/// A member of an object, of the wanted type; otherwise null.
const json* member(const json& object, const char* name, json::value_t type) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found != object.end() && found->type() == type ? &*found : nullptr;
}

Result<json> parse_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found(path + ": cannot be opened");
  try {
    return json::parse(file);
  } catch (const json::exception& error) {  // syntax, a number out of range, invalid UTF-8
    return malformed(fmt::format("{}: not JSON: {}", path, error.what()));
  }
}

Result<void> LeafReader::read_features(const std::string& place, const json& x,
                                       std::vector<float>& out) {
  if (!x.is_array() || x.empty()) {
    return malformed(fmt::format("{}: x is {}, a flat list of numbers was expected", place,
                                 x.is_array() ? "empty" : "not a list"));
  }
  if (example_size_ == 0) example_size_ = x.size();
  if (x.size() != example_size_) {
    return malformed(fmt::format("{}: x has {} features where the first example has {}", place,
                                 x.size(), example_size_));
  }
  for (const json& value : x) {
    const auto number = value.is_number() ? static_cast<float>(value.get<double>()) : NAN;
    if (!std::isfinite(number)) {
      return malformed(fmt::format("{}: x holds {}, not a finite number in single precision", place,
                                   value.is_number() ? "a large number" : value.type_name()));
    }
    out.push_back(number);
  }
  return {};
}

Result<std::int32_t> LeafReader::read_label(const std::string& place, const json& y) {
  const double value = y.is_number() ? y.get<double>() : -1;
  if (!(value >= 0 && value < kMaxClasses) || std::floor(value) != value) {
    return malformed(fmt::format("{}: y is {}, a class number in [0, {}) was expected", place,
                                 y.is_number() ? fmt::format("{}", value) : y.type_name(),
                                 kMaxClasses));
  }
  classes_ = std::max(classes_, static_cast<std::uint32_t>(value) + 1);
  return static_cast<std::int32_t>(value);
}

Result<UserExamples> LeafReader::read_user(const std::string& place, const std::string& user,
                                           const json& data) {
  const json* x = member(data, "x", json::value_t::array);
  const json* y = member(data, "y", json::value_t::array);
  if (x == nullptr || y == nullptr) {
    return malformed(place + ": user_data needs a list x and a list y");
  }
  if (x->size() != y->size()) {
    return malformed(fmt::format("{}: x has {} examples, y has {}", place, x->size(), y->size()));
  }
  UserExamples examples{user, {}, {}};
  for (std::size_t i = 0; i < x->size(); ++i) {
    const std::string example = fmt::format("{}: example {}", place, i);
    COVEY_TRY(read_features(example, (*x)[i], examples.features));
    COVEY_ASSIGN(const std::int32_t label, read_label(example, (*y)[i]));
    examples.labels.push_back(label);
  }
  return examples;
}

Result<std::vector<UserExamples>> LeafReader::read(const std::string& path) {
  COVEY_ASSIGN(const json document, parse_file(path));
  const json* users = member(document, "users", json::value_t::array);
  const json* counts = member(document, "num_samples", json::value_t::array);
  const json* user_data = member(document, "user_data", json::value_t::object);
  if (users == nullptr || counts == nullptr || user_data == nullptr) {
    return malformed(path +
                     ": not LEAF: needs the lists users and num_samples and the object user_data");
  }
  if (users->size() != counts->size()) {
    return malformed(fmt::format("{}: {} users, but num_samples has {} entries", path,
                                 users->size(), counts->size()));
  }
  std::vector<UserExamples> all;
  for (std::size_t i = 0; i < users->size(); ++i) {
    const auto* user = (*users)[i].get_ptr<const std::string*>();
    if (user == nullptr) return malformed(fmt::format("{}: users[{}] is not a string", path, i));
    const std::string place = fmt::format("{}: user \"{}\"", path, *user);
    const auto found = user_data->find(*user);
    if (found == user_data->end()) return malformed(place + " is not in user_data");
    COVEY_ASSIGN(UserExamples examples, read_user(place, *user, *found));
    const json& count = (*counts)[i];
    if (!count.is_number_unsigned() || count.get<std::uint64_t>() != examples.labels.size()) {
      return malformed(fmt::format("{}: num_samples is {}, there are {} examples", place,
                                   count.is_number() ? count.dump() : count.type_name(),
                                   examples.labels.size()));
    }
    all.push_back(std::move(examples));
  }
  return all;
}

/// The *.json files of a folder, by name; none if there is no such folder.
std::vector<std::string> json_files(const fs::path& folder) {
  std::vector<std::string> files;
  std::error_code code;
  for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
    if (at->path().extension() == ".json") files.push_back(at->path().string());
  }
  std::ranges::sort(files);
  return files;
}

/// Every file's users. Error when one user stands in two places.
Result<std::vector<UserExamples>> read_files(LeafReader& reader,
                                             const std::vector<std::string>& files) {
  std::vector<UserExamples> all;
  std::map<std::string, std::string> file_of_user;
  for (const std::string& file : files) {
    COVEY_ASSIGN(std::vector<UserExamples> users, reader.read(file));
    for (UserExamples& examples : users) {
      const auto [at, is_new] = file_of_user.emplace(examples.user, file);
      if (!is_new) {
        return malformed(
            fmt::format("{}: user \"{}\" was already in {}", file, examples.user, at->second));
      }
      all.push_back(std::move(examples));
    }
  }
  return all;
}

/// The part of a user's examples at these positions goes to the training or the test set.
template <typename Add>
void add_examples(const UserExamples& examples, const std::vector<std::uint32_t>& positions,
                  std::size_t example_size, const Add& add) {
  for (const std::uint32_t i : positions) {
    add(std::span(examples.features).subspan(i * example_size, example_size), examples.labels[i]);
  }
}

Result<FederatedData> assemble(const LeafReader& reader, const std::vector<UserExamples>& train,
                               const std::optional<std::vector<UserExamples>>& test,
                               double test_fraction, std::uint64_t seed) {
  FederatedBuilder builder(reader.example_size());
  std::map<std::string_view, std::size_t> owners;
  for (const UserExamples& examples : train) {
    const std::size_t owner = builder.add_owner(examples.user);
    owners.emplace(examples.user, owner);
    // With test files of its own, a user's training file is taken whole.
    const Split split =
        split_examples(examples.labels.size(), test ? 0 : test_fraction,
                       RandomStream(seed, RandomPurpose::kTrainTestSplit, {}, ClientId{owner}));
    const auto add_train = [&](auto x, auto y) { builder.add_train(owner, x, y); };
    const auto add_test = [&](auto x, auto y) { builder.add_test(owner, x, y); };
    add_examples(examples, split.train, reader.example_size(), add_train);
    add_examples(examples, split.test, reader.example_size(), add_test);
  }
  if (test) {
    for (const UserExamples& examples : *test) {
      // A user held out as a whole: its examples are tested on, but no device owns them.
      const auto owner = owners.find(examples.user);
      for (std::size_t i = 0; i < examples.labels.size(); ++i) {
        const auto x =
            std::span(examples.features).subspan(i * reader.example_size(), reader.example_size());
        owner == owners.end() ? builder.add_test(x, examples.labels[i])
                              : builder.add_test(owner->second, x, examples.labels[i]);
      }
    }
  }
  return std::move(builder).finish({static_cast<std::uint32_t>(reader.example_size())},
                                   reader.classes());
}

}  // namespace

Result<FederatedData> load_leaf(const std::string& directory, const DataConfig& config,
                                std::uint64_t seed) {
  std::vector<std::string> train_files = json_files(fs::path(directory) / "train");
  const std::vector<std::string> test_files = json_files(fs::path(directory) / "test");
  if (train_files.empty()) train_files = json_files(directory);
  if (train_files.empty()) {
    return not_found(directory + ": there are no LEAF files (train/*.json or *.json)");
  }
  LeafReader reader;
  COVEY_ASSIGN(const std::vector<UserExamples> train, read_files(reader, train_files));
  std::optional<std::vector<UserExamples>> test;
  if (!test_files.empty()) {
    COVEY_ASSIGN(test, read_files(reader, test_files));
  }
  if (reader.example_size() == 0) return malformed(directory + ": the LEAF files hold no examples");
  auto data = assemble(reader, train, test, config.test_fraction, seed);
  if (!data.ok()) return with_context(directory, data.error());
  return data;
}

}  // namespace covey::models
