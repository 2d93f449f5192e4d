#include "run_model.hpp"

#include <fmt/format.h>

#include <array>
#include <covey/digest.hpp>
#include <filesystem>
#include <fstream>
#include <span>

namespace covey::simulation {
namespace {

namespace fs = std::filesystem;

Result<std::string> file_digest(const std::string& path, const std::string& data_directory) {
  std::error_code ignored;
  fs::path found = path;
  if (!data_directory.empty() && fs::exists(fs::path(data_directory) / path, ignored)) {
    found = fs::path(data_directory) / path;
  }
  const auto unreadable = [&](const char* why) {
    return not_found(fmt::format(
        "model.torchscript: {} {}; it must name the TorchScript file that every device has too",
        found.string(), why));
  };
  if (fs::is_directory(found, ignored)) return unreadable("is a directory");
  std::ifstream file(found, std::ios::binary);
  if (!file) return unreadable("cannot be opened");
  Sha256 hash;
  std::array<char, 1 << 16> block{};
  while (file.read(block.data(), block.size()) || file.gcount() > 0) {
    hash.update(std::as_bytes(std::span(block).first(static_cast<std::size_t>(file.gcount()))));
  }
  if (file.bad()) return unreadable("cannot be read");
  return hash.finish().hex();
}

std::string features_text(std::uint32_t vocabulary) {
  return vocabulary == 0 ? "numbers" : fmt::format("tokens of {} symbols", vocabulary);
}

}  // namespace

Result<ModelSpec> run_model(const RunConfig& config, const models::DataSet& train,
                            const std::string& data_directory) {
  COVEY_ASSIGN(ModelSpec spec, model_spec_of(config, train.shape(), train.classes()));
  if (!config.model.torchscript.empty()) {
    COVEY_ASSIGN(spec.torchscript, file_digest(config.model.torchscript, data_directory));
  }
  return spec;
}

Result<void> check_fit(const ModelSpec& spec, const models::DataShape& shape,
                       const models::DataSet& data) {
  const bool tokens = data.vocabulary() > 0;
  if (tokens != (shape.vocabulary > 0) || data.vocabulary() > shape.vocabulary) {
    return invalid_argument(fmt::format(
        "[model] takes {}, the data are {}{}", features_text(shape.vocabulary),
        features_text(data.vocabulary()),
        tokens ? "; model.preset = \"char-lstm\" fits, or a first layer {type = \"embedding\"}"
               : ""));
  }
  if (data.example_size() != shape.example_size) {
    return invalid_argument(fmt::format("[model] takes {} features, the data's examples have {}",
                                        shape.example_size, data.example_size()));
  }
  if (spec.target == Target::kInput) return {};
  if (data.labels_per_example() != shape.labels_per_example) {
    return invalid_argument(
        fmt::format("[model] makes {} predictions an example, the data have {} labels an example{}",
                    shape.labels_per_example, data.labels_per_example(),
                    tokens ? " (one for each step: no last-only, no pooling)" : ""));
  }
  if (data.classes() > models::label_limit(spec, shape)) {
    return invalid_argument(fmt::format("[model] tells {} classes apart, the data have {}",
                                        models::label_limit(spec, shape), data.classes()));
  }
  return {};
}

}  // namespace covey::simulation
