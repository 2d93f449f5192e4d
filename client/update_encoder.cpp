#include "update_encoder.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace covey::client {
namespace {

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

}  // namespace

void add_residual(const SharedBytes& residual, std::span<float> update) {
  if (residual.size() != update.size_bytes()) return;
  ParameterVector lost(update.size());
  if (!decode_fp32(residual.span(), lost.span()).ok() || !all_finite(lost.span())) return;
  for (std::size_t i = 0; i < update.size(); ++i) update[i] += lost[i];
}

Result<UpdateEncoder::Encoded> UpdateEncoder::encode(const CompressorSpec& spec,
                                                     const ModelLayout& layout,
                                                     const TrainingTask& task,
                                                     std::span<float> update) {
  if (compressor_ == nullptr || spec_ != spec || layout_ != layout) {
    compressor_.reset();
    COVEY_ASSIGN(compressor_, compression::make_compressor(spec, layout));
    spec_ = spec;
    layout_ = layout;
  }
  if (spec.error_feedback) add_residual(task.residual, update);
  if (!all_finite(update)) return failed("the update is not finite");
  const compression::UpdateName name{task.plan.seed, task.round, task.client};
  Encoded encoded;
  encoded.bytes = compressor_->encode(update, name);
  if (!spec.error_feedback) return encoded;
  ParameterVector lost(update.size());
  COVEY_TRY(compressor_->decode(encoded.bytes.span(), name, lost.span()));
  for (std::size_t i = 0; i < update.size(); ++i) lost[i] = update[i] - lost[i];
  encoded.residual = encode_fp32(std::move(lost));
  return encoded;
}

}  // namespace covey::client
