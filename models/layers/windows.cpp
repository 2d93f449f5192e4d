#include "layers/windows.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "planner.hpp"

namespace covey::models {

namespace {

constexpr std::uint32_t kMaxKernel = 64;

/// Windows along one side.
struct Side {
  std::size_t outputs = 0;
  std::size_t before = 0;  ///< zeros before the image
  std::size_t padded = 0;  ///< where the last window ends
};

Side side_of(std::size_t extent, std::size_t kernel, std::size_t stride, Padding padding) {
  Side side;
  if (padding == Padding::kValid) {
    side.outputs = (extent - kernel) / stride + 1;
    side.padded = (side.outputs - 1) * stride + kernel;
    return side;
  }
  side.outputs = (extent + stride - 1) / stride;
  side.padded = (side.outputs - 1) * stride + kernel;
  side.before = (std::max(side.padded, extent) - extent) / 2;
  return side;
}

}  // namespace

Result<ConvolutionShape> plan_windows(Planner& planner, std::size_t channels_out) {
  COVEY_TRY(planner.need_image());
  const LayerSpec& layer = planner.layer();
  const auto& shape = planner.shape();
  if (layer.kernel == 0 || layer.kernel > kMaxKernel) {
    return planner.refuse(fmt::format("has kernel {}; 1 to {} work", layer.kernel, kMaxKernel));
  }
  if (layer.padding != Padding::kSame && layer.padding != Padding::kValid) {
    return planner.refuse(
        fmt::format("has the unknown padding {}", static_cast<unsigned>(layer.padding)));
  }
  if (layer.padding == Padding::kValid && layer.kernel > std::min(shape[0], shape[1])) {
    return planner.refuse(
        fmt::format("has a window of {0}x{0}, which does not fit its input {1} without padding",
                    layer.kernel, Planner::text(shape)));
  }
  const std::size_t stride = std::max<std::size_t>(layer.stride, 1);
  const Side rows = side_of(shape[0], layer.kernel, stride, layer.padding);
  const Side columns = side_of(shape[1], layer.kernel, stride, layer.padding);
  return ConvolutionShape{.height = shape[0],
                          .width = shape[1],
                          .channels_in = shape[2],
                          .channels_out = channels_out,
                          .kernel = layer.kernel,
                          .stride = stride,
                          .rows_before = rows.before,
                          .columns_before = columns.before,
                          .out_height = rows.outputs,
                          .out_width = columns.outputs,
                          .padded_height = rows.padded,
                          .padded_width = columns.padded};
}

}  // namespace covey::models
