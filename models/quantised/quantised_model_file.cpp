#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <covey/digest.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "int8_parameters.hpp"
#include "quantised_state.hpp"

namespace covey::models {

namespace {

using Magic = std::array<char, 8>;
constexpr Magic kMagic = {'C', 'O', 'V', 'E', 'Y', 'Q', '8', '\0'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kDigestBytes = sizeof(Digest::bytes);
constexpr std::uint32_t kMaxDimensions = 3;
constexpr std::uint32_t kMaxLayers = 256;

struct Writer {
  std::vector<std::byte> bytes;

  template <typename T>
  void put(const T& value) {
    const auto* first = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), first, first + sizeof value);
  }
  void put_all(std::span<const std::byte> all) {
    bytes.insert(bytes.end(), all.begin(), all.end());
  }
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <typename T>
  Result<T> get(const char* what) {
    if (rest_.size() < sizeof(T)) return ended(what);
    T value;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_ = rest_.subspan(sizeof value);
    return value;
  }
  Result<std::uint32_t> get_count(const char* what, std::uint32_t most) {
    COVEY_ASSIGN(const auto count, get<std::uint32_t>(what));
    if (count > most) {
      return malformed(fmt::format("quantised model: {} {}; at most {} work", count, what, most));
    }
    return count;
  }
  std::span<const std::byte> rest() const { return rest_; }

 private:
  static Error ended(const char* what) {
    return malformed(fmt::format("quantised model: the content ends before the {}", what));
  }
  std::span<const std::byte> rest_;
};

/// What an int8 network is made of; other members of a layer have their defaults.
Result<ModelSpec> read_spec(Reader& reader) {
  ModelSpec spec;
  COVEY_ASSIGN(const auto dimensions, reader.get_count("input dimensions", kMaxDimensions));
  for (std::uint32_t i = 0; i < dimensions; ++i) {
    COVEY_ASSIGN(const auto extent, reader.get<std::uint32_t>("input shape"));
    spec.input_shape.push_back(extent);
  }
  COVEY_ASSIGN(const auto layers, reader.get_count("layers", kMaxLayers));
  for (std::uint32_t i = 0; i < layers; ++i) {
    LayerSpec layer;
    COVEY_ASSIGN(const auto kind, reader.get<std::uint32_t>("layer kind"));
    COVEY_ASSIGN(layer.units, reader.get<std::uint32_t>("units"));
    COVEY_ASSIGN(layer.kernel, reader.get<std::uint32_t>("kernel"));
    COVEY_ASSIGN(layer.stride, reader.get<std::uint32_t>("stride"));
    if (kind < static_cast<std::uint32_t>(LayerKind::kDense) ||
        kind > static_cast<std::uint32_t>(LayerKind::kRelu)) {
      return malformed(
          fmt::format("quantised model: layer {} has kind {}; 1 to 5 (dense, conv2d, max-pool2d, "
                      "flatten, relu) work",
                      i + 1, kind));
    }
    layer.kind = static_cast<LayerKind>(kind);
    spec.layers.push_back(layer);
  }
  return spec;
}

Error system_error(const std::string& path, const char* doing) {
  return failed(fmt::format("{}: {}: {}", path, doing,
                            std::generic_category().message(errno == 0 ? EIO : errno)));
}

}  // namespace

std::vector<std::byte> QuantisedModel::serialise() const {
  Writer writer;
  writer.put(kMagic);
  writer.put(kVersion);
  const ModelSpec& spec = this->spec();
  writer.put(static_cast<std::uint32_t>(spec.input_shape.size()));
  for (const std::uint32_t extent : spec.input_shape) writer.put(extent);
  writer.put(static_cast<std::uint32_t>(spec.layers.size()));
  for (const LayerSpec& layer : spec.layers) {
    writer.put(static_cast<std::uint32_t>(layer.kind));
    writer.put(layer.units);
    writer.put(layer.kernel);
    writer.put(layer.stride);
  }
  writer.put(static_cast<std::uint32_t>(state_->ranges.size()));
  for (const float range : state_->ranges) writer.put(range);
  const SharedBytes blob = store_int8(state_->plan, state_->storage, {});
  writer.put_all(blob.span());
  writer.put(sha256(writer.bytes).bytes);
  return std::move(writer.bytes);
}

Result<QuantisedModel> QuantisedModel::parse(std::span<const std::byte> bytes) {
  Reader start(bytes);
  COVEY_ASSIGN(const auto magic, start.get<Magic>("magic"));
  if (magic != kMagic) return malformed("quantised model: the content does not begin with COVEYQ8");
  COVEY_ASSIGN(const auto version, start.get<std::uint32_t>("version"));
  if (version != kVersion) {
    return malformed(fmt::format("quantised model: version {}; this program reads version {}",
                                 version, kVersion));
  }
  if (start.rest().size() < kDigestBytes) {
    return malformed("quantised model: the content ends before its checksum");
  }
  const auto content = bytes.first(bytes.size() - kDigestBytes);
  Digest digest;
  std::memcpy(digest.bytes.data(), bytes.data() + content.size(), kDigestBytes);
  if (digest != sha256(content)) {
    return malformed(
        "quantised model: the checksum is not that of the content; it was damaged or "
        "cut off");
  }
  Reader reader(content.subspan(sizeof kMagic + sizeof kVersion));
  COVEY_ASSIGN(const ModelSpec spec, read_spec(reader));
  COVEY_ASSIGN(const auto count, reader.get_count("activation ranges", kMaxLayers + 1));
  std::vector<float> ranges;
  for (std::uint32_t i = 0; i < count; ++i) {
    COVEY_ASSIGN(const auto range, reader.get<float>("activation ranges"));
    ranges.push_back(range);
  }
  auto model = assemble(spec, reader.rest(), ranges);
  if (!model.ok()) {
    return malformed(with_context("quantised model", model.error()).message);
  }
  return model;
}

Result<void> QuantisedModel::save(const std::string& path) const {
  const std::vector<std::byte> bytes = serialise();
  const std::string partial = path + ".new";
  errno = 0;
  {
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) {
      const Error error = system_error(partial, "writing");
      std::error_code ignored;
      std::filesystem::remove(partial, ignored);
      return error;
    }
  }
  std::error_code error;
  std::filesystem::rename(partial, path, error);
  if (error) {
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    return failed(fmt::format("{}: putting in place: {}", path, error.message()));
  }
  return {};
}

Result<QuantisedModel> QuantisedModel::load(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return not_found(fmt::format("{}: opening: {}", path,
                                 std::generic_category().message(errno == 0 ? EIO : errno)));
  }
  const std::streamoff size = file.tellg();
  std::vector<std::byte> bytes(size < 0 ? 0 : static_cast<std::size_t>(size));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (size < 0 || !file) return system_error(path, "reading");
  auto model = parse(bytes);
  if (!model.ok()) return with_context(path, model.error());
  return model;
}

}  // namespace covey::models
