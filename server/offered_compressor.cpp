#include <fmt/format.h>

#include <covey/encoding.hpp>
#include <covey/server/offered_compressor.hpp>
#include <utility>

namespace covey::server {

OfferedCompressor OfferedCompressor::of_size(std::string name, std::uint64_t bytes) {
  OfferedCompressor offered;
  if (const auto spec = parse_compressor(name); spec.ok()) offered.spec = *spec;
  offered.name = std::move(name);
  offered.sizes = {static_cast<std::size_t>(bytes), static_cast<std::size_t>(bytes)};
  return offered;
}

Result<std::vector<OfferedCompressor>> offer_compressors(const std::vector<std::string>& names,
                                                         const ModelLayout& layout) {
  std::vector<OfferedCompressor> all;
  for (const std::string& name : names) {
    OfferedCompressor offered;
    COVEY_ASSIGN(offered.spec, parse_compressor(name));
    offered.name = name;
    if (const auto plain = plain_encoding(offered.spec)) {
      offered.sizes.min = offered.sizes.max = encoded_size(*plain, layout);
    } else {
      COVEY_ASSIGN(const auto compressor, compression::make_compressor(offered.spec, layout));
      offered.sizes = compressor->sizes();
    }
    all.push_back(std::move(offered));
  }
  return all;
}

std::optional<std::uint32_t> choose_compressor(std::span<const OfferedCompressor> offered,
                                               const std::vector<std::string>& supported) {
  for (std::uint32_t number = 0; number < offered.size(); ++number) {
    if (supports(supported, offered[number].spec)) return number;
  }
  return std::nullopt;
}

std::string names_of(std::span<const OfferedCompressor> offered) {
  std::string names;
  for (std::size_t i = 0; i < offered.size(); ++i) {
    if (i > 0) names += i + 1 == offered.size() ? " or " : ", ";
    names += offered[i].name;
  }
  return names;
}

std::string to_string(const compression::SizeRange& sizes) {
  if (sizes.min == sizes.max) return fmt::format("{}", sizes.min);
  return fmt::format("{} to {}", sizes.min, sizes.max);
}

}  // namespace covey::server
