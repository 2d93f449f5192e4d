#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <covey/assert.hpp>
#include <covey/compression/model_delta.hpp>
#include <covey/compression/model_steps.hpp>
#include <covey/server/model_sender.hpp>
#include <utility>

namespace covey::server {
namespace {

/// A difference that saves less than a tenth is not worth what a device spends on it.
constexpr double kWorthwhile = 0.9;

bool worthwhile(std::size_t difference, std::size_t model) {
  return static_cast<double>(difference) < kWorthwhile * static_cast<double>(model);
}

std::size_t element_size(Encoding encoding) {
  switch (encoding) {
    case Encoding::kFp32:
      return 4;
    case Encoding::kBf16:
      return 2;
    case Encoding::kInt8:
      return 1;
  }
  return 1;
}

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

Error refused(const RunConfig& config, std::string_view why) {
  return invalid_argument(
      fmt::format("server.model-compressor = \"{}\": {}", config.server.model_compressor, why));
}

}  // namespace

Result<ModelSending> ModelSending::of(const RunConfig& config, const TrainingPlan& plan) {
  ModelSending sending;
  sending.history = config.server.model_history;
  if (config.server.model_compressor == "off") return sending;
  auto spec = parse_compressor(config.server.model_compressor);
  if (!spec.ok()) return refused(config, spec.error().message);
  if (spec->kind == CompressorKind::kFp32) {
    return refused(config, "that is the model as it is; leave it \"off\"");
  }
  COVEY_ASSIGN(const Encoding encoding, model_encoding(plan.precision));
  if (encoding != Encoding::kFp32) {
    return refused(config,
                   fmt::format("devices that train in \"{}\" are sent the model in it already; "
                               "set client.precision to fp32 or qat-int8, or leave it \"off\"",
                               plan.precision));
  }
  if (!plan.model.torchscript.empty()) {
    return refused(config,
                   "a device does not know the layers of a TorchScript file before it has the "
                   "model; leave it \"off\"");
  }
  // What a step loses is in the next one, for which the error of a step must be smaller than the
  // step.
  spec->error_feedback = true;
  sending.compressor = *spec;
  return sending;
}

Result<ModelSender> ModelSender::make(const ModelSending& sending, const ModelLayout& layout,
                                      std::uint64_t seed) {
  ModelSender sender;
  sender.history_ = sending.history;
  sender.compressor_ = sending.compressor;
  sender.seed_ = seed;
  if (!sending.compressor) return sender;
  COVEY_ASSIGN(sender.method_, compression::make_compressor(*sending.compressor, layout));
  sender.sent_ = ParameterVector(layout.size());
  sender.moved_ = ParameterVector(layout.size());
  sender.scratch_ = ParameterVector(layout.size());
  return sender;
}

void ModelSender::begin(std::span<const float> model, std::span<const float> state) {
  earlier_.clear();
  steps_.clear();
  if (!compressor_) return;
  std::ranges::copy(state.empty() ? model : state, sent_.span().begin());
}

/// s_t = s_{t-1} + Q(w_t - s_{t-1}): what Q loses of a step is part of the next difference, so s
/// follows w. (Philippenko and Dieuleveut 2021, MCM, eq. 3 with alpha = 1; Tang et al. 2019,
/// DoubleSqueeze.)
void ModelSender::advance(RoundNumber round, std::span<const float> model) {
  if (!compressor_) return;
  const std::span<float> sent = sent_.span();
  const std::span<float> moved = moved_.span();
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] = model[i] - sent[i];
  const Digest base = sha256(std::as_bytes(sent));
  const auto name = compression::model_step_name(seed_, round);
  std::vector<std::byte> framed;
  bool done = false;
  if (all_finite(moved)) {
    const SharedBytes step = method_->encode(moved, name);
    framed = compression::frame_model_step(round, step.span());
    done = compression::apply_model_step(*method_, name, step.span(), scratch_.span(), sent).ok() &&
           all_finite(sent);
  }
  if (!done) {  // near the end of single precision: devices are sent the model itself, whole
    std::ranges::copy(model, sent.begin());
    steps_.clear();
    return;
  }
  if (history_ > 0) steps_.push_back({base, std::move(framed)});
}

std::vector<ModelSender::Blob> ModelSender::blobs_of(const EncodedModel& model,
                                                     std::span<const Encoding> encodings) {
  COVEY_ASSERT(encodings.size() == 1 + model.variants.size());
  std::vector<Blob> blobs;
  for (std::uint32_t variant = 0; variant < encodings.size(); ++variant) {
    blobs.push_back({model.sent_to(variant), element_size(encodings[variant])});
  }
  return blobs;
}

void ModelSender::remember(const EncodedModel& model, std::span<const Encoding> encodings) {
  if (history_ == 0 || compressor_) return;
  earlier_.push_front(blobs_of(model, encodings));
  if (earlier_.size() > history_) earlier_.pop_back();
}

void ModelSender::offer(EncodedModel& model, std::span<const Encoding> encodings) {
  model.differences.clear();
  if (history_ == 0) return;
  if (compressor_) return offer_steps(model);
  offer_differences(model, blobs_of(model, encodings));
  remember(model, encodings);
}

void ModelSender::offer_differences(EncodedModel& model, const std::vector<Blob>& blobs) const {
  for (std::size_t variant = 0; variant < blobs.size(); ++variant) {
    const SharedBytes& blob = blobs[variant].bytes;
    const auto is_blob = [&](const Blob& other) { return other.bytes.data() == blob.data(); };
    if (std::any_of(blobs.begin(), blobs.begin() + static_cast<std::ptrdiff_t>(variant), is_blob)) {
      continue;  // variants that are sent the same
    }
    for (const auto& before : earlier_) {
      const SharedBytes& base = before[variant].bytes;
      if (base.digest() == blob.digest()) continue;
      auto delta =
          compression::encode_model_delta(base.span(), blob.span(), blobs[variant].element_size);
      COVEY_ASSERT(delta.ok());  // models of one variant are equally long
      // Models further back are further away.
      if (!worthwhile(delta->bytes.size(), blob.size())) break;
      const Digest digest = delta->bytes.digest();
      model.differences.push_back(
          {blob.digest(),
           {base.digest(), digest, delta->bytes.size(), std::move(delta->encoding)},
           delta->bytes});
    }
  }
}

/// All steps in one buffer: a device that holds an earlier model is sent the end of it.
void ModelSender::offer_steps(EncodedModel& model) {
  std::size_t size = 0;
  for (const Step& step : steps_) size += step.framed.size();
  while (!steps_.empty() &&
         (!worthwhile(size, model.sent.size()) || steps_.size() > compression::kMostModelSteps)) {
    size -= steps_.front().framed.size();
    steps_.pop_front();
  }
  std::vector<std::byte> all;
  all.reserve(size);
  for (const Step& step : steps_) all.insert(all.end(), step.framed.begin(), step.framed.end());
  const SharedBytes steps(std::move(all));
  const std::string encoding = compression::model_steps_encoding(*compressor_);
  const Digest sent = model.sent.digest();
  std::size_t begin = 0;
  for (const Step& step : steps_) {
    const SharedBytes rest = steps.slice(begin, size - begin);
    begin += step.framed.size();
    if (step.base == sent) continue;
    model.differences.push_back({sent, {step.base, rest.digest(), rest.size(), encoding}, rest});
  }
}

}  // namespace covey::server
