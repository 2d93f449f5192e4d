#include <fmt/format.h>

#include <algorithm>
#include <covey/models/example_files.hpp>
#include <utility>

#include "data/data_builder.hpp"
#include "data/idx.hpp"

namespace covey::models {

Result<DataSet> load_idx(const std::string& images_path, const std::string& labels_path,
                         std::uint32_t classes, std::uint64_t max_bytes) {
  constexpr float kByteScale = 1.0f / 255;
  COVEY_ASSIGN(IdxArray images, read_idx(images_path, 3, max_bytes));
  COVEY_ASSIGN(const IdxArray labels, read_idx(labels_path, 1));
  if (images.extents[0] != labels.extents[0]) {
    return malformed(fmt::format("{}: {} labels for the {} images of {}", labels_path,
                                 labels.extents[0], images.extents[0], images_path));
  }
  if (classes == 0) {
    const auto largest = std::ranges::max_element(labels.values);
    classes = largest == labels.values.end() ? 1 : *largest + 1u;
  }
  auto set =
      DataSet::from_bytes({images.extents[1], images.extents[2], 1}, std::move(images.values),
                          kByteScale, {labels.values.begin(), labels.values.end()}, classes);
  if (!set.ok()) {
    return with_context(fmt::format("{} and {}", images_path, labels_path), set.error());
  }
  return set;
}

Result<std::uint64_t> count_idx(const std::string& labels) {
  COVEY_ASSIGN(const IdxArray array, read_idx(labels, 1));
  return array.extents[0];
}

}  // namespace covey::models
